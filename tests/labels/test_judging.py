"""Beliefs about labels: what comes out, whatever the labels are like and however they are given."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import label_cases
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score, roc_auc_score

import saln
from saln.errors import InputError
from saln.labels.feature_blocks import FeatureBlocks
from saln.labels.judge import judge_with_evidence
from saln.labels.likelihood_fit import likelihood_under
from saln.spectral.label_filter import LabelSums


def example(n=240, classes=4, noise=0.2, d=12, seed=0, to_next=False):
    """Clusters, labels as given, and which of them are right."""
    random = np.random.default_rng(seed)
    truth = random.integers(0, classes, n)
    rows = 1.2 * random.normal(size=(classes, d))[truth] + 0.5 * random.normal(size=(n, d)) + 1
    wrong = random.random(n) < noise
    shift = 1 if to_next else random.integers(1, classes, n)
    labels = np.where(wrong, (truth + shift) % classes, truth)
    return rows, labels, labels == truth


def numbers(beliefs):
    return beliefs.confidence.numpy()


@pytest.mark.parametrize("to_next", [False, True])
def test_wrong_labels_are_found_with_their_right_class_and_their_share(to_next):
    rows, labels, right = example(600, noise=0.3, to_next=to_next)
    found = saln.judge_labels(rows, labels)
    suspicious = found.suspicious.numpy()
    assert (suspicious == ~right).mean() > 0.97
    assert abs(found.noise_rate - (~right).mean()) < 0.03
    low, high = found.noise_interval
    assert low <= (~right).mean() <= high
    matrix = found.transition
    torch.testing.assert_close(matrix.sum(dim=1), torch.ones(4, dtype=torch.float64))
    if to_next:
        assert all(matrix[c, (c + 1) % 4] > 0.15 for c in range(4))


@pytest.mark.parametrize("seed", range(3))
def test_clean_labels_are_left_alone(seed):
    rows, labels, _ = example(noise=0.0, seed=seed)
    found = saln.judge_labels(rows, labels)
    assert found.noise_rate < 0.01
    assert not found.suspicious.any()
    assert found.issues() == []


def test_right_labels_of_small_classes_are_believed():
    for case in (
        label_cases.small_classes(),
        label_cases.small_classes(noise=0.3),
        label_cases.small_classes(wrongly=3),
        label_cases.long_tailed(),
    ):
        confidence = numbers(saln.judge_labels(case.features, case.labels))
        marked = case.marked & case.right
        assert confidence[marked].mean() > 0.5 * confidence[case.right].mean()
        assert confidence[marked].min() > 0.5
        if (~case.right).any():
            assert confidence[~case.right].mean() < 0.5


def test_the_rarest_class_keeps_its_share_under_noise():
    case = label_cases.long_tailed(most=600, least=6)
    random = np.random.default_rng(0)
    wrong = random.random(len(case.labels)) < 0.2
    labels = np.where(wrong, (case.labels + random.integers(1, 10, len(wrong))) % 10, case.labels)
    confidence = numbers(saln.judge_labels(case.features, labels))
    rarest = confidence[case.marked & ~wrong].mean()
    assert rarest >= 0.5 * confidence[~wrong].mean()
    assert confidence[wrong].mean() < 0.1


@pytest.mark.parametrize("noise", [0.0, 0.2])
@pytest.mark.parametrize(
    "shape", [{"count": 5}, {"count": 30}, {"count": 100}, {"count": 30, "jitter": 0.05}]
)
def test_copies_with_one_wrong_label_do_not_vote_for_each_other(noise, shape):
    case = label_cases.copies(**shape, noise=noise, rows=500)
    found = saln.judge_labels(case.features, case.labels)
    assert numbers(found)[case.marked].max() < 0.1
    (group,) = found.groups
    assert group.tolist() == np.flatnonzero(case.marked).tolist()
    row = int(group[0])
    issue = next(entry for entry in found.issues(None) if entry.example == row)
    assert (issue.given, issue.believed) == ("4", "0")
    assert issue.copies == found.evidence(row).copies == tuple(group[1:].tolist())


def test_copies_with_right_labels_are_believed_and_mixed_ones_told_apart():
    case = label_cases.copies(30, wrong=False)
    assert numbers(saln.judge_labels(case.features, case.labels)).min() > 0.9
    case = label_cases.copies(30, half=True)
    confidence = numbers(saln.judge_labels(case.features, case.labels))
    assert confidence[case.right].min() > 0.9
    assert confidence[~case.right].max() < 0.1


@pytest.mark.parametrize("name", label_cases.telling_nothing())
def test_where_nothing_tells_nothing_is_doubted_and_it_is_said(name):
    case = label_cases.telling_nothing()[name]
    found = saln.judge_labels(case.features, case.labels)
    assert not found.informative
    assert "little better than chance" in found.message
    assert math.isnan(found.noise_rate)
    assert (numbers(found) == 1.0).all()
    assert found.issues() == []


def test_features_too_weak_to_judge_by_are_called_that():
    random = np.random.default_rng(0)
    rows, labels, _ = example(800, classes=8, d=4, noise=0.0)
    found = saln.judge_labels(rows + 2.5 * random.standard_normal(rows.shape), labels)
    assert not found.informative
    assert "too badly to tell wrong labels from hard examples" in found.message
    assert found.issues() == []


def test_labels_of_every_kind_say_the_same():
    rows, labels, _ = example(120)
    plain = saln.judge_labels(rows, labels)
    expected = numbers(plain)
    names = np.array(["ant", "bee", "cat", "dog"])
    gaps = np.array([2, 7, 30, 1000])
    for given_as in (
        names[labels],
        names[labels].tolist(),
        gaps[labels],
        labels.astype(np.float32),
        torch.from_numpy(labels),
        np.eye(4)[labels],
    ):
        found = saln.judge_labels(torch.from_numpy(rows), given_as)
        np.testing.assert_allclose(numbers(found), expected, atol=1e-9)
    found = saln.judge_labels(rows, gaps[labels])
    assert found.believed.tolist() == gaps[plain.believed].tolist()
    assert found.issues(1)[0].given in {"2", "7", "30", "1000"}
    named = saln.judge_labels(rows, labels, class_names=names)
    assert {entry.given for entry in named.issues()} <= set(names)
    assert named.evidence(0, 2).classes[0][0] == names[plain.believed[0]]


def test_unknown_labels_get_beliefs_and_cast_no_vote():
    rows, labels, right = example()
    truth_known = right.copy()
    truth_known[::3] = False  # every third, and all wrong ones, are not told
    names = np.array(["ant", "bee", "cat", "dog"])
    as_numbers = np.where(truth_known, labels, -1)
    found = saln.judge_labels(rows, as_numbers)
    assert np.isnan(numbers(found)).tolist() == (~truth_known).tolist()
    hidden = right & ~truth_known
    assert (found.believed.numpy()[hidden] == labels[hidden]).all()
    alone = saln.judge_labels(rows[truth_known], labels[truth_known])
    np.testing.assert_allclose(numbers(found)[truth_known], numbers(alone), atol=0.05)
    others = [
        np.where(truth_known, labels.astype(float), np.nan),
        [names[c] if k else None for c, k in zip(labels, truth_known, strict=True)],
        np.where(truth_known[:, None], np.eye(4)[labels], 0.0),
    ]
    for given_as in others:
        again = saln.judge_labels(rows, given_as)
        np.testing.assert_allclose(numbers(again), numbers(found), atol=1e-9)
    soft = np.eye(4)[labels]
    soft[0] = [0.5, 0.5, 0.0, 0.0]
    judged = saln.judge_labels(rows, soft)
    held = judged.probabilities[[0]].toarray()[0]
    assert numbers(judged)[0] == pytest.approx(0.5 * held[0] + 0.5 * held[1], abs=1e-6)


@settings(max_examples=3, deadline=None)
@given(seed=st.integers(0, 100), cut=st.integers(40, 80), scale=st.sampled_from([1e-3, 50.0]))
def test_order_names_scale_parts_and_time_change_nothing(seed, cut, scale):
    rows, labels, _ = example(120, seed=seed)
    expected = numbers(saln.judge_labels(rows, labels))
    random = np.random.default_rng(seed)
    order = random.permutation(len(rows))
    got = numbers(saln.judge_labels(rows[order], labels[order]))
    np.testing.assert_allclose(got, expected[order], atol=5e-4)
    got = numbers(saln.judge_labels(rows, random.permutation(4)[labels]))
    np.testing.assert_allclose(got, expected, atol=5e-4)
    got = numbers(saln.judge_labels(scale * rows, labels))
    np.testing.assert_allclose(got, expected, atol=5e-4)
    sums = LabelSums.of(rows.shape[1], 4)
    for part in (slice(0, cut), slice(cut, None)):
        sums = sums.merge(saln.label_sums(rows[part], labels[part], classes=4))
    got = numbers(saln.judge_labels(rows, labels, sums=sums))
    np.testing.assert_allclose(got, expected, atol=1e-6)
    before = saln.judge_labels(rows[:cut], labels[:cut])
    after = before.update(rows[cut:], labels[cut:])
    np.testing.assert_allclose(numbers(after), expected, atol=1e-6)


def test_an_update_may_bring_classes_and_names():
    rows, labels, _ = example(120)
    names = np.array(["dog", "bee", "cat", "ant"])[labels]
    first = names != "bee"
    order = np.concatenate([np.flatnonzero(first), np.flatnonzero(~first)])
    expected = saln.judge_labels(rows[order], names[order])
    before = saln.judge_labels(rows[first], names[first])
    found = before.update(rows[~first], names[~first].tolist())
    assert found.names == ("ant", "bee", "cat", "dog")
    np.testing.assert_allclose(numbers(found), numbers(expected), atol=1e-6)
    with pytest.raises(InputError, match="have 12 features and the new ones 3"):
        before.update(rows[:, :3], names)
    with pytest.raises(InputError, match="give both as numbers, as names or as shares"):
        before.update(rows, labels)


def test_stores_are_judged_with_their_own_labels_and_names(tmp_path):
    rows, labels, _ = example(120)
    names = np.array(["ant", "bee", "cat", "dog"])
    store = saln.write_store(tmp_path / "store", rows, names[labels])
    found = saln.judge_labels(store)
    direct = saln.judge_labels(store.features, names[labels])
    np.testing.assert_allclose(numbers(found), numbers(direct), atol=1e-12)
    assert found.names == tuple(names)
    before = saln.judge_labels(saln.write_store(tmp_path / "a", rows[:70], labels[:70]))
    after = before.update(saln.write_store(tmp_path / "b", rows[70:], labels[70:]))
    np.testing.assert_allclose(numbers(after), numbers(found), atol=1e-6)


def test_rows_without_features_are_left_out():
    rows, _, _ = example(60)

    whole = FeatureBlocks(rows)
    whole.kept = np.delete(np.arange(60), [3, 10])
    whole._read(rows)
    assert whole.n == 58
    np.testing.assert_array_equal(whole.take(slice(2, 5)).numpy(), rows[[2, 4, 5]])
    joined = whole.followed_by(FeatureBlocks(rows[:5]))
    assert joined.n == 63
    np.testing.assert_array_equal(joined.take(np.array([57, 58, 62])).numpy(), rows[[59, 0, 4]])


def test_many_classes_keep_the_likeliest_and_agree_with_all(monkeypatch):
    rows, labels, right = example(600, classes=30, d=24, noise=0.1)
    expected = numbers(saln.judge_labels(rows, labels))
    monkeypatch.setattr("saln.labels.evidence.ALL_CLASSES", 20)
    monkeypatch.setattr("saln.labels.evidence.KEPT_CLASSES", 12)
    monkeypatch.setattr("saln.labels.noise_model.DENSE", 20)
    found = saln.judge_labels(rows, labels)
    assert found.probabilities.nnz == 600 * 12
    assert np.abs(numbers(found) - expected).mean() < 0.02
    assert ((numbers(found) < 0.5) == ~right).mean() > 0.97


def test_a_level_that_all_classes_share_says_nothing(monkeypatch):
    rows, labels, _ = example(300, classes=30, d=24)
    monkeypatch.setattr("saln.labels.evidence.ALL_CLASSES", 20)
    monkeypatch.setattr("saln.labels.evidence.KEPT_CLASSES", 12)
    _, outcome, _ = judge_with_evidence(rows, labels, seed=0)
    joint = outcome.judged.joint
    shifted = replace(joint, levels=joint.levels + 3.0)
    for expected, found in zip(
        joint.probabilities(outcome.evidence), shifted.probabilities(outcome.evidence), strict=True
    ):
        np.testing.assert_allclose(found, expected, atol=1e-12)


def test_blocks_and_samples_change_little(monkeypatch):
    rows, labels, _ = example(300, seed=1)
    expected = numbers(saln.judge_labels(rows, labels))
    monkeypatch.setattr("saln.labels.feature_blocks.BLOCK_ENTRIES", 12 * 17)
    monkeypatch.setattr("saln.labels.likelihood_fit.BLOCK_ROWS", 13)
    np.testing.assert_allclose(numbers(saln.judge_labels(rows, labels)), expected, atol=1e-6)
    monkeypatch.setattr("saln.labels.judge.SEARCHED", 100)
    monkeypatch.setattr("saln.labels.judge.SAMPLE", 200)
    sampled = numbers(saln.judge_labels(rows, labels))
    assert ((sampled < 0.5) == (expected < 0.5)).mean() > 0.97


@pytest.mark.parametrize("seed", range(3))
def test_some_examples_choose_the_penalty_that_all_choose(seed, monkeypatch):
    rows, labels, _ = example(2400, classes=8, d=300, noise=0.3, seed=seed)
    rows = rows + 3 * np.random.default_rng(9).normal(size=rows.shape)
    rows /= np.arange(1, 301)
    chosen = []
    for count in (10_000, 1200, 600):
        monkeypatch.setattr("saln.labels.judge.SEARCHED", count)
        chosen.append(saln.judge_labels(rows, labels, neighbors=False, seed=seed).penalty)
    assert max(chosen) < 10**-4.2  # not where the search began
    assert max(chosen) < 4 * min(chosen)  # neighbors on the grid at most


def test_penalty_and_joint_are_chosen_by_examples_that_have_labels(monkeypatch):
    rows, labels, _ = example(600)
    labels[100:] = -1
    expected = saln.judge_labels(rows, labels)
    monkeypatch.setattr("saln.labels.judge.SEARCHED", 100)
    monkeypatch.setattr("saln.labels.judge.SAMPLE", 100)
    found = saln.judge_labels(rows, labels)
    assert found.penalty == expected.penalty
    np.testing.assert_allclose(numbers(found), numbers(expected), atol=1e-9)


def test_a_likelihood_under_known_noise_is_the_one_that_was_learned():
    rows, labels, _ = example(300)
    _, outcome, _ = judge_with_evidence(rows, labels, seed=0)
    judged, ones = outcome.judged, np.ones(300)
    found = likelihood_under(judged, outcome.evidence, labels, ones)
    # The joint was fitted to the noise of the turn before: now to this.
    assert judged.likelihood - 1e-9 <= found < judged.likelihood + 0.01
    some = np.arange(0, 300, 2)
    half = likelihood_under(judged, outcome.evidence, labels, ones, some)
    assert abs(half - found) < 0.2
    assert half != found


def test_without_neighbors_the_filter_judges_alone():
    rows, labels, right = example()
    found = saln.judge_labels(rows, labels, neighbors=False)
    assert found.neighbors.shape == (240, 0)
    assert (found.suspicious.numpy() == ~right).mean() > 0.97
    assert found.evidence(0).neighbors == ()


def test_mistakes_that_follow_the_features_are_ranked_by_the_neighbors_evidence(monkeypatch):
    monkeypatch.setattr("saln.labels.feature_clusters.SILENCED", 0.0)  # no share by clusters
    rows, labels, right = label_cases.by_image()
    found = numbers(saln.judge_labels(rows, labels))
    monkeypatch.setattr("saln.labels.descriptions.USUAL_WEIGHT", 1e-9)  # no weight is missing then
    likelihood_alone = numbers(saln.judge_labels(rows, labels))
    assert roc_auc_score(right, found) > roc_auc_score(right, likelihood_alone) + 0.02
    rows, labels, _ = example(600)  # nothing is missing: nothing changes
    unchanged = numbers(saln.judge_labels(rows, labels))
    monkeypatch.undo()
    np.testing.assert_array_equal(numbers(saln.judge_labels(rows, labels)), unchanged)


def test_a_share_of_wrong_labels_that_is_known_is_called_wrong(monkeypatch):
    rows, labels, right = label_cases.by_image()
    monkeypatch.setattr("saln.labels.feature_clusters.SILENCED", 0.0)  # by likelihood alone
    found = saln.judge_labels(rows, labels)
    share = float((~right).mean())
    known = saln.judge_labels(rows, labels, noise_rate=share)
    assert (known.noise_rate, known.noise_interval) == (share, (share, share))
    assert abs(int(known.suspicious.sum()) - int((~right).sum())) <= 1
    assert f1_score(~right, known.suspicious) > f1_score(~right, found.suspicious) + 0.3
    # The same order, by odds that all have the same factor.
    odds = torch.logit(known.confidence) - torch.logit(found.confidence)
    torch.testing.assert_close(odds, odds.median().expand_as(odds), atol=1e-6, rtol=0)
    shares = known.probabilities.toarray()
    np.testing.assert_allclose(shares.sum(axis=1), 1.0, atol=1e-5)
    np.testing.assert_allclose(shares[np.arange(len(labels)), labels], numbers(known), atol=1e-6)
    np.testing.assert_array_equal(known.believed.numpy(), shares.argmax(axis=1))
    others = found.probabilities.toarray()
    for part in (shares, others):
        part[np.arange(len(labels)), labels] = 0.0
    expected = others / others.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(shares / shares.sum(axis=1, keepdims=True), expected, atol=1e-4)
    assert len(found.with_noise_rate(0.0).issues(None)) == 0


def test_a_known_share_stays_known_and_says_nothing_of_unknown_and_soft_labels():
    rows, labels, _ = example(300)
    partly = np.where(np.arange(300) < 20, -1, labels)
    known = saln.judge_labels(rows, partly, noise_rate=0.25)
    assert int(known.suspicious.sum()) == 70
    assert torch.isnan(known.confidence[:20]).all()
    before = saln.judge_labels(rows, partly)
    same = known.probabilities[:20] != before.probabilities[:20]
    assert same.nnz == 0
    more = known.update(rows[:40], labels[:40])
    assert int(more.suspicious.sum()) == 80
    noise = np.random.default_rng(0).normal(size=rows.shape)
    assert not saln.judge_labels(noise, labels, noise_rate=0.25).suspicious.any()
    for share in (-0.1, 1.0, math.nan):
        with pytest.raises(InputError, match=r"noise_rate=.* a share in \[0, 1\)"):
            saln.judge_labels(rows, labels, noise_rate=share)


def test_what_cannot_be_judged_is_refused():
    rows, labels, _ = example(20)
    for features, given_as, message in (
        (rows, None, "labels are missing"),
        (rows, labels[:5], "give one a row"),
        (rows, np.full(20, -1), "no example has a label"),
        (rows[0], labels, "give numbers"),
        (np.where(np.arange(20)[:, None] == 7, np.nan, rows), labels, "example 7 are NaN"),
        (rows, np.full((20, 2), 0.5), "no soft label says one class"),
        (rows, labels + 0.5, "which is no class"),
    ):
        with pytest.raises(InputError, match=message):
            saln.judge_labels(features, given_as)
    with pytest.raises(InputError, match="do not fit"):
        saln.judge_labels(rows, labels, sums=LabelSums.of(12, 9))
    with pytest.raises(InputError, match="below"):
        saln.label_sums(rows, labels, classes=2)
    found = saln.judge_labels(rows, labels)
    with pytest.raises(InputError, match="top=0"):
        found.issues(0)
    with pytest.raises(InputError, match="example 20"):
        found.evidence(20)
