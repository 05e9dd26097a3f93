"""Losses of training reach the selector alike, whoever is told them, on one rank or on several."""

from __future__ import annotations

import pytest
import torch
from helpers.rank_processes import observe_in_every_owner

OWNERS = {
    "SelectedBatches",
    "SelectedStream",
    "LearnerSelected",
    "LoadedBatches",
    "ScoredBatches",
    "CountingLoader",
}


def expected(world_size):
    """The losses of all ranks, in their order."""
    batches = []
    for parts in (
        [torch.arange(rank, 10, world_size) for rank in range(world_size)],
        [torch.arange(world_size - 1 - rank) for rank in range(world_size)],
    ):
        losses = [part / 4 + rank for rank, part in enumerate(parts)]
        batches.append((torch.cat(parts).tolist(), torch.cat(losses).tolist()))
    return batches


@pytest.mark.parametrize("explicit", [True, False])
def test_one_rank_tells_its_own(explicit, tmp_path):
    seen = observe_in_every_owner(0, 1, tmp_path / "meeting", explicit)
    assert seen == dict.fromkeys(OWNERS, expected(1))


@pytest.mark.parametrize("explicit", [True, False])
def test_every_rank_tells_its_own_and_knows_those_of_all(explicit, warm, tmp_path):
    calls = [(rank, 2, tmp_path / "meeting", explicit) for rank in range(2)]
    for told in warm.call_together(observe_in_every_owner, calls, tmp_path):
        assert told == dict.fromkeys(OWNERS, expected(2))
