from __future__ import annotations

import json

import pytest
import torch

from saln.training.cost_ledger import PHASES, Counts, Ledger


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


def test_each_second_is_booked_once():
    clock = Clock()
    ledger = Ledger(clock=clock)
    clock.sleep(1)  # no phase
    with ledger.phase("load"):
        clock.sleep(2)
        with ledger.phase("select"):
            clock.sleep(4)
        clock.sleep(8)
    with ledger.phase("train"):
        clock.sleep(16)
    assert ledger.seconds == {
        "load": 10, "score": 0, "select": 4, "train": 16, "evaluate": 0, "save": 0,
    }  # fmt: skip
    assert ledger.total() == 31
    assert sum(ledger.seconds.values()) == ledger.total() - 1


def test_an_error_inside_a_phase_is_still_booked():
    clock = Clock()
    ledger = Ledger(clock=clock)

    def fails():
        with ledger.phase("train"):
            clock.sleep(3)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    with ledger.phase("load"):
        clock.sleep(1)
    assert (ledger.seconds["train"], ledger.seconds["load"]) == (3, 1)


def test_take_starts_again_from_zero():
    clock = Clock()
    ledger = Ledger(clock=clock)
    with ledger.phase("train"):
        clock.sleep(3)
    assert ledger.take()["train"] == 3
    assert ledger.take() == dict.fromkeys(PHASES, 0)
    assert ledger.total() == 3


def test_counts_are_sums():
    ledger = Ledger()
    ledger.count(steps=2, forward=30, backward=10)
    ledger.count(forward=5)
    assert ledger.counts == Counts(2, 35, 10)


def test_another_process_goes_on_from_what_was_spent():
    first, second = Clock(), Clock()
    before = Ledger(clock=first)
    with before.phase("train"):
        first.sleep(3)
    with before.phase("save"):
        first.sleep(2)
    before.count(steps=1, forward=4, backward=4)
    before.take()
    state = before.state_dict()
    first.sleep(50)  # after the state: nobody knows
    second.sleep(1000)
    after = Ledger(clock=second)
    with after.phase("load"):
        second.sleep(1)
    after.load_state_dict(json.loads(json.dumps(state)))
    assert after.total() == 6
    assert after.seconds == dict.fromkeys(PHASES, 0) | {"load": 1, "save": 2}
    assert after.counts == Counts(1, 4, 4)


PEAKS = """
import numpy as np
from saln.training.cost_ledger import Ledger
ledger = Ledger()
low = ledger.peak().rss_bytes
block = np.ones(2**24)  # 128 MiB, touched
high = ledger.peak().rss_bytes
del block
print(low, high, ledger.peak().rss_bytes, ledger.peak().cuda_bytes)
"""


def test_the_peak_is_the_most_held_since_the_ledger_was_made(warm, tmp_path):
    # In a process of its own: a large one may be giving memory back meanwhile.
    (tmp_path / "peaks.py").write_text(PEAKS)
    child = warm.run([], tmp_path, script=tmp_path / "peaks.py")
    low, high, after = map(int, child.stdout.split()[:3])
    assert high - low > 0.8 * 2**27
    assert after >= high
    assert child.stdout.split()[3] == "None"
    ledger = Ledger()
    ledger.load_state_dict(ledger.state_dict() | {"peak": [10 * high, None]})
    assert ledger.peak().rss_bytes == 10 * high


def test_a_gpu_is_synchronized_at_every_change_of_phase(monkeypatch):
    """Stands in for a GPU whose work is done only when somebody waits for it."""
    clock = Clock()
    queued = [0.0]

    def synchronize(device):
        clock.sleep(queued[0])
        queued[0] = 0.0

    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: None)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 77)
    ledger = Ledger(torch.device("cuda"), clock=clock)
    with ledger.phase("score"):
        queued[0] = 3.0  # launched, not finished
        with ledger.phase("select"):
            queued[0] = 1.0
    with ledger.phase("train"):
        queued[0] = 5.0
    assert ledger.take() == dict.fromkeys(PHASES, 0) | {"score": 3, "select": 1, "train": 5}
    assert ledger.peak().cuda_bytes == 77
