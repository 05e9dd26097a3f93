from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import interpolate, stats

from saln.experiments.statistics import (
    Curve,
    Difference,
    difference_at_equal_cost,
    first_reaching,
    mean_interval,
    paired_difference,
    share_to_break_even,
    value_at,
)

accuracies = st.lists(st.floats(0, 1), min_size=2, max_size=8)


@given(accuracies)
def test_the_interval_is_students(values):
    mean, ci95 = mean_interval(values)
    assert mean == pytest.approx(np.mean(values))
    spread = stats.sem(values)
    if spread > 1e-9:
        low, high = stats.t.interval(0.95, len(values) - 1, np.mean(values), spread)
        assert ci95 == pytest.approx((low, high))


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=8))
def test_the_verdict_agrees_with_the_paired_t_test(pairs):
    values, baseline = (np.array(side) for side in zip(*pairs, strict=True))
    if np.std(values - baseline, ddof=1) < 1e-6:
        return
    test = stats.ttest_rel(values, baseline)
    if abs(test.pvalue - 0.05) < 1e-6:
        return
    found = paired_difference(values.tolist(), baseline.tolist())
    expected = "no difference shown"
    if test.pvalue < 0.05:
        expected = "better" if test.statistic > 0 else "worse"
    assert found.verdict == expected
    assert found.difference == pytest.approx(np.mean(values - baseline))


def test_a_case_by_hand():
    # Differences 1, 2, 3: mean 2, s = 1, t(0.975, 2) = 4.302653.
    found = paired_difference([2, 4, 6], [1, 2, 3])
    assert found.difference == 2
    assert found.ci95 == pytest.approx((2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5))
    assert found.verdict == "no difference shown"


def test_one_seed_shows_nothing():
    assert paired_difference([0.9], [0.1]) == Difference(0.8, None, "no difference shown")


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="longer"):
        paired_difference([1.0], [1.0, 2.0])


@st.composite
def curves(draw):
    count = draw(st.integers(2, 6))
    gaps = draw(st.lists(st.floats(0.1, 10), min_size=count, max_size=count))
    heights = draw(st.lists(st.floats(0, 1), min_size=count, max_size=count))
    return Curve(tuple(np.cumsum(gaps).tolist()), tuple(heights))


@given(curves(), st.floats(0, 1))
def test_heights_agree_with_scipys_interpolation(curve, where):
    cost = curve.x[0] + where * (curve.x[-1] - curve.x[0])
    cost = min(max(cost, curve.x[0]), curve.x[-1])
    expected = interpolate.make_interp_spline(curve.x, curve.y, k=1)(cost)
    assert value_at(curve, cost) == pytest.approx(float(expected))


def test_nothing_is_said_outside_the_measured_costs():
    curve = Curve((2.0, 4.0), (0.5, 0.7))
    assert value_at(curve, 1.9) is None
    assert value_at(curve, 4.1) is None
    assert value_at(curve, 3.0) == pytest.approx(0.6)
    assert value_at(curve, 4.0) == 0.7


@given(curves(), st.floats(0, 1))
def test_the_first_cost_that_reaches_a_target(curve, target):
    found = first_reaching(curve, target)
    if found is None:
        assert max(curve.y) < target
        return
    fine = np.union1d(np.linspace(curve.x[0], curve.x[-1], 400), curve.x)
    heights = np.interp(fine, curve.x, curve.y)
    assert np.all(heights[fine < found - 1e-9] < target + 1e-9)
    assert value_at(curve, min(found, curve.x[-1])) >= target - 1e-9


def test_reaching_by_hand():
    curve = Curve((10.0, 20.0, 30.0, 40.0), (0.2, 0.6, 0.4, 0.8))
    assert first_reaching(curve, 0.1) == 10
    assert first_reaching(curve, 0.5) == pytest.approx(17.5)  # not the crossing at 32.5
    assert first_reaching(curve, 0.7) == pytest.approx(37.5)
    assert first_reaching(curve, 0.9) is None


@given(st.lists(st.tuples(curves(), curves()), min_size=2, max_size=5))
def test_equal_costs_agree_with_scipy(pairs):
    mine, other = zip(*pairs, strict=True)
    ends = [min(a.x[-1], b.x[-1]) for a, b in pairs]
    found = difference_at_equal_cost(mine, other)
    if any(end < max(a.x[0], b.x[0]) for end, (a, b) in zip(ends, pairs, strict=True)):
        assert found is None
        return
    values = [
        np.array([np.interp(end, c.x, c.y) for end, c in zip(ends, side, strict=True)])
        for side in (mine, other)
    ]
    assert found.at == pytest.approx(np.mean(ends))
    assert found.difference == pytest.approx(np.mean(values[0] - values[1]))
    if np.std(values[0] - values[1], ddof=1) > 1e-6:
        interval = stats.ttest_rel(*values).confidence_interval(0.95)
        assert found.ci95 == pytest.approx((interval.low, interval.high))


def test_the_break_even_line_by_hand():
    # The baseline: 100 steps of 2 s. Steps of 2.5 s may be 80 of them.
    assert share_to_break_even(2.5, 0, 2, 0, 100) == pytest.approx(0.8)
    # With 50 s of features beside: (200 - 50) / 2.5 = 60 steps.
    assert share_to_break_even(2.5, 50, 2, 0, 100) == pytest.approx(0.6)
    # One-off work dearer than the whole baseline: no number of steps pays.
    assert share_to_break_even(2.5, 300, 2, 0, 100) < 0


positive = st.floats(0.01, 100)


@given(positive, positive, positive, positive, st.integers(1, 1000))
def test_at_the_break_even_line_both_cost_the_same(step, once, base_step, base_once, steps):
    share = share_to_break_even(step, once, base_step, base_once, steps)
    mine = once + share * steps * step
    assert mine == pytest.approx(base_once + steps * base_step, abs=1e-6)
