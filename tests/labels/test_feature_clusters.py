"""The share of wrong labels by clusters: right where mistakes follow the image, else silent."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.label_cases import by_image
from oracles.explicit_clusters import clusters_by_class, voted_classes
from sklearn.metrics import cohen_kappa_score, f1_score

import saln
from saln.errors import InputError
from saln.labels import feature_clusters
from saln.labels.feature_clusters import following
from saln.review.summary_text import summary_lines


def likelihood_alone(monkeypatch, *data, **options):
    with monkeypatch.context() as patch:
        patch.setattr(feature_clusters, "SILENCED", 0.0)
        return saln.judge_labels(*data, **options)


@pytest.mark.parametrize(("classes", "seed"), [(6, 0), (6, 1), (6, 2), (10, 1), (10, 3)])
def test_where_mistakes_follow_the_image_their_share_is_estimated(monkeypatch, classes, seed):
    rows, labels, right = by_image(classes=classes, seed=seed)
    before = likelihood_alone(monkeypatch, rows, labels)
    found = saln.judge_labels(rows, labels)
    true = float((~right).mean())
    assert abs(found.noise_rate - true) < 0.05 < true - before.noise_rate
    assert found.noise_interval[0] < true < found.noise_interval[1]
    assert found.informative
    assert found.message == following()
    scores = [f1_score(~right, beliefs.suspicious) for beliefs in (before, found)]
    assert scores[1] > max(scores[0] + 0.3, 0.85)
    assert abs(float(found.suspicious.double().mean()) - found.noise_rate) < 0.01
    for label in range(classes):
        odds = [
            torch.logit(beliefs.confidence[labels == label]) for beliefs in (before, found)
        ]  # each label's order stays
        moved = odds[1] - odds[0]
        torch.testing.assert_close(moved, moved.median().expand_as(moved), atol=1e-6, rtol=0)


def test_the_share_is_that_of_labels_outside_their_cluster():
    rows, labels, _ = by_image(n=500)
    found = saln.judge_labels(rows, labels)
    assert not found.groups
    clusters, settled = (
        clusters_by_class(rows, labels, 6, steps * feature_clusters.STEPS) for steps in (1, 2)
    )
    votes = voted_classes(found.neighbors, found.similarities, labels, 6)
    agreed = [cohen_kappa_score(which, clusters) for which in (votes, labels)]
    assert found.noise_rate == pytest.approx(float((settled != labels).mean()), abs=1e-9)
    lacking = 1 - agreed[1] / agreed[0]
    assert found.noise_interval[0] <= lacking + 1e-6
    assert found.noise_interval[1] >= 2 * found.noise_rate - lacking - 1e-6
    for label in range(6):
        own = labels == label
        outside, shared = (settled != labels)[own], feature_clusters.SHARED
        share = (outside.sum() + shared * found.noise_rate) / (own.sum() + shared)
        assert abs(int(found.suspicious.numpy()[own].sum()) - share * own.sum()) <= 1


def clean(kind):
    """Clean labels that are predicted badly, or by the filter alone; and mistakes at random."""
    random = np.random.default_rng(0)
    if kind == "linear in features without clusters":
        rows = random.normal(size=(1500, 40))
        return rows, (rows @ random.normal(size=(40, 10))).argmax(axis=1)
    classes = 3 if kind == "few classes by image" else 6
    rows, given, right = by_image(classes=classes)
    truth = np.random.default_rng(0).integers(0, classes, len(rows))  # what by_image begins with
    assert ((given == truth) == right).all()
    if kind == "few classes by image":
        return rows, given
    if kind == "weak features":
        return rows @ random.normal(size=(48, 5)), truth
    if kind.startswith("features beside the point"):
        rows = np.hstack([rows, 2 * random.normal(size=(len(rows), 60))])
    share = 0.4 if kind.endswith("at random") else 0.0
    return rows, np.where(random.random(len(rows)) < share, random.integers(0, 6, len(rows)), truth)


@pytest.mark.parametrize(
    "kind",
    [
        "clean", "at random", "weak features", "features beside the point",
        "features beside the point, at random",
        "linear in features without clusters", "few classes by image",
    ],
)  # fmt: skip
def test_elsewhere_nothing_changes(monkeypatch, kind):
    rows, labels = clean(kind)
    before = likelihood_alone(monkeypatch, rows, labels)
    found = saln.judge_labels(rows, labels)
    assert found.message == before.message
    np.testing.assert_array_equal(found.noise_rate, before.noise_rate)
    np.testing.assert_array_equal(found.confidence, before.confidence)
    np.testing.assert_array_equal(found.probabilities.data, before.probabilities.data)


def test_without_neighbors_nothing_changes():
    rows, labels, _ = by_image()
    found = saln.judge_labels(rows, labels, neighbors=False)
    assert found.message == ""
    assert found.noise_rate < 0.1


def test_the_order_unknown_labels_and_copies_change_little_and_an_update_estimates_again():
    rows, labels, right = by_image()
    expected = saln.judge_labels(rows, labels).noise_rate
    order = np.random.default_rng(1).permutation(len(rows))
    assert saln.judge_labels(rows[order], labels[order]).noise_rate == pytest.approx(expected)
    partly = np.r_[labels, np.full(100, -1)]
    found = saln.judge_labels(np.r_[rows, rows[:100] + 1e-3], partly)
    assert found.noise_rate == pytest.approx(expected, abs=0.05)
    copied = np.r_[np.arange(len(rows)), np.repeat(np.flatnonzero(right)[:50], 10)]
    found = saln.judge_labels(rows[copied], labels[copied])
    assert found.noise_rate == pytest.approx(expected, abs=0.02)  # copies have one voice together
    half = len(rows) // 2
    after = saln.judge_labels(rows[:half], labels[:half]).update(rows[half:], labels[half:])
    assert (after.message, after.noise_rate) == (following(), pytest.approx(expected, abs=1e-6))


def test_a_share_that_is_given_is_said_to_be_given():
    rows, labels, _ = by_image()
    known = saln.judge_labels(rows, labels, noise_rate=0.3)
    later = saln.judge_labels(rows, labels).with_noise_rate(0.3)
    for beliefs in (known, later):
        assert (beliefs.message, beliefs.noise_interval) == ("", (0.3, 0.3))
        assert abs(int(beliefs.suspicious.sum()) - 0.3 * len(labels)) <= 1


def test_shares_of_labels_that_cannot_be_are_refused():
    rows, labels, _ = by_image(n=300)
    beliefs = saln.judge_labels(rows, labels)
    with pytest.raises(InputError, match="5 rates do not fit 6 classes; give one for each"):
        beliefs.with_label_rates(np.full(5, 0.2))
    with pytest.raises(InputError, match=r"noise_rate=1\.0 is not allowed; give a share"):
        beliefs.with_label_rates(np.r_[np.full(5, 0.2), 1.0])


def test_the_list_of_wrong_labels_says_where_the_share_is_from(monkeypatch):
    rows, labels, _ = by_image()
    monkeypatch.setattr("saln.review.find_issues.to_pandas", lambda table: table)
    table = saln.find_label_issues(rows, labels)
    assert following() in summary_lines(table)["wrong"]
