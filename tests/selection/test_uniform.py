from __future__ import annotations

import torch
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
