"""Selective backprop, arXiv 1910.00762: train where the loss is high."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from saln.selection.candidates import Candidates, Selection
from saln.selection.contract import Selector
from saln.selection.hyperparameters import Bounds, check_hyperparameters
from saln.selection.sampling import gumbel_top_k, top_k


def loss_percentiles(losses: Tensor) -> Tensor:
    """The share of the losses, (n,), that are not above each one: float64, (n,), in (0, 1]."""
    ordered = losses.sort().values
    return torch.searchsorted(ordered, losses.contiguous(), right=True).double() / len(losses)


@dataclass(frozen=True)
class TopLoss(Selector):
    """Keeps the candidates with the highest losses, always or by chance.

    Without ``beta`` the ``k`` highest. With it an example's chance goes with its loss
    percentile to that power, as in the paper. The paper takes percentiles among recent
    batches and lets each example pass or not by itself, so that batches vary in size;
    here percentiles are those among the candidates and ``k`` are drawn without
    replacement, so that a batch always has ``k``.

    Args:
        beta: How strongly the chance follows the percentile, above 0 (0.5 to 3 in the
            paper); None for the highest losses themselves.

    Raises:
        InputError: ``beta`` is not above 0 or not finite.
    """

    beta: Annotated[float | None, Bounds(above=0)] = None

    requires: ClassVar[frozenset[str]] = frozenset({"learner_losses"})
    summary: ClassVar[str] = (
        "the highest losses (selective backprop); costs a forward pass of all candidates"
    )

    def __post_init__(self) -> None:
        check_hyperparameters(self)

    def choose(self, candidates: Candidates, k: int, generator: torch.Generator) -> Selection:
        """Keeps the highest, or draws by the percentiles."""
        losses = candidates.need("learner_losses")
        if self.beta is None:
            positions = top_k(losses, k)
        else:
            # Chances in proportion to percentile ** beta; a percentile is never 0.
            logits = self.beta * torch.log(loss_percentiles(losses))
            positions = gumbel_top_k(logits, k, generator)
        return Selection(positions, scores=losses.float().cpu())
