from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.exhaustive_facility_location import best_value, greedy, similarities, value

from saln.randomness import derive_generator
from saln.selection import facility_location
from saln.selection.facility_location import facility_location_positions


def rows(n, d=3, seed=0, dtype=torch.float64):
    return torch.randn(n, d, generator=derive_generator("facility", seed), dtype=dtype)


def assert_same_order(found, expected, margins):
    """Up to the first tie: two rows that are each other's only gain are exactly as good."""
    decided = next((i for i, margin in enumerate(margins) if margin < 1e-9), len(margins))
    assert found[:decided] == expected[:decided]
    return decided


@settings(deadline=None, max_examples=60)
@given(n=st.integers(1, 10), d=st.integers(2, 4), data=st.data(), seed=st.integers(0, 10_000))
def test_lazy_is_naive_and_close_to_the_best(n, d, data, seed):
    k = data.draw(st.integers(1, n))
    features = rows(n, d, seed)
    matrix = similarities(features.numpy())
    expected, margins = greedy(matrix, k)
    positions, alone = facility_location_positions(features, k)
    found = value(matrix, positions.tolist())
    assert found >= (1 - 1 / math.e) * best_value(matrix, k) - 1e-9
    assert alone.tolist() == pytest.approx(matrix.sum(axis=0).tolist())
    assert_same_order(positions.tolist(), expected, margins)


@pytest.mark.parametrize(("n", "k"), [(60, 20), (120, 24)])
def test_lazy_is_naive_on_many(n, k):
    """More rows than are computed together, nonnegative as pooled features are."""
    features = rows(n, 12).abs()
    matrix = similarities(features.numpy())
    expected, margins = greedy(matrix, k)
    found = facility_location_positions(features, k)[0].tolist()
    assert assert_same_order(found, expected, margins) >= 10
    assert value(matrix, found) == pytest.approx(value(matrix, expected), rel=1e-3)


def test_the_way_without_a_matrix_is_the_same(monkeypatch):
    features = rows(80, 16)
    dense = facility_location_positions(features, 20)
    monkeypatch.setattr(facility_location, "DENSE_LIMIT", 10)
    by_rows = facility_location_positions(features, 20)
    assert torch.equal(dense[0], by_rows[0])
    torch.testing.assert_close(dense[1], by_rows[1])


def test_most_gains_are_never_computed_again(monkeypatch):
    """What makes it lazy: far fewer than the k n of the naive way."""
    computed = 0
    original = facility_location._similarities

    def counting(unit):
        similarities_of = original(unit)

        def count(these):
            nonlocal computed
            computed += len(these)
            return similarities_of(these)

        return count

    monkeypatch.setattr(facility_location, "_similarities", counting)
    facility_location_positions(rows(320, 64).abs(), 64)
    assert computed < 0.5 * 320 * 64


def test_equal_gains_go_to_the_lower_position():
    same = torch.ones(30, 4)
    assert facility_location_positions(same, 3)[0].tolist() == [0, 1, 2]


def test_a_zero_row_stands_for_nothing():
    features = torch.eye(4)
    features[0] = 0
    assert facility_location_positions(features, 4)[0].tolist() == [1, 2, 3, 0]


@pytest.mark.parametrize("power", [-130, -100, 60, 100])
def test_tiny_and_huge_features_are_chosen_from_as_others(power):
    features = torch.randn(40, 6, generator=derive_generator("scale"))
    scaled = (features.double() * 2.0**power).float()
    kept, values = facility_location_positions(scaled, 12)
    expected, others = facility_location_positions(scaled.double() * 2.0**-power, 12)
    assert kept.tolist() == expected.tolist()
    assert bool(torch.isfinite(values).all())
    assert bool(torch.isfinite(others).all())
