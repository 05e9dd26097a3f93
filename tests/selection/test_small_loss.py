from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.exhaustive_small_loss import best_set

from saln.randomness import derive_generator
from saln.selection import SELECTORS, Candidates


def kept(losses, k):
    candidates = Candidates(indices=torch.arange(len(losses)), learner_losses=losses)
    selector = SELECTORS["small-loss"]()
    return selector(candidates, k, generator=derive_generator("small")).positions.tolist()


@settings(deadline=None)
@given(n=st.integers(1, 10), data=st.data(), seed=st.integers(0, 10_000))
def test_the_best_set_of_all(n, data, seed):
    k = data.draw(st.integers(1, n))
    losses = torch.rand(n, generator=derive_generator("losses", seed), dtype=torch.float64)
    assert frozenset(kept(losses, k)) == best_set(losses.tolist(), k)


def test_equal_losses_go_to_the_lower_position():
    assert kept(torch.tensor([1.0, 0.0, 1.0, 0.0, 1.0]), 3) == [1, 3, 0]
