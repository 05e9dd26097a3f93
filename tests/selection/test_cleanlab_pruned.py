from __future__ import annotations

import collections
import sys

import numpy as np
import pytest
import sklearn.linear_model
import torch
from oracles.exact_cleanlab_pruned import law
from scipy import stats

import saln
from saln.errors import MissingExtraError
from saln.experiments.arm import read_arm
from saln.labels.confident_learning import _folds, held_out_probabilities
from saln.randomness import derive_generator
from saln.selection.cleanlab_pruned import beliefs_by_cleanlab
from saln.selection.coherence import judge_of

DOUBTED = [True, False, False, True, False]


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_the_kept_set_follows_the_exact_law(k):
    expected = law(DOUBTED, k)
    confidence = 1 - torch.tensor(DOUBTED).double()
    candidates = saln.Candidates(indices=torch.arange(5), label_confidence=confidence)
    draws = 1_000
    counts = collections.Counter(
        frozenset(
            saln.CleanlabPruned()(candidates, k, generator=derive_generator("pruned", i))
            .positions.tolist()
        )
        for i in range(draws)
    )  # fmt: skip
    assert set(counts) <= set(expected)
    observed = [counts[kept] for kept in expected]
    if len(expected) > 1:
        # Seeded, so this either always passes or never.
        assert (
            stats.chisquare(observed, [draws * float(p) for p in expected.values()]).pvalue > 1e-3
        )


def clusters():
    """Three classes that overlap a little, in numbers with a gap; a tenth of the labels wrong."""
    random = np.random.default_rng(0)
    truth = random.integers(0, 3, 300)
    rows = 2.0 * random.normal(size=(3, 10))[truth] + random.normal(size=(300, 10))
    given = truth.copy()
    given[::10] = (truth[::10] + 1) % 3
    numbers = np.array([0, 2, 3])
    return rows.astype(np.float32), numbers[given], numbers[truth]


def test_probabilities_are_those_of_regressions_that_have_not_seen_the_label():
    """By scikit-learn, fold by fold, at each regularization: one of them is it."""
    rows, given, _ = clusters()
    rows = (rows - rows.mean(axis=0)) / rows.std(axis=0)
    labels = torch.from_numpy(np.searchsorted([0, 2, 3], given))
    found = held_out_probabilities(torch.from_numpy(rows), labels, 3).numpy()
    folds = _folds(labels).numpy()
    for fold in range(5):
        held = np.bincount(labels[folds == fold], minlength=3)
        assert abs(held - np.bincount(labels) / 5).max() <= 1  # of every class a fifth
    likelihoods, differences = [], []
    for strength in 10.0 ** (np.arange(-6, 5) / 2):
        expected = np.empty((300, 3))
        for fold in range(5):
            model = sklearn.linear_model.LogisticRegression(C=strength, max_iter=2000, tol=1e-8)
            model.fit(rows[folds != fold], labels.numpy()[folds != fold])
            expected[folds == fold] = model.predict_proba(rows[folds == fold])
        first = folds == 0
        likelihoods.append(np.log(expected[first, labels.numpy()[first]]).mean())
        differences.append(np.abs(expected - found).max())
    assert min(differences) < 1e-3
    assert np.argmin(differences) == np.argmax(likelihoods)


def test_wrong_labels_are_doubted_and_the_right_class_is_believed():
    pytest.importorskip("cleanlab")
    rows, given, truth = clusters()
    beliefs = beliefs_by_cleanlab(rows, given, 4)
    doubted = beliefs.confidence.numpy() == 0
    assert set(beliefs.confidence.tolist()) == {0.0, 1.0}
    assert (doubted == (given != truth)).mean() > 0.97
    assert (beliefs.believed.numpy() == truth).mean() > 0.97
    assert beliefs.noise_rate == pytest.approx(doubted.mean())
    torch.testing.assert_close(beliefs.transition.sum(dim=1), torch.ones(4).double())
    assert float(beliefs.transition[0, 2]) == pytest.approx(0.1, abs=0.05)
    unknown = given.copy()
    unknown[:5] = -1
    without = beliefs_by_cleanlab(rows, unknown, 4)
    assert without.confidence[:5].tolist() == [0.0] * 5
    assert without.believed[:5].tolist() == [-1] * 5


def test_a_sampler_asks_cleanlab_by_itself():
    pytest.importorskip("cleanlab")
    rows, given, truth = clusters()
    batches = saln.SelectedBatches(
        rows, selector="cleanlab-pruned", labels=given, batch_size=10, filter_ratio=0.5, seed=0
    )
    kept = [index for batch in batches for index in batch]
    assert (given[kept] != truth[kept]).mean() < 0.02
    assert read_arm("cleanlab-pruned+ema").judge == judge_of(saln.CleanlabPruned()) == "cleanlab"


def test_without_cleanlab_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "cleanlab.filter", None)
    rows, given, _ = clusters()
    with pytest.raises(MissingExtraError, match=r"needs the package cleanlab.*saln\[cleanlab\]"):
        beliefs_by_cleanlab(rows, given, 4)
