"""The filter ratio from epoch to epoch, and the steps that follow, counted by hand."""

from __future__ import annotations

from fractions import Fraction

import pytest

from saln.errors import InputError
from saln.loading.filter_schedule import FilterSchedule
from saln.loading.selected_batches import SelectedBatches
from saln.selection import Uniform


def test_a_ramp_between_full_ends():
    schedule = FilterSchedule(0.8, 0.5, epochs=7, full_first=1, full_last=2, first_epoch=1)
    ratios = [schedule.ratio(epoch) for epoch in range(1, 8)]
    expected = ["0", "4/5", "7/10", "3/5", "1/2", "0", "0"]
    assert ratios == [Fraction(ratio) for ratio in expected]
    assert schedule.ratio(0) == schedule.ratio(1)
    assert schedule.ratio(99) == 0
    assert FilterSchedule(0.9, epochs=3).ratio(2) == Fraction(9, 10)
    assert FilterSchedule(0.9, 0.1, epochs=1).ratio(0) == Fraction(9, 10)


def test_the_sampler_follows_it_and_the_steps_are_known_before():
    schedule = FilterSchedule(0.8, 0.5, epochs=4, full_last=1)
    batches = SelectedBatches(103, selector=Uniform(), batch_size=4, filter_ratio=schedule, seed=0)
    lengths, steps = [], 0
    for epoch in range(4):
        batches.set_epoch(epoch)
        kept = list(batches)
        assert all(len(batch) == 4 for batch in kept)
        assert len(kept) == len(batches)
        lengths.append(len(kept))
        steps += len(kept)
    # Candidates for 4 at 0.8, 0.65, 0.5 and 0: 20, 12, 8 and 4.
    assert lengths == [103 // 20, 103 // 12, 103 // 8, 103 // 4]
    assert schedule.steps(103, 4) == steps


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"start": 1.0}, "filter ratio 1.0 is not allowed"),
        ({"start": 0.5, "end": -0.1}, "filter ratio -0.1 is not allowed"),
        ({"start": 0.5, "epochs": 0}, "epochs=0"),
        ({"start": 0.5, "epochs": 2, "full_first": 3}, "do not fit into 2 epochs"),
    ],
)
def test_schedules_that_cannot_be_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        FilterSchedule(**arguments)


def test_an_epoch_that_needs_too_many_candidates_is_refused_at_once():
    with pytest.raises(InputError, match=r"filter ratio 0.9 needs 80 candidates, but there are 50"):
        SelectedBatches(
            50,
            selector=Uniform(),
            batch_size=8,
            filter_ratio=FilterSchedule(0.5, 0.9, epochs=5),
            seed=0,
        )
