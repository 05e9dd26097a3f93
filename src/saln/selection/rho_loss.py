"""Reducible hold-out loss (RHO-LOSS), arXiv 2206.07137."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from saln.selection.candidates import Candidates, Selection
from saln.selection.contract import Selector
from saln.selection.sampling import top_k


def rho_loss_scores(learner_losses: Tensor, reference_losses: Tensor) -> Tensor:
    """What training on an example could still take off the hold-out loss (equation 3).

    Args:
        learner_losses: floating, (n,): the losses of the network in training.
        reference_losses: floating, (n,): those of a model trained on held-out data.

    Returns:
        float32 or wider, (n,).
    """
    # The difference of two half-precision losses would lose most of its digits.
    wide = torch.promote_types(torch.float32, learner_losses.dtype)
    return learner_losses.to(wide) - reference_losses.to(wide)


@dataclass(frozen=True)
class RHOLoss(Selector):
    """Keeps the ``k`` highest of learner's loss minus reference's loss.

    High where the learner is wrong and a model that never saw the example is not: noise
    has a high loss with both, what is learned has a low one with both.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"learner_losses", "reference_losses"})
    summary: ClassVar[str] = (
        "learner's loss minus reference's, the highest; costs a forward pass of all "
        "candidates and a reference model"
    )

    def choose(self, candidates: Candidates, k: int, generator: torch.Generator) -> Selection:
        """Keeps the highest; nothing is random, equal ones go to the lower position."""
        scores = rho_loss_scores(
            candidates.need("learner_losses"), candidates.need("reference_losses")
        )
        return Selection(top_k(scores, k), scores=scores.cpu())
