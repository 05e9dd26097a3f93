"""Joint example selection with sigmoid loss (JEST), arXiv 2406.17711.

Examples are worth most where the learner is worse than a reference model, and the
worth of an example depends on which others are in the batch: the loss is a matrix over
pairs. A batch is drawn in chunks, each given the ones before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from saln.errors import InputError
from saln.selection.candidates import Candidates, Selection
from saln.selection.contract import Selector

__all__ = ["JEST", "gumbel_top_k", "jest_positions", "one_versus_rest_losses"]


def one_versus_rest_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """The pairwise loss matrix of a classifier.

    With ``p_i`` the softmax probabilities of example ``i``: ``-log p_i(y_i)`` on the
    diagonal, ``-log(1 - p_i(y_j))`` where ``y_i != y_j``, 0 elsewhere: how well ``i``
    tells itself from ``j``. The counterpart for classification of the sigmoid loss
    matrix between images and texts (arXiv 2406.17711, section 3).

    Args:
        logits: floating, (n, C), C at least 2; half precision is computed in float32.
        labels: int64, (n,), in [0, C).

    Returns:
        float32 or float64, (n, n), finite wherever the logits are.
    """
    if logits.dtype not in (torch.float32, torch.float64):
        logits = logits.float()
    log_p = torch.log_softmax(logits, dim=1)
    # log(1 - p_c) is the log of the other classes' mass. For all but the likeliest class
    # p_c <= 1/2 and log1p is exact; for that one, 1 - p_c may be lost in rounding, so its
    # rivals are summed by themselves.
    top = log_p.argmax(dim=1, keepdim=True)
    log_rest = torch.log1p(-log_p.exp().scatter(1, top, 0.0))
    rivals = torch.logsumexp(log_p.scatter(1, top, -torch.inf), dim=1, keepdim=True)
    log_rest = log_rest.scatter(1, top, rivals)
    pairs = -log_rest[:, labels]
    pairs = torch.where(labels[:, None] == labels[None, :], 0.0, pairs)
    own = -log_p.gather(1, labels[:, None]).squeeze(1)
    return pairs.diagonal_scatter(own)


def gumbel_top_k(logits: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """Draws ``k`` positions without replacement, in proportion to ``exp(logits)``.

    The ``k`` largest of logits plus Gumbel noise (arXiv 1903.06059), which never forms
    ``exp(logits)``. A position with logit ``-inf`` is never drawn while others are left.

    Args:
        logits: floating, (n,).
        k: 0 to the number of logits above ``-inf``.
        generator: CPU generator.

    Returns:
        int64, (k,), in the order of the draw.
    """
    uniform = torch.rand(len(logits), generator=generator, dtype=torch.float64)
    # 0 would give infinite noise; the smallest positive double stands for it.
    noise = -torch.log(-torch.log(uniform.clamp_min(torch.finfo(torch.float64).tiny)))
    return torch.topk(logits.double().cpu() + noise, k).indices


def jest_positions(scores: Tensor, k: int, *, chunks: int, generator: torch.Generator) -> Tensor:
    """Chunked joint sampling (arXiv 2406.17711, algorithm 1).

    The logit of candidate ``j``, given those already kept, is
    ``s_jj + sum over kept i of (s_ij + s_ji)``.

    Args:
        scores: floating, (n, n): learner's minus reference's pairwise losses.
        k: How many to keep in all, 1 to n.
        chunks: In how many draws, at least 1; more than ``k`` mean ``k``. Chunks differ
            by at most one example, so that exactly ``k`` are kept.
        generator: CPU generator.

    Returns:
        int64, (k,), distinct, in the order of the draw.
    """
    scores = scores.double().cpu()
    chunks = min(chunks, k)
    logits = scores.diagonal().clone()
    kept = torch.empty(0, dtype=torch.int64)
    for chunk in range(chunks):
        size = k * (chunk + 1) // chunks - k * chunk // chunks
        new = gumbel_top_k(logits, size, generator)
        logits = logits + scores[new].sum(dim=0) + scores[:, new].sum(dim=1)
        logits[new] = -torch.inf
        kept = torch.cat([kept, new])
    return kept


@dataclass(frozen=True)
class JEST(Selector):
    """Keeps the batch that is jointly most learnable: hard now, easy for the reference.

    Args:
        chunks: In how many draws the batch is built; 16 as in the paper.

    Raises:
        InputError: ``chunks`` is below 1.
    """

    chunks: int = 16

    requires: ClassVar[frozenset[str]] = frozenset(
        {"labels", "learner_outputs", "reference_outputs"}
    )
    is_joint: ClassVar[bool] = True
    summary: ClassVar[str] = "joint learnability against a reference model (DeepMind's JEST)"

    def __post_init__(self) -> None:
        if self.chunks < 1:
            raise InputError(f"chunks={self.chunks} is not allowed; give at least 1")

    def choose(self, candidates: Candidates, k: int, generator: torch.Generator) -> Selection:
        """Draws by :func:`jest_positions` on the difference of the two loss matrices."""
        labels = candidates.need("labels")
        learner, reference = (
            one_versus_rest_losses(candidates.need(name), labels)
            for name in ("learner_outputs", "reference_outputs")
        )
        scores = learner - reference
        positions = jest_positions(scores, k, chunks=self.chunks, generator=generator)
        return Selection(positions, scores=scores.diagonal().cpu())
