from __future__ import annotations

import pytest
import torch

from saln.errors import InputError
from saln.selection.epoch_memory import EpochMemory


def test_what_is_put_is_known_when_the_next_epoch_begins():
    memory = EpochMemory(unknown=-1.0)
    memory.begin_epoch(1)
    memory.put(torch.tensor([5, 0]), torch.tensor([2.5, 1.5]))
    assert memory.get(torch.tensor([0, 5])).tolist() == [-1.0, -1.0]
    memory.begin_epoch(1)  # begun already
    assert memory.get(torch.tensor([0, 5])).tolist() == [-1.0, -1.0]
    memory.begin_epoch(2)
    assert memory.get(torch.tensor([0, 3, 5, 1_000_000])).tolist() == [1.5, -1.0, 2.5, -1.0]


def test_the_latest_value_counts_and_others_stay():
    memory = EpochMemory(unknown=0.0)
    for epoch, value in ((1, 4.0), (2, 7.0)):
        memory.begin_epoch(epoch)
        memory.put(torch.tensor([epoch, 9]), torch.full((2,), value))
    memory.begin_epoch(3)
    assert memory.get(torch.tensor([1, 2, 9])).tolist() == [4.0, 7.0, 7.0]


def test_nothing_put_is_fine():
    memory = EpochMemory(unknown=0.0)
    memory.put(torch.empty(0, dtype=torch.int64), torch.empty(0))
    memory.begin_epoch(1)
    assert memory.get(torch.arange(2)).tolist() == [0.0, 0.0]


def test_a_saved_state_is_a_copy():
    memory = EpochMemory(unknown=0.0)
    memory.begin_epoch(1)
    memory.put(torch.tensor([0]), torch.tensor([3.0]))
    state = memory.state_dict()
    memory.put(torch.tensor([0]), torch.tensor([8.0]))
    other = EpochMemory(unknown=0.0)
    other.load_state_dict(state)
    other.begin_epoch(2)
    assert other.get(torch.tensor([0])).tolist() == [3.0]


def test_the_state_of_another_is_refused():
    with pytest.raises(InputError, match="state holds counts, expected epoch, known and next"):
        EpochMemory(unknown=0.0).load_state_dict({"counts": torch.ones(2)})
