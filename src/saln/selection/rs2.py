"""Repeated random subsets (RS2), arXiv 2305.18424."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from saln.selection.candidates import Candidates, Selection
from saln.selection.contract import Selector
from saln.selection.epoch_memory import EpochMemory


def least_kept_positions(times_kept: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """``k`` positions that were kept least often; among equals every set is equally likely."""
    # A stable sort of a random order: equals stay in that order.
    shuffled = torch.randperm(len(times_kept), generator=generator)
    order = torch.argsort(times_kept[shuffled], stable=True)
    return shuffled[order[:k]]


class RS2(Selector):
    """A fresh random subset each epoch, without replacement across epochs.

    An example comes back only after the others had their turn. The paper deals the data
    set out in equal parts; here every step has ``n`` candidates of its own and keeps
    exactly ``k`` of them, so the turn is kept within the candidates: those that were kept
    least often, and where they are equal a random choice. Near the end of a round a
    step may hold fewer than ``k`` that wait for their turn; it then takes others early.
    """

    summary: ClassVar[str] = "at random, without replacement across epochs; costs nothing"

    def __init__(self) -> None:
        self._times_kept = EpochMemory(unknown=0.0)

    def begin_epoch(self, epoch: int) -> None:
        """Takes over what the epoch before kept."""
        self._times_kept.begin_epoch(epoch)

    def state_dict(self) -> dict[str, Any]:
        """How often each example was kept."""
        return self._times_kept.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes the counts back."""
        self._times_kept.load_state_dict(state)

    def choose(self, candidates: Candidates, k: int, generator: torch.Generator) -> Selection:
        """Keeps those that were kept least often; counts them from the next epoch on."""
        indices = candidates.indices.cpu()
        times_kept = self._times_kept.get(indices)
        positions = least_kept_positions(times_kept, k, generator)
        # The same choice made again, after a resume, puts the same count again.
        self._times_kept.put(indices[positions], times_kept[positions] + 1)
        return Selection(positions, scores=times_kept)
