from __future__ import annotations

import pytest

from saln.training.ledger import PHASES, Ledger


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
