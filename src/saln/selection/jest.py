"""Joint example selection with sigmoid loss (JEST), arXiv 2406.17711.

Examples are worth most where the learner is worse than a reference model, and the
worth of an example depends on which others are in the batch: the loss is a matrix over
pairs. A batch is drawn in chunks, each given the ones before.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import softplus

from saln.errors import NotJointWarning
from saln.messages import not_allowed
from saln.selection.candidates import Candidates, PairEmbeddings, Selection
from saln.selection.contract import Selector
from saln.selection.hyperparameters import Bounds, check_hyperparameters
from saln.selection.sampling import gumbel_top_k

# Which losses make the scores; see JEST.
Variant = Literal["learnability", "easy-reference", "hard-learner"]


def one_versus_rest_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """The pairwise loss matrix of a classifier.

    With ``p_i`` the softmax probabilities of example ``i``: ``-log p_i(y_i)`` on the
    diagonal, ``-log(1 - p_i(y_j))`` where ``y_i != y_j``, 0 elsewhere: how well ``i``
    tells itself from ``j``. The counterpart for classification of the sigmoid loss
    matrix between images and texts (arXiv 2406.17711, section 3).

    From logits (n, C), C at least 2, and labels (n,), in [0, C), to float32 or float64, (n, n),
    finite wherever the logits are.
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


def sigmoid_losses(pairs: PairEmbeddings) -> Tensor:
    """The pairwise loss matrix of SigLIP (arXiv 2303.15343, section 3.2).

    ``softplus(-z_ij)`` on the diagonal and ``softplus(z_ij)`` elsewhere, with ``z_ij`` the
    logit of image ``i`` with text ``j``: what JEST calls the sigmoid-contrastive loss
    (arXiv 2406.17711), before the sum over the batch.

    Args:
        pairs: ``n`` pairs; half precision is computed in float32.

    Returns:
        float32 or float64, (n, n), finite wherever the logits are.
    """
    logits = _pair_logits(pairs)
    return softplus(logits.diagonal_scatter(-logits.diagonal()))


def softmax_losses(pairs: PairEmbeddings) -> Tensor:
    """A pairwise loss matrix for CLIP's loss (arXiv 2103.00020), which is no sum over pairs.

    CLIP classifies each image among the texts and each text among the images. With ``p``
    the softmax probabilities of one direction: ``-log p_ii`` on the diagonal,
    ``-log(1 - p_ij)`` elsewhere, as in :func:`one_versus_rest_losses`; the mean of both
    directions. The diagonal is CLIP's loss of each pair among the candidates, exactly.

    Args:
        pairs: ``n`` pairs; half precision is computed in float32.

    Returns:
        float32 or float64, (n, n), finite wherever the logits are.
    """
    logits = _pair_logits(pairs)
    if len(logits) == 1:  # one text to choose from: nothing to get wrong
        return torch.zeros_like(logits)
    own = torch.arange(len(logits), device=logits.device)
    images, texts = (one_versus_rest_losses(z, own) for z in (logits, logits.T))
    return (images + texts.T) / 2


def _pair_logits(pairs: PairEmbeddings) -> Tensor:
    wide = torch.promote_types(torch.float32, pairs.image.dtype)
    return pairs.scale * (pairs.image.to(wide) @ pairs.text.to(wide).T) + pairs.bias


def is_outer_difference(scores: Tensor) -> bool:
    """Whether ``s_ij = a_i - b_j`` for some vectors, which says nothing about pairs.

    A constant matrix does not count, nor one below 3 x 3, where it may be chance.
    """
    if len(scores) < 3:
        return False
    # float32 losses, and their differences, are exact to about 1e-6 of their size.
    rounding = max(1e-5, 4 * torch.finfo(scores.dtype).eps)
    scores = scores.double()
    spread = float(scores.max() - scores.min())
    # What is left once the first row and column are taken away: 0 for every outer difference.
    rest = scores - scores[:, :1] - scores[:1] + scores[0, 0]
    return spread > 0 and float(rest.abs().max()) <= rounding * spread


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

    Warns:
        NotJointWarning: ``s_ij = a_i - b_j``, as in public ports that subtract a column of
            the reference's losses from a row of the learner's: the logits are then
            ``a_j - b_j`` times one more than the number kept, which is RHO-LOSS with a
            temperature.
    """
    scores = scores.detach()
    if is_outer_difference(scores):
        warnings.warn(
            "the scores are an outer difference, s_ij = a_i - b_j: the choice is not joint "
            "but RHO-LOSS with a temperature; give the difference of two pairwise loss "
            "matrices",
            NotJointWarning,
            stacklevel=2,
        )
    # In float64 on the CPU: a GPU's last digits would change what is drawn.
    scores = scores.double().cpu()
    chunks = min(chunks, k)
    logits = scores.diagonal().clone()
    kept = torch.empty(0, dtype=torch.int64)
    for chunk in range(chunks):
        # Sizes that differ by at most one and sum to k, whatever the number of chunks.
        size = k * (chunk + 1) // chunks - k * chunk // chunks
        new = gumbel_top_k(logits, size, generator)
        # Both directions: how well the kept tell j apart, and how well j tells them apart.
        logits = logits + scores[new].sum(dim=0) + scores[:, new].sum(dim=1)
        # Not a large negative number, which others' logits might reach.
        logits[new] = -torch.inf
        kept = torch.cat([kept, new])
    return kept


@dataclass(frozen=True)
class JEST(Selector):
    """Keeps the batch that is jointly most learnable: hard now, easy for the reference.

    From a classifier's outputs; :class:`ImageTextJEST` takes the embeddings of pairs.

    Args:
        chunks: In how many draws the batch is built; 16 as in the paper.
        variant: ``learnability``, learner's minus reference's losses; ``easy-reference``,
            minus the reference's (then the learner's are not required); ``hard-learner``,
            the learner's (then the reference's are not).
        reference: Whose losses are taken off: a model's, or ``"features"``: those of the features
            as a teacher (:func:`saln.features_as_teacher`), for which no model is trained.

    Raises:
        InputError: ``chunks`` is below 1, or an unknown variant or reference.
    """

    chunks: Annotated[int, Bounds(low=1)] = 16
    variant: Variant = "learnability"
    reference: Literal["model", "features"] = field(default="model", kw_only=True)

    requires: ClassVar[frozenset[str]] = frozenset(
        {"labels", "learner_outputs", "reference_outputs"}
    )
    is_joint: ClassVar[bool] = True
    summary: ClassVar[str] = (
        "joint learnability (DeepMind's JEST); costs a forward pass of all candidates and a "
        "reference model"
    )
    _added: ClassVar[Mapping[str, Any]] = {"reference": "model"}

    def __post_init__(self) -> None:
        check_hyperparameters(self)
        unread = {"easy-reference": "learner_", "hard-learner": "reference_"}.get(self.variant)
        needed = type(self).requires
        if unread is not None:
            # Fewer than the class requires, so that nobody computes what is not read.
            needed = frozenset(name for name in needed if not name.startswith(unread))
        if self.reference == "features" and "reference_outputs" in needed:
            needed = needed - {"reference_outputs"} | {"teacher_outputs"}
        object.__setattr__(self, "requires", needed)

    def choose(self, candidates: Candidates, k: int, generator: torch.Generator) -> Selection:
        """Draws by :func:`jest_positions` on the difference of the two loss matrices."""
        if self.variant == "learnability":
            scores = self._losses(candidates, "learner") - self._losses(candidates, "reference")
        elif self.variant == "easy-reference":
            scores = -self._losses(candidates, "reference")
        else:
            scores = self._losses(candidates, "learner")
        positions = jest_positions(scores, k, chunks=self.chunks, generator=generator)
        return Selection(positions, scores=scores.diagonal().cpu())

    def _losses(self, candidates: Candidates, whose: str) -> Tensor:
        """The pairwise losses of the ``learner`` or the ``reference``."""
        if whose == "reference" and self.reference == "features":
            whose = "teacher"
        labels = candidates.need("labels")
        outputs = candidates.need(f"{whose}_outputs").to(labels.device)
        return one_versus_rest_losses(outputs, labels)


@dataclass(frozen=True)
class ImageTextJEST(JEST):
    """JEST for pairs such as images and their texts, from the embeddings of both.

    Needs memory for a few n x n matrices.

    Args:
        chunks: As in :class:`JEST`.
        variant: As in :class:`JEST`.
        reference: A model's alone, as features of classes say nothing of pairs.
        loss: ``sigmoid`` (SigLIP) or ``softmax`` (CLIP): the one that the models train with.

    Raises:
        InputError: An argument that is not allowed.
    """

    loss: str = "sigmoid"

    requires: ClassVar[frozenset[str]] = frozenset({"learner_embeddings", "reference_embeddings"})
    summary: ClassVar[str] = (
        "JEST for pairs of images and texts; costs a forward pass of all candidates and a "
        "reference model"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.loss not in ("sigmoid", "softmax"):
            raise not_allowed("loss", self.loss, "sigmoid or softmax")
        if self.reference != "model":
            raise not_allowed("reference", self.reference, "model")

    def _losses(self, candidates: Candidates, whose: str) -> Tensor:
        pairs = candidates.need_embeddings(f"{whose}_embeddings")
        return sigmoid_losses(pairs) if self.loss == "sigmoid" else softmax_losses(pairs)
