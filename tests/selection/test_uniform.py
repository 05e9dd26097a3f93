from __future__ import annotations

import collections

import pytest
import torch
from oracles.exact_uniform import law
from scipy import stats

from saln.randomness import derive_generator
from saln.selection import Candidates, Uniform


def test_every_candidate_is_equally_likely():
    candidates = Candidates(indices=torch.arange(10))
    counts = torch.zeros(10)
    for draw in range(2_000):
        kept = Uniform()(candidates, 3, generator=derive_generator("uniform", draw)).positions
        counts[kept] += 1
    assert counts.sum() == 6_000
    # Seeded, so this either always passes or never; 1e-3 leaves a right sampler ample room.
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3


@pytest.mark.parametrize("k", [1, 2, 4, 5])
def test_the_kept_set_follows_the_exact_law(k):
    expected = law(5, k)
    candidates, draws = Candidates(indices=torch.arange(5)), 2_000
    counts = collections.Counter(
        frozenset(Uniform()(candidates, k, generator=derive_generator("law", i)).positions.tolist())
        for i in range(draws)
    )
    assert set(counts) <= set(expected)
    if k < 5:
        observed = [counts[key] for key in expected]
        assert (
            stats.chisquare(observed, [draws * float(p) for p in expected.values()]).pvalue > 1e-3
        )
