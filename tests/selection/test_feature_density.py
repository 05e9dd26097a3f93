from __future__ import annotations

import collections
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.exact_feature_density import best_set, densities

import saln
from saln.errors import InputError
from saln.randomness import derive_generator
from saln.selection import SELECTORS, Candidates
from saln.selection import feature_density as module
from saln.selection.feature_density import log_density

FeatureDensity = SELECTORS["feature-density"]


def rows(n, d, seed):
    return torch.randn(n, d, generator=derive_generator("density", seed), dtype=torch.float64)


@settings(deadline=None)
@given(n=st.integers(2, 9), d=st.integers(1, 4), seed=st.integers(0, 10_000), data=st.data())
def test_the_rarest_set_of_all(n, d, seed, data):
    features, k = rows(n, d, seed), data.draw(st.integers(1, n))
    candidates = Candidates(indices=torch.arange(n), features=features)
    chosen = FeatureDensity(randomness=0.0)(candidates, k, generator=torch.Generator())
    expected = densities(features.tolist())
    np.testing.assert_allclose(log_density(features), np.log(expected), rtol=1e-9, atol=1e-9)
    # Two examples have one density by each other.
    if n > 2:
        assert frozenset(chosen.positions.tolist()) == best_set(expected, k)
    importance = max(expected) / np.array(expected)
    np.testing.assert_allclose(chosen.scores, np.log(importance), rtol=1e-9, atol=1e-9)


def test_features_are_reduced_by_means_of_neighboring_ones():
    features = rows(6, 5, 0)
    parts = [features[:, :3].mean(dim=1), features[:, 3:].mean(dim=1)]
    expected = densities(torch.stack(parts, dim=1).tolist())
    np.testing.assert_allclose(log_density(features, channels=2), np.log(expected), rtol=1e-9)


def test_blocks_of_rows_change_nothing(monkeypatch):
    features = rows(11, 3, 1)
    whole = log_density(features)
    monkeypatch.setattr(module, "_BLOCK", 4)
    torch.testing.assert_close(log_density(features), whole, rtol=1e-12, atol=1e-12)


def test_chance_decides_among_densities_below_its_share_of_the_largest():
    # Three rare examples, far from each other and from the crowd.
    crowd = 0.01 * rows(40, 2, 2)
    far = torch.tensor([[90.0, 0.0], [0.0, 80.0], [-70.0, -70.0]], dtype=torch.float64)
    candidates = Candidates(indices=torch.arange(43), features=torch.cat([crowd, far]))
    kept = collections.Counter(
        int(FeatureDensity()(candidates, 1, generator=derive_generator("r", seed)).positions)
        for seed in range(600)
    )
    assert set(kept) <= {40, 41, 42}
    assert min(kept[index] for index in (40, 41, 42)) > 140  # 200 each, sd 12
    sure = FeatureDensity(randomness=0.0)
    assert len({tuple(sure(candidates, 2, generator=derive_generator("r", seed)).positions.tolist())
                for seed in range(5)}) == 1  # fmt: skip


def test_densities_that_no_float_holds_are_still_told_apart():
    features = torch.tensor([[0.0], [1e-6], [1.0], [3.0]], dtype=torch.float64)
    features = torch.cat([features, torch.zeros(500, 1, dtype=torch.float64)])
    found = log_density(features)
    assert math.exp(float(found[3] - found[0])) == 0
    assert torch.isfinite(found).all()
    assert found[3] < found[2] < found[0]


def test_a_rare_group_is_kept_before_loading():
    random = np.random.default_rng(0)
    features = random.normal(size=(400, 6)).astype(np.float32)
    rare = random.random(400) < 0.05
    features[rare] += 12
    batches = saln.SelectedBatches(
        features, selector="feature-density", batch_size=20, filter_ratio=0.8, seed=0
    )
    kept = [row for batch in batches for row in batch]
    assert rare[kept].sum() >= 0.9 * rare.sum()


@pytest.mark.parametrize("options", [{"channels": 0}, {"randomness": 1.5}, {"randomness": -0.1}])
def test_arguments_that_mean_nothing_are_refused(options):
    with pytest.raises(InputError, match="is not allowed; give"):
        FeatureDensity(**options)
