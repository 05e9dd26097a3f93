"""Small classes, copies, and features or labels that tell nothing, judged by coherence."""

from __future__ import annotations

import warnings

import numpy as np
import pandas
import pytest
import torch
from helpers import label_cases

import saln
from saln.errors import InputError
from saln.features.neighbors import nearest_neighbors
from saln.loading.candidate_fields import CandidateFields
from saln.randomness import derive_generator
from saln.selection import BatchCoherence, Candidates, Coherence
from saln.selection.neighbor_beliefs import (
    label_beliefs,
    store_beliefs,
    suspicious_labels,
)


def label_confidence(features, labels=None):
    """What batches choose by, where the neighbors judge."""
    fields = CandidateFields(features, labels, "neighbors", selector=Coherence(), owner="batches")
    return np.asarray(fields.rows["label_confidence"].array)


def by_features(case):
    return store_beliefs(case.features, case.labels)


def by_table(case):
    table = nearest_neighbors(case.features, 20)
    return label_beliefs(table.indices, table.similarities, case.labels, case.classes)


@pytest.mark.parametrize("noise", [0.0, 0.2, 0.4])
@pytest.mark.parametrize("seed", range(3))
def test_small_classes_that_are_well_apart_are_believed(noise, seed):
    case = label_cases.small_classes((1, 1, 2, 2, 3, 3), noise=noise, seed=seed)
    confidence = by_table(case).confidence.numpy()
    assert confidence[case.marked].min() > 0.5
    assert confidence[case.marked].mean() > 0.9
    if noise:
        assert confidence[~case.right].mean() < 0.15


@pytest.mark.parametrize("wrongly", [1, 2, 3])
def test_a_wrong_label_is_not_believed_because_its_class_is_small(wrongly):
    case = label_cases.small_classes((1, 2, 3), wrongly=wrongly, seed=1)
    confidence = by_table(case).confidence.numpy()
    assert confidence[~case.right].max() < 0.05
    assert confidence[case.marked].min() > 0.9


@pytest.mark.parametrize("judge", [by_features, by_table])
@pytest.mark.parametrize("jitter", [0.0, 1e-3, 0.03])
@pytest.mark.parametrize("count", [2, 5, 20, 21, 60])
def test_copies_of_a_picture_do_not_confirm_each_other(count, jitter, judge):
    wrong = label_cases.copies(count, jitter=jitter, rows=500, noise=0.1, spread=0.6, seed=1)
    beliefs = judge(wrong)
    confidence = beliefs.confidence.numpy()
    assert confidence[wrong.marked].max() < 0.2
    assert confidence[~wrong.marked & wrong.right].mean() > 0.9
    listed = {entry.example for entry in suspicious_labels(beliefs, wrong.labels, 1000)}
    assert set(np.flatnonzero(wrong.marked)) <= listed
    right = label_cases.copies(
        count, jitter=jitter, wrong=False, rows=500, noise=0.1, spread=0.6, seed=1
    )
    assert judge(right).confidence.numpy()[right.marked].min() > 0.9


@pytest.mark.parametrize("judge", [by_features, by_table])
@pytest.mark.parametrize("count", [4, 10, 30])
def test_of_copies_with_two_labels_the_others_tell_which_is_right(count, judge):
    case = label_cases.copies(count, half=True, seed=2)
    confidence = judge(case).confidence.numpy()
    assert confidence[case.marked & case.right].min() > 0.9
    assert confidence[case.marked & ~case.right].max() < 0.1


@pytest.mark.parametrize("judge", [by_features, by_table])
def test_copies_are_judged_as_the_picture_alone_would_be(judge):
    for seed in range(6):
        one, five = (label_cases.copies(n, noise=0.1, seed=seed) for n in (1, 5))
        alone, copied = (judge(case).confidence.numpy()[case.marked] for case in (one, five))
        assert np.ptp(copied) < 1e-9
        assert abs(copied[0] - alone[0]) < 0.3


def test_copies_that_a_table_knows_no_others_of_are_as_likely_right_as_wrong():
    case = label_cases.copies(21, noise=0.1, seed=8)
    assert by_table(case).confidence.numpy()[case.marked].tolist() == [0.5] * 21
    assert by_features(case).confidence.numpy()[case.marked].max() < 0.1


def test_copies_of_many_pictures():
    case = label_cases.copies(8, pictures=10, noise=0.2, seed=5)
    confidence = by_table(case).confidence.numpy()
    assert confidence[case.marked].max() < 0.2
    assert confidence[~case.marked & case.right].mean() > 0.9


def kept_shares(case, n, k, steps):
    """The share of the candidates of each class that was kept."""
    kept, seen = np.zeros(case.classes), np.zeros(case.classes)
    for step in range(steps):
        order = torch.randperm(len(case.labels), generator=derive_generator("order", step))[:n]
        candidates = Candidates(
            indices=order, features=case.features[order], labels=case.labels[order]
        )
        chosen = BatchCoherence()(candidates, k, generator=derive_generator("choose", step))
        seen += np.bincount(candidates.labels, minlength=case.classes)
        kept += np.bincount(candidates.labels[chosen.positions], minlength=case.classes)
    return kept / seen


@pytest.mark.parametrize("spread", [0.4, 0.7, 1.0])
def test_a_batch_of_clean_long_tailed_data_keeps_the_rarest_class(spread):
    case = label_cases.long_tailed(spread=spread, least=8)
    shares = kept_shares(case, 64, 32, 120)
    assert shares == pytest.approx(np.full(10, 0.5), abs=0.15)


NOTHING = label_cases.telling_nothing()


@pytest.mark.parametrize("name", NOTHING)
@pytest.mark.parametrize("judge", [by_features, by_table])
def test_what_tells_nothing_is_said_to(name, judge):
    case = NOTHING[name]
    beliefs = judge(case)
    assert beliefs.tells_nothing.startswith(f"the {name.split()[0]} tell nothing")
    assert np.isnan(beliefs.noise_rate)
    assert beliefs.confidence.tolist() == [1.0] * len(case.labels)
    assert np.array_equal(beliefs.believed.numpy(), case.labels)
    assert suspicious_labels(beliefs, case.labels) == []
    with pytest.warns(UserWarning, match=r"^coherence chooses at random: the (labels|features)"):
        assert label_confidence(case.features, case.labels).min() == 1.0


@pytest.mark.parametrize("name", NOTHING)
def test_a_batch_that_tells_nothing_is_chosen_from_evenly(name):
    case = NOTHING[name]
    features = torch.from_numpy(case.features).half()
    candidates = Candidates(indices=range(120), features=features, labels=case.labels)
    counts = np.zeros(120)
    for seed in range(60):
        kept = BatchCoherence()(candidates, 60, generator=derive_generator(seed)).positions
        counts[kept] += 1
    if "random" not in name and "order" not in name:  # by chance neighbors agree here and there
        assert counts.min() > 10


def test_constant_features_of_any_size_have_no_directions():
    """What centring leaves of them is rounding: it must not be taken for features."""
    for value in (0.1, 1e-30, 1e30, 3.0):
        features = torch.full((50, 7), value)
        candidates = Candidates(indices=range(50), features=features, labels=np.arange(50) % 3)
        scores = BatchCoherence()(candidates, 5, generator=derive_generator(0)).scores
        assert scores.tolist() == [1.0] * 50


def test_labels_of_any_type_are_judged_alike():
    case = label_cases.small_classes((3,), large=3, rows=30, noise=0.2, d=8)
    table = nearest_neighbors(case.features, 10)
    plain = label_beliefs(table.indices, table.similarities, case.labels, case.classes)
    names = np.array(["ant", "bee", "cat", "dog"])[case.labels]
    kinds = [
        case.labels.tolist(),
        case.labels.astype(np.uint8),
        case.labels.astype(np.float32),
        case.labels[:, None],
        torch.from_numpy(case.labels).short(),
        pandas.Series(case.labels),
        names.tolist(),
        pandas.Series(names),
    ]
    for labels in kinds:
        for near in (table.similarities, torch.from_numpy(table.similarities)):
            found = label_beliefs(table.indices.tolist(), near, labels)
            assert torch.equal(found.confidence, plain.confidence)
            assert torch.equal(found.believed, plain.believed)
            assert suspicious_labels(found, labels) == suspicious_labels(plain, case.labels)
    # Numbers with gaps ask for no room between them.
    gaps = label_beliefs(table.indices, table.similarities, case.labels * 10**9)
    assert torch.equal(gaps.confidence, plain.confidence)
    assert torch.equal(gaps.believed, plain.believed * 10**9)
    assert gaps.transition.shape == (0, 0)


def test_confidence_of_an_array_and_its_labels():
    case = label_cases.small_classes((3,), large=3, rows=30, noise=0.2, d=8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = label_confidence(case.features, case.labels)
        kinds = (torch.from_numpy(case.features), case.features.tolist())
        for features in kinds:
            assert np.array_equal(label_confidence(features, case.labels.tolist()), found)
    assert found[case.right].mean() > 0.9
    assert found[~case.right].mean() < 0.3
    with pytest.raises(InputError, match="none are given"):
        store_beliefs(case.features)
    with pytest.raises(InputError, match="93 rows of features but 3 labels"):
        store_beliefs(case.features, [0, 1, 2])


def test_batches_of_an_array_and_its_labels_judge_by_themselves():
    case = label_cases.copies(8, noise=0.2, spread=0.5, rows=300, seed=1)

    def batches(features, labels):
        return saln.SelectedBatches(
            features, labels=labels, selector=saln.Coherence(), batch_size=10,
            filter_ratio=0.5, seed=0,
        )  # fmt: skip

    kept = np.array([index for batch in batches(case.features, case.labels) for index in batch])
    assert (~case.right)[kept].mean() < 0.05
    assert not case.marked[kept].any()
    with pytest.warns(UserWarning, match="chooses at random: these features predict"):
        batches(np.ones((60, 4), dtype=np.float32), np.arange(60) % 3)


def test_many_classes_take_no_matrix_of_examples_and_classes(monkeypatch):
    """Each of 1,500 examples has the two others of its class as neighbors, and strangers."""
    n, classes = 1500, 500
    labels = np.arange(n) % classes
    indices = np.stack([(np.arange(n) + step) % n for step in (500, 1000, 1, 7, 20)], axis=1)
    similarities = np.tile([0.9, 0.9, 0.2, 0.2, 0.2], (n, 1))
    wrong = np.arange(n) < 60
    given = np.where(wrong, (labels + 3) % classes, labels)
    made = []
    for name in ("zeros", "empty", "ones", "full"):
        original = getattr(np, name)

        def record(shape, *arguments, original=original, **options):
            made.append(int(np.prod(shape)))
            return original(shape, *arguments, **options)

        monkeypatch.setattr(np, name, record)
    monkeypatch.setattr("saln.selection.neighbor_beliefs.MOST_CLASSES", 100)
    beliefs = label_beliefs(indices, similarities, given)
    assert max(made) < n * 20
    confidence = beliefs.confidence.numpy()
    assert confidence[wrong].mean() < 0.1
    assert confidence[~wrong].mean() > 0.9
    assert saln.label_beliefs is label_beliefs
