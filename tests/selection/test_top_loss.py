from __future__ import annotations

import collections

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.exhaustive_top_loss import best_set, law, percentiles
from scipy import stats

from saln.errors import InputError
from saln.randomness import derive_generator
from saln.selection import Candidates, TopLoss
from saln.selection.top_loss import loss_percentiles


def kept(losses, k, *, beta=None, seed=0):
    candidates = Candidates(indices=torch.arange(len(losses)), learner_losses=losses)
    generator = derive_generator("top", seed)
    return TopLoss(beta)(candidates, k, generator=generator).positions.tolist()


@settings(deadline=None)
@given(n=st.integers(1, 10), data=st.data(), seed=st.integers(0, 10_000))
def test_the_best_set_of_all(n, data, seed):
    k = data.draw(st.integers(1, n))
    losses = torch.rand(n, generator=derive_generator("losses", seed), dtype=torch.float64)
    assert frozenset(kept(losses, k)) == best_set(losses.tolist(), k)


@given(st.lists(st.sampled_from([0.0, 0.5, 1.0, 7.25]), min_size=1, max_size=12))
def test_percentiles_agree_with_counting(losses):
    assert loss_percentiles(torch.tensor(losses)).tolist() == percentiles(losses)


@pytest.mark.parametrize("beta", [0.5, 3.0])
def test_the_probabilistic_form_follows_the_exact_law(beta):
    losses = torch.tensor([0.3, 2.0, 0.3, 1.0, 5.0])
    expected = law(losses.tolist(), 2, beta)
    assert sum(expected.values()) == pytest.approx(1)
    draws = 3_000
    counts = collections.Counter(
        frozenset(kept(losses, 2, beta=beta, seed=i)) for i in range(draws)
    )
    assert set(counts) <= set(expected)
    observed = [counts[key] for key in expected]
    assert stats.chisquare(observed, [draws * p for p in expected.values()]).pvalue > 1e-3


def test_high_beta_is_nearly_the_highest():
    losses = torch.arange(100.0)
    assert min(kept(losses, 5, beta=300.0)) > 85


@pytest.mark.parametrize("beta", [0.0, -1.0, float("nan"), float("inf")])
def test_a_beta_that_means_nothing_is_refused(beta):
    with pytest.raises(InputError, match=r"beta=.* is not allowed; give a number, above 0"):
        TopLoss(beta)
