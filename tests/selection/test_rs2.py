from __future__ import annotations

import collections

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.exact_rs2 import law
from scipy import stats

from saln.loading.selected_batches import SelectedBatches
from saln.randomness import derive_generator
from saln.selection import RS2, Uniform
from saln.selection.rs2 import least_kept_positions


@settings(deadline=None)
@given(times=st.lists(st.integers(0, 3), min_size=1, max_size=8), data=st.data())
def test_only_fair_sets(times, data):
    k = data.draw(st.integers(1, len(times)))
    generator = derive_generator("rs2", data.draw(st.integers(0, 1000)))
    kept = least_kept_positions(torch.tensor(times), k, generator)
    assert frozenset(kept.tolist()) in law(times, k)


def test_every_fair_set_is_equally_likely():
    times, draws = [1, 0, 1, 0, 1, 2, 1], 3_000
    expected = law(times, 4)
    assert len(expected) == 6
    counts = collections.Counter(
        frozenset(
            least_kept_positions(torch.tensor(times), 4, derive_generator("fair", i)).tolist()
        )
        for i in range(draws)
    )
    assert stats.chisquare([counts[key] for key in expected]).pvalue > 1e-3


def seen_after(selector, epochs):
    """The share of 2,000 examples kept at least once in so many epochs at f = 0.8."""
    batches = SelectedBatches(2_000, selector=selector, batch_size=20, filter_ratio=0.8, seed=0)
    seen = set()
    for epoch in range(1, epochs + 1):
        batches.set_epoch(epoch)
        seen |= {index for batch in batches for index in batch}
    return len(seen) / 2_000


def test_an_example_comes_back_only_after_the_others():
    """A fifth each epoch: without any repetition while every step has enough that wait."""
    assert seen_after(RS2(), 2) == pytest.approx(0.4)
    assert seen_after(RS2(), 3) == pytest.approx(0.6)
    assert seen_after(RS2(), 5) > 0.94
    assert seen_after(RS2(), 6) == pytest.approx(1.0, abs=2e-3)
    assert seen_after(Uniform(), 5) < 0.7
