"""Sets of classes are judged class by class, as if each had been judged alone."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict

import saln
from saln.errors import InputError
from saln.review.multi_label import judge_label_sets


def examples(n=600, classes=6, d=32, rate=0.2, seed=0, strength=1.0):
    """Features, the given sets, and where they differ from the true ones: (n, C)."""
    random = np.random.default_rng(seed)
    directions = random.standard_normal((classes, d))
    true = random.random((n, classes)) < random.uniform(0.1, 0.35, classes)
    rows = strength * (true @ directions) + random.standard_normal((n, d))
    wrong = np.zeros((n, classes), dtype=bool)
    for i in np.flatnonzero(random.random(n) < rate):
        has = np.flatnonzero(true[i])
        # Half of the mistakes take a label away, the others add one.
        c = random.choice(has) if len(has) and random.random() < 0.5 else random.integers(classes)
        wrong[i, c] = True
    return rows.astype(np.float32), true ^ wrong, wrong


def test_every_class_comes_out_as_if_it_had_been_judged_alone():
    rows, given, _ = examples(n=200, classes=3)
    known = np.arange(200) >= 10
    found = judge_label_sets(rows, given, known)
    right = np.empty((200, 3))
    for c in range(3):
        alone = saln.judge_labels(rows, np.where(known, given[:, c].astype(int), -1))
        right[:, c] = alone.confidence.numpy()
        applies = alone.probabilities.toarray()[:, 1]
        np.testing.assert_allclose(found.probabilities[:, c], applies, atol=1e-5)
    np.testing.assert_allclose(found.confidence[known], right[known].min(axis=1), atol=1e-5)
    assert np.isnan(found.confidence[~known]).all()
    assert (found.doubted[~known] == -1).all()
    least = right[known].argmin(axis=1)
    assert (found.doubted[known] == least).mean() > 0.99


def test_wrong_and_missing_labels_are_ranked_and_counted():
    ours, theirs = [], []
    for seed in range(2):
        rows, given, wrong = examples(seed=seed)
        any_wrong = wrong.any(axis=1)
        found = judge_label_sets(rows, given)
        ours.append(roc_auc_score(any_wrong, -found.confidence))
        model = LogisticRegression(C=0.01, max_iter=300)
        held_out = np.stack(
            [
                cross_val_predict(model, rows, given[:, c], method="predict_proba")[:, 1]
                for c in range(given.shape[1])
            ],
            axis=1,
        )
        own = np.where(given, held_out, 1 - held_out)
        theirs.append(roc_auc_score(any_wrong, -own.min(axis=1)))
        doubted = found.confidence < 0.5
        assert any_wrong[doubted].mean() > 0.9
        assert doubted[any_wrong].mean() > 0.7
        rows_doubted = np.flatnonzero(doubted & any_wrong)
        assert wrong[rows_doubted, found.doubted[rows_doubted]].mean() > 0.95
        assert abs(found.noise_rate - any_wrong.mean()) < 0.05
    assert np.mean(ours) > np.mean(theirs) + 0.005


def test_probabilities_are_of_the_size_that_they_say():
    rows, given, wrong = examples(n=1500, classes=4, strength=0.6)
    found = judge_label_sets(rows, given)
    right = np.where(given, found.probabilities, 1 - found.probabilities).ravel()
    true = ~wrong.ravel()
    for low, high in ((0.0, 0.3), (0.3, 0.7), (0.7, 0.95), (0.95, 1.01)):
        part = (right >= low) & (right < high)
        assert part.sum() > 20
        error = 2.5 / np.sqrt(part.sum())
        assert abs(right[part].mean() - true[part].mean()) < 0.06 + 0.5 * error


def test_classes_that_the_features_do_not_tell_are_named_and_not_doubted():
    rows, given, _ = examples(n=300, classes=3, rate=0.05, strength=2.0)
    random = np.random.default_rng(1)
    given = np.column_stack([given, random.random(300) < 0.3, np.zeros(300, dtype=bool)])
    found = judge_label_sets(rows, given, class_names=["a", "b", "c", "luck", "never"])
    assert found.informative
    assert "2 of 5 classes (luck, never)" in found.message
    assert (found.probabilities[:, 4] == 0).all()
    np.testing.assert_array_equal(found.probabilities[:, 3], given[:, 3])
    nothing = judge_label_sets(random.standard_normal((100, 4)), random.random((100, 2)) < 0.5)
    assert not nothing.informative
    assert "any class" in nothing.message
    assert (nothing.confidence == 1.0).all()
    assert np.isnan(nothing.noise_rate)


def test_what_is_no_set_a_row_is_refused():
    rows, given, _ = examples(n=20)
    with pytest.raises(InputError, match=r"20 rows of features and sets of classes \(19, 6\)"):
        judge_label_sets(rows, given[1:])
    with pytest.raises(InputError, match="no example has labels"):
        judge_label_sets(rows, given, np.zeros(20, dtype=bool))
