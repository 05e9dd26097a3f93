"""The rivals of the benchmark are what they are said to be."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.linear_model
import torch
from label_finders import FINDERS, Features, finder_row

from saln.labels.logistic_regression import LogisticRegression


def clusters(n, classes, d, seed=0):
    random = np.random.default_rng(seed)
    truth = random.integers(0, classes, n)
    rows = 2.0 * random.normal(size=(classes, d))[truth] + random.normal(size=(n, d))
    return rows, truth


@pytest.mark.parametrize("strength", [1e-3, 0.1, 10.0])
def test_logistic_regression_is_that_of_scikit_learn(strength):
    rows, labels = clusters(200, 4, 12)
    rows *= 0.3  # overlapping: probabilities that are not all 0 and 1
    theirs = sklearn.linear_model.LogisticRegression(C=strength, max_iter=5000, tol=1e-9)
    expected = theirs.fit(rows, labels).predict_proba(rows)
    data = torch.from_numpy(rows)
    model = LogisticRegression(strength, 500).fit(data, torch.from_numpy(labels), 4)
    np.testing.assert_allclose(model.predict_proba(data).numpy(), expected, atol=1e-4)
    assert not np.allclose(expected, expected[0], atol=0.01)


def test_a_row_counts_what_a_finder_says():
    rows, truth = clusters(240, 3, 8)
    labels = truth.copy()
    labels[:24] = (truth[:24] + 1) % 3
    data = Features(rows.astype(np.float32), truth, 3)
    row = finder_row(data, labels, {"seed": 0}, "simifeat-rank")
    # The share of each class that is called wrong is given to it.
    assert row["called_wrong"] == row["noise_rate"] == 0.1
    assert row["auroc"] > 0.95
    assert row["f1"] > 0.8
    # Ours is given that of all classes together.
    given = finder_row(data, labels, {"seed": 0}, "ours-rate-given")
    assert given["called_wrong"] == given["estimated_noise_rate"] == 0.1
    assert given["auroc"] == pytest.approx(finder_row(data, labels, {}, "ours")["auroc"], abs=1e-9)
    clean = finder_row(data, truth, {}, "simifeat-vote")
    assert (clean["auroc"], clean["f1"]) == (None, None)


def test_cleanlab_is_given_probabilities_of_a_regularization_that_was_chosen():
    pytest.importorskip("cleanlab")
    rows, truth = clusters(300, 3, 10)
    labels = truth.copy()
    labels[::10] = (truth[::10] + 1) % 3
    data = Features(rows.astype(np.float32), truth, 3)
    findings = FINDERS["cleanlab"](data, labels)
    assert findings.strength in (3e-3, 1e-2)  # the others say nothing of so few examples
    assert (findings.wrong == (labels != truth)).mean() > 0.95


def test_neighbors_that_are_kept_are_used_again(tmp_path):
    rows, truth = clusters(60, 3, 8)
    path = tmp_path / "neighbors.npz"
    first = Features(rows.astype(np.float32), truth, 3, path).table
    again = Features(np.zeros_like(rows, dtype=np.float32), truth, 3, path).table
    np.testing.assert_array_equal(first.indices, again.indices)
    np.testing.assert_array_equal(first.similarities, again.similarities)
    assert first.seconds == again.seconds
