from __future__ import annotations

import collections

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.explicit_divbs import gradients, greedy, law
from scipy import stats

from saln.errors import InputError
from saln.randomness import derive_generator
from saln.selection import SELECTORS, Candidates
from saln.selection.divbs import divbs_positions, gradient_products

DivBS = SELECTORS["divbs"]


def example(n, seed):
    random = np.random.default_rng(seed)
    return random.normal(size=(n, 3)), random.integers(0, 3, n), random.normal(size=(n, 5))


def candidates(outputs, labels, features):
    return Candidates(
        indices=torch.arange(len(labels)), learner_outputs=outputs, labels=labels, features=features
    )


@settings(deadline=None)
@given(n=st.integers(1, 9), data=st.data(), seed=st.integers(0, 10_000))
def test_what_the_naive_greedy_keeps(n, data, seed):
    k = data.draw(st.integers(1, n))
    given_ones = example(n, seed)
    found = DivBS(greedy=True)(candidates(*given_ones), k, generator=derive_generator(0))
    vectors = gradients(*given_ones)
    # Of the last of all only rounding is left.
    assert found.positions.tolist()[: k - (k == n)] == greedy(vectors, k)[: k - (k == n)]


def test_the_kept_set_follows_the_exact_law():
    given_ones = example(5, 1)
    expected = law(gradients(*given_ones), 2)
    counts = collections.Counter(
        frozenset(
            DivBS()(
                candidates(*given_ones), 2, generator=derive_generator("d", i)
            ).positions.tolist()
        )
        for i in range(2_000)
    )
    observed = [counts[kept] for kept in expected]
    assert stats.chisquare(observed, [2_000 * p for p in expected.values()]).pvalue > 1e-3


def test_products_are_those_of_the_gradients():
    outputs, labels, features = example(7, 2)
    found = gradient_products(*map(torch.from_numpy, (outputs, labels, features))).numpy()
    vectors = gradients(outputs, labels, features)
    # Features are scaled by a power of two, which changes no choice.
    expected = vectors @ vectors.T
    scale = found[0, 0] / expected[0, 0]
    np.testing.assert_allclose(found, scale * expected, rtol=1e-9, atol=1e-12)


def test_a_copy_of_what_is_kept_adds_nothing():
    rows = np.array([[3.0, 0], [3.0, 0], [3.0, 0], [0, 1.0]])
    products = torch.from_numpy(rows @ rows.T)
    positions, _ = divbs_positions(products, 4, derive_generator(0), greedy=True)
    assert positions.tolist()[:2] == [0, 3]
    assert sorted(positions.tolist()) == [0, 1, 2, 3]


def test_greedy_is_a_truth_value():
    with pytest.raises(InputError, match="greedy='much' is not allowed"):
        DivBS(greedy="much")
