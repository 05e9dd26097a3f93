"""Small losses are likely right labels: co-teaching's rule, with one network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from saln.selection.candidates import Candidates, Selection
from saln.selection.contract import Selector
from saln.selection.sampling import top_k


@dataclass(frozen=True)
class SmallLoss(Selector):
    """Keeps the candidates with the lowest losses, whose labels are the likeliest to be right.

    The rule of co-teaching (arXiv 1804.06872, algorithm 1) with one network in the place of two
    that choose for each other; it keeps ``k`` of the candidates in the place of a share that
    falls to that of the right labels. Equal losses go to the lower position.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"learner_losses"})
    summary: ClassVar[str] = (
        "the lowest losses (co-teaching, one network); costs a forward pass of all candidates"
    )

    def choose(self, candidates: Candidates, k: int, generator: torch.Generator) -> Selection:
        """Keeps the lowest; nothing is random."""
        losses = candidates.need("learner_losses")
        return Selection(top_k(-losses, k), scores=losses.float().cpu())
