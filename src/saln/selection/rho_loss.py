"""Reducible hold-out loss (RHO-LOSS), arXiv 2206.07137."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from saln.selection.candidates import Candidates, Selection
from saln.selection.contract import Selector
from saln.selection.sampling import top_k


@dataclass(frozen=True)
class RHOLoss(Selector):
    """Keeps the ``k`` highest of learner's loss minus reference's loss (equation 3).

    What training on an example could still take off the hold-out loss: high where the learner is
    wrong and a model that never saw the example is not. Noise has a high loss with both, what is
    learned has a low one with both.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"learner_losses", "reference_losses"})
    summary: ClassVar[str] = (
        "learner's loss minus reference's, the highest; costs a forward pass of all "
        "candidates and a reference model"
    )

    def choose(self, candidates: Candidates, k: int, generator: torch.Generator) -> Selection:
        """Keeps the highest; nothing is random, equal ones go to the lower position."""
        losses = candidates.need("learner_losses")
        # The difference of two half-precision losses would lose most of its digits.
        wide = torch.promote_types(torch.float32, losses.dtype)
        scores = losses.to(wide) - candidates.need("reference_losses").to(wide)
        return Selection(top_k(scores, k), scores=scores.cpu())
