from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.exhaustive_k_center import best_radius, greedy, radius

from saln.randomness import derive_generator
from saln.selection import k_center
from saln.selection.k_center import k_center_positions


def rows(n, d=3, seed=0, dtype=torch.float64):
    return torch.randn(n, d, generator=derive_generator("k-center", seed), dtype=dtype)


@settings(deadline=None, max_examples=60)
@given(n=st.integers(1, 10), d=st.integers(1, 4), data=st.data(), seed=st.integers(0, 10_000))
def test_the_greedy_centers_and_twice_the_best_radius(n, d, data, seed):
    k = data.draw(st.integers(1, n))
    features = rows(n, d, seed)
    positions, distances = k_center_positions(features, k)
    assert positions.tolist() == greedy(features.numpy(), k)
    found = radius(features.numpy(), positions.tolist())
    assert float(distances.max()) == pytest.approx(found, abs=1e-6)
    assert found <= 2 * best_radius(features.numpy(), k) + 1e-9


@pytest.mark.parametrize(("n", "k"), [(60, 12), (160, 32)])
def test_single_precision_covers_as_well(n, k):
    features = rows(n, 64, dtype=torch.float32)
    positions, _ = k_center_positions(features, k)
    assert positions.tolist() == greedy(features.numpy(), k)


def test_the_way_without_a_matrix_is_the_same(monkeypatch):
    features = rows(80, 16)
    dense = k_center_positions(features, 20)
    monkeypatch.setattr(k_center, "DENSE_LIMIT", 10)
    by_rows = k_center_positions(features, 20)
    assert torch.equal(dense[0], by_rows[0])
    torch.testing.assert_close(dense[1], by_rows[1])


def test_a_duplicate_is_kept_only_when_nothing_else_is_left():
    features = rows(5, 40, dtype=torch.float32) * 10 + 1000
    twice = torch.cat([features, features])
    positions, distances = k_center_positions(twice, 7)
    assert {i % 5 for i in positions[:5].tolist()} == set(range(5))
    assert len(set(positions.tolist())) == 7
    np.testing.assert_allclose(distances.numpy(), 0, atol=1e-3)


@pytest.mark.parametrize("power", [-130, -100, 60, 100])
def test_tiny_and_huge_features_are_chosen_from_as_others(power):
    features = torch.randn(40, 6, generator=derive_generator("scale"))
    scaled = (features.double() * 2.0**power).float()
    kept, values = k_center_positions(scaled, 12)
    expected, others = k_center_positions(scaled.double() * 2.0**-power, 12)
    assert kept.tolist() == expected.tolist()
    assert bool(torch.isfinite(values).all())
    assert bool(torch.isfinite(others).all())
