"""``k`` of the ``n`` candidates at random: the control that every selector must beat."""

from __future__ import annotations

from typing import ClassVar

import torch

from saln.selection.candidates import Candidates, Selection
from saln.selection.contract import Selector


class Uniform(Selector):
    """Keeps ``k`` candidates, each set of ``k`` equally likely."""

    summary: ClassVar[str] = "k of the n candidates at random; the control; costs nothing"

    def choose(self, candidates: Candidates, k: int, generator: torch.Generator) -> Selection:
        """Draws without replacement."""
        return Selection(torch.randperm(len(candidates), generator=generator)[:k])
