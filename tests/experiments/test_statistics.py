from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from saln.experiments.statistics import mean_interval, paired_difference

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
    assert paired_difference([0.9], [0.1]) == (0.8, None, "no difference shown")


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="longer"):
        paired_difference([1.0], [1.0, 2.0])
