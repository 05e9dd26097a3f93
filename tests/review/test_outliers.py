"""Outlier scores: as they are defined, and what is foreign to a data set stands first."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.datasets
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import exact_outlier_scores

import saln
from saln.features import nearest_neighbors
from saln.review.outliers import OUTLYING, outlier_scores


def scores_of(rows, k=50):
    table = nearest_neighbors(rows, k)
    return outlier_scores(table.indices, table.similarities)


@settings(max_examples=20, deadline=None)
@given(st.integers(4, 30), st.integers(2, 6), st.floats(0, 4), st.integers(0, 10**6))
def test_scores_are_those_of_the_definition(n, width, apart, seed):
    random = np.random.default_rng(seed)
    clusters = apart * random.normal(size=(2, width))
    rows = random.normal(size=(n, width)) + clusters[random.integers(0, 2, n)]
    k = int(random.integers(1, max(2, n // 2)))
    found = scores_of(rows, k)
    wanted = exact_outlier_scores.outlier_scores(rows.tolist(), k)
    np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_noise_among_digits_stands_first_and_digits_are_no_outliers():
    digits = sklearn.datasets.load_digits()
    noise = np.random.default_rng(0).integers(0, 17, (5, 64))
    beliefs = saln.judge_labels(
        np.concatenate([digits.data, noise]), [*digits.target, 0, 1, 2, 3, 4]
    )
    found = outlier_scores(beliefs.neighbors, beliefs.similarities)
    assert set(np.argsort(-found)[:5]) == set(range(1797, 1802))
    assert (found[-5:] >= OUTLYING).sum() >= 3
    assert (found[:-5] < OUTLYING).all()
    assert np.median(found) == pytest.approx(0, abs=0.01)


def test_a_foreign_group_stands_above_clusters_of_any_density():
    random = np.random.default_rng(1)
    centers = 4 * random.normal(size=(5, 32))
    spread = np.repeat([0.5, 0.7, 0.9, 1.1, 1.3], 80)[:, None]
    usual = np.repeat(centers, 80, axis=0) + spread * random.normal(size=(400, 32))
    foreign = 6 * random.normal(size=(1, 32)) + 2 * random.normal(size=(6, 32))
    found = scores_of(np.concatenate([usual, foreign]))
    assert set(np.argsort(-found)[:6]) == set(range(400, 406))


def test_what_is_not_known_is_nan():
    neighbors = np.array([[1, 2], [0, -1], [-1, -1], [0, 1]])
    similarities = np.array([[0.8, 0.4], [0.8, 0.0], [0.0, 0.0], [0.4, 0.0]])
    found = outlier_scores(neighbors, similarities)
    np.testing.assert_allclose(found, [0, 0, np.nan, 2 / 3])
    assert np.isnan(outlier_scores(np.empty((3, 0), dtype=int), np.empty((3, 0)))).all()
    assert outlier_scores(np.array([[1], [0]]), np.array([[-1.0], [-1.0]])).tolist() == [0, 0]
