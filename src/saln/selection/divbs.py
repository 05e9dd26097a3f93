"""DivBS: the kept gradients together span what all gradients point to, without repetition."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from saln.selection.candidates import Candidates, Selection
from saln.selection.contract import Selector
from saln.selection.hyperparameters import check_hyperparameters
from saln.selection.sampling import around_one, gumbel_keys

# What is left of a squared length, or of a product, below this share of the largest is rounding.
ROUNDING = 1e-10


def gradient_products(outputs: Tensor, labels: Tensor, features: Tensor) -> Tensor:
    """Inner products of the last layer's gradients, one a candidate: float64, (n, n).

    The gradient of the cross-entropy by the weights is ``(p - y) features'``, which is never
    formed: the products of two are those of their errors times those of their features.

    Args:
        outputs: floating, (n, C): logits.
        labels: int64, (n,).
        features: floating, (n, d): what the last layer is given.
    """
    errors = torch.softmax(outputs.double(), dim=1) - one_hot(labels, outputs.shape[1])
    wide = around_one(features)[0].double().to(errors.device)
    return (errors @ errors.T) * (wide @ wide.T)


def divbs_positions(
    products: Tensor, k: int, generator: torch.Generator, *, greedy: bool = False
) -> tuple[Tensor, Tensor]:
    """Keeps, in turn, who agrees most with what the kept do not yet span of the mean.

    Args:
        products: float64, (n, n): inner products of the candidates' vectors.
        k: How many to keep, 1 to n.
        generator: Draws, in proportion to the agreement; where nothing is left, anybody.
        greedy: Whether the one with the highest agreement is kept in the place of a draw.

    Returns:
        int64 (k,) positions in the order of the choice, and float64 (n,) how much each agrees with
        the whole mean; both on the CPU.
    """
    matrix = products.cpu().numpy()
    n = len(matrix)
    lengths, agreement = np.diagonal(matrix).copy(), matrix.mean(axis=1)
    first = torch.from_numpy(np.abs(agreement))
    least = ROUNDING * max(float(np.abs(agreement).max()), np.finfo(np.float64).tiny)
    shortest = ROUNDING * max(float(lengths.max()), np.finfo(np.float64).tiny)
    basis = np.zeros((n, k))
    left, kept = np.ones(n, dtype=bool), np.empty(k, dtype=np.int64)
    for step in range(k):
        # 0 once the kept span it: then chance decides.
        value = np.where(left & (np.abs(agreement) > least), np.abs(agreement), 0.0)
        if not value.any():
            value = left.astype(np.float64)
        with np.errstate(divide="ignore"):
            logits = torch.from_numpy(np.log(value))
        best = int((logits if greedy else gumbel_keys(logits, generator)).argmax())
        kept[step], left[best] = best, False
        if lengths[best] <= shortest:  # the kept span it already
            continue
        # Gram and Schmidt, by products alone: what is new in it, for everybody.
        part = (matrix[:, best] - basis[:, :step] @ basis[best, :step]) / np.sqrt(lengths[best])
        agreement -= part * agreement[best] / np.sqrt(lengths[best])
        lengths -= part**2
        basis[:, step] = part
    return torch.from_numpy(kept), first


class DivBS(Selector):
    """Keeps candidates whose gradients together represent all of them, without repetition.

    Diversified batch selection (arXiv 2406.04872): in turn the candidate whose last layer's
    gradient agrees most with what is left of the mean gradient once the kept ones' span is taken
    out of it; drawn in proportion to that, as in the authors' code. What differs: the last layer's
    input is the frozen backbone's features, in the place of the learner's own.

    Args:
        greedy: Whether the highest is kept in the place of a draw.

    Raises:
        InputError: ``greedy`` is no truth value.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"learner_outputs", "labels", "features"})
    is_joint: ClassVar[bool] = True
    summary: ClassVar[str] = (
        "gradients that span the mean gradient (DivBS); costs features and a forward pass of all"
    )

    def __init__(self, greedy: bool = False) -> None:
        self.greedy = greedy
        check_hyperparameters(self)

    def choose(self, candidates: Candidates, k: int, generator: torch.Generator) -> Selection:
        """Draws by :func:`divbs_positions`."""
        products = gradient_products(
            candidates.need("learner_outputs"),
            candidates.need("labels"),
            candidates.need("features"),
        )
        positions, agreement = divbs_positions(products, k, generator, greedy=self.greedy)
        return Selection(positions, scores=agreement)
