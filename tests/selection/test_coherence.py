from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import label_cases
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import dense_coherence

import saln
from saln.curation.select_settings import describe
from saln.errors import InputError
from saln.features.from_arrays import write_store
from saln.loading.saved_state import described
from saln.randomness import derive_generator, derive_seed
from saln.selection import Candidates, Coherence
from saln.selection.coherence import candidate_neighbors, judge_of
from saln.selection.neighbor_beliefs import (
    NeighborBeliefs,
    label_beliefs,
    store_beliefs,
    suspicious_labels,
)
from saln.selection.sampling import gumbel_top_k


def clusters(n=300, classes=3, d=8, spread=0.5, seed=0):
    """Features around one center a class, and the true labels."""
    random = np.random.Generator(np.random.PCG64(derive_seed("clusters", seed)))
    labels = np.arange(n) % classes
    centers = 2 * random.standard_normal((classes, d))
    features = centers[labels] + spread * random.standard_normal((n, d))
    return torch.from_numpy(features), torch.from_numpy(labels)


def with_flips(labels, share, classes, seed=0, to_next=False):
    random = np.random.Generator(np.random.PCG64(derive_seed("flips", seed)))
    noisy = labels.clone()
    rows = random.permutation(len(labels))[: round(share * len(labels))]
    shift = np.ones(len(rows)) if to_next else random.integers(1, classes, len(rows))
    noisy[rows] = (noisy[rows] + torch.from_numpy(shift).long()) % classes
    return noisy


def judge(features, labels, classes, k=15, **settings):
    return label_beliefs(*candidate_neighbors(features, k), labels, classes, **settings)


def assert_is_the_definitions(features, labels, k, shared_noise, calibrated):
    n = len(labels)
    indices, similarities = dense_coherence.neighbors(features, k)
    indices = indices.reshape(n, -1).astype(np.int64)
    similarities = similarities.reshape(n, -1)
    found = label_beliefs(
        indices, similarities, labels, shared_noise=shared_noise, calibrated=calibrated
    )
    if found.tells_nothing is not None:
        assert found.confidence.tolist() == [1.0] * n
        assert np.array_equal(found.believed.numpy(), labels)
        assert np.isnan(found.noise_rate)
        return
    present, numbered = np.unique(labels, return_inverse=True)
    posterior, transition, wrong, likely = dense_coherence.beliefs(
        indices, similarities, numbered, len(present), shared_noise, calibrated=calibrated
    )
    np.testing.assert_allclose(found.transition.numpy()[np.ix_(present, present)], transition)
    confidence = posterior[np.arange(n), numbered]
    np.testing.assert_allclose(found.confidence.numpy(), confidence, atol=1e-6)
    assert found.noise_rate == pytest.approx(wrong, abs=1e-9)
    believed = posterior[np.arange(n), np.searchsorted(present, found.believed.numpy())]
    np.testing.assert_allclose(believed, posterior[np.arange(n), likely], atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(1, 30),
    classes=st.integers(1, 4),
    d=st.integers(2, 4),
    k=st.integers(1, 6),
    shared_noise=st.sampled_from([0.0, 2.5]),
    calibrated=st.booleans(),
    follow=st.booleans(),
    seed=st.integers(0, 10_000),
)
def test_beliefs_are_those_of_the_definition(
    n, classes, d, k, shared_noise, calibrated, follow, seed
):
    random = np.random.Generator(np.random.PCG64(seed))
    # Small integers: ties between neighbors, equal rows and rows of no length occur.
    features = random.integers(0, 3, (n, d)).astype(np.float64)
    labels = random.integers(0, classes, n)
    if follow:  # labels that go with the features, and some that do not
        labels = np.where(labels == 0, 0, (features[:, 0] > 1) + (features[:, 1] > 1))
    assert_is_the_definitions(features, labels, k, shared_noise, calibrated)


def test_votes_that_are_equal_but_for_rounding():
    """Beliefs of other rounding than the oracle's broke this tie the other way."""
    random = np.random.Generator(np.random.PCG64(3011))
    features, labels = random.integers(0, 3, (13, 3)).astype(float), random.integers(0, 3, 13)
    assert_is_the_definitions(features, labels, 1, 2.5, False)


@pytest.mark.parametrize("calibrated", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_beliefs_about_small_classes_and_copies_are_those_of_the_definition(calibrated, seed):
    small = label_cases.small_classes((1, 2, 3), large=3, rows=20, noise=0.2, d=8, seed=seed)
    assert_is_the_definitions(small.features, small.labels, 10, 0.0, calibrated)
    copied = label_cases.copies(6, rows=60, classes=3, noise=0.1, d=8, seed=seed)
    assert_is_the_definitions(copied.features, copied.labels, 5, 0.0, calibrated)
    copied = label_cases.copies(14, half=True, rows=60, classes=3, d=8, seed=seed)
    assert_is_the_definitions(copied.features, copied.labels, 10, 1.0, calibrated)


def test_blocks_change_nothing(monkeypatch):
    features, labels = clusters()
    noisy = with_flips(labels, 0.3, 3)
    whole = judge(features, noisy, 3)
    monkeypatch.setattr("saln.selection.neighbor_votes.BLOCK_ROWS", 7)
    parts = judge(features, noisy, 3)
    assert torch.equal(whole.confidence, parts.confidence)
    assert torch.equal(whole.believed, parts.believed)


@pytest.mark.parametrize("to_next", [False, True])
def test_it_finds_wrong_labels_and_how_they_came_about(to_next):
    features, labels = clusters(n=900)
    noisy = with_flips(labels, 0.4, 3, to_next=to_next)
    found = judge(features, noisy, 3)
    wrong = noisy != labels
    assert float(found.confidence[wrong].mean()) < 0.1
    assert float(found.confidence[~wrong].mean()) > 0.9
    assert float((found.believed == labels).double().mean()) > 0.97
    assert found.noise_rate == pytest.approx(0.4, abs=0.1)
    following = found.transition[torch.arange(3), (torch.arange(3) + 1) % 3]
    assert float(following.mean()) == pytest.approx(0.4 if to_next else 0.2, abs=0.12)


def test_on_clean_labels_it_is_next_to_uniform():
    features, labels = clusters(spread=1.2)  # the classes overlap
    found = judge(features, labels, 3)
    assert found.noise_rate < 0.02
    assert float(found.confidence.median()) > 0.99
    assert float(found.confidence.mean()) > 0.93


def test_right_labels_are_kept_where_features_tell_classes_apart_badly():
    features, labels = clusters(n=1200, classes=6, d=8, spread=2.5)
    plain, found = (judge(features, labels, 6, calibrated=flag) for flag in (False, True))
    assert float(1 - plain.confidence.mean()) > 0.08  # of right labels
    assert found.noise_rate < plain.noise_rate
    assert float(1 - found.confidence.mean()) < 0.02
    assert int((found.believed != labels).sum()) < int((plain.believed != labels).sum()) / 2
    # None overtakes another.
    order = torch.argsort(plain.confidence)
    assert bool((found.confidence[order].diff() >= 0).all())


def test_doubt_that_the_noise_calls_for_stays():
    features, labels = clusters(n=900, spread=0.5)
    noisy = with_flips(labels, 0.4, 3)
    plain, found = (judge(features, noisy, 3, calibrated=flag) for flag in (False, True))
    wrong = noisy != labels
    assert float(found.confidence[wrong].mean()) < float(plain.confidence[wrong].mean()) + 0.05


def test_renaming_the_classes_renames_the_beliefs():
    features, labels = clusters()
    noisy = with_flips(labels, 0.3, 3)
    names = torch.tensor([2, 0, 1])
    plain, renamed = judge(features, noisy, 3), judge(features, names[noisy], 3)
    torch.testing.assert_close(plain.confidence, renamed.confidence)
    assert torch.equal(names[plain.believed], renamed.believed)
    torch.testing.assert_close(plain.transition, renamed.transition[names][:, names])


def test_suspicious_labels_come_worst_first():
    beliefs = NeighborBeliefs(
        confidence=torch.tensor([0.9, 0.1, 0.4, 0.02, 0.1]),
        believed=torch.tensor([0, 1, 2, 2, 2]),
        transition=torch.eye(3),
        noise_rate=0.0,
    )
    labels = torch.tensor([0, 0, 2, 1, 1])
    found = suspicious_labels(beliefs, labels, top=10)
    assert [tuple(entry[:3]) for entry in found] == [(3, 1, 2), (1, 0, 1), (4, 1, 2)]
    assert found[0].confidence == pytest.approx(0.02)
    assert suspicious_labels(beliefs, labels, top=1) == found[:1]
    with pytest.raises(InputError, match="top=0"):
        suspicious_labels(beliefs, labels, top=0)
    with pytest.raises(InputError, match="4 labels do not fit beliefs about 5"):
        suspicious_labels(beliefs, labels[:4])


@pytest.mark.parametrize("power", [1.0, 0.5, 3.0])
def test_kept_sets_have_the_law_of_draws_in_proportion(power):
    confidence = torch.tensor([0.9, 0.5, 0.05, 1.0, 0.3])
    law = dense_coherence.keep_probabilities(confidence.double().numpy() ** power, 2)
    candidates = Candidates(indices=torch.arange(5), label_confidence=confidence)
    generator = derive_generator("law")
    draws = 4000
    counts: dict[frozenset[int], int] = {}
    for _ in range(draws):
        chosen = Coherence(power=power)(candidates, 2, generator=generator)
        assert torch.equal(chosen.scores, confidence)  # what is believed, not its power
        kept = frozenset(chosen.positions.tolist())
        counts[kept] = counts.get(kept, 0) + 1
    assert set(counts) <= set(law)
    for kept, probability in law.items():
        deviation = 4 * (probability * (1 - probability) / draws) ** 0.5
        assert counts.get(kept, 0) / draws == pytest.approx(probability, abs=deviation + 1e-3)


def test_judge_and_power_change_nothing_where_they_are_the_defaults():
    confidence = torch.rand(200, generator=torch.Generator().manual_seed(0))
    candidates = Candidates(indices=torch.arange(200), label_confidence=confidence)
    law = confidence.double().log()
    expected = gumbel_top_k(law, 50, derive_generator(1))
    for selector in (Coherence("neighbors"), Coherence("labels", 1), Coherence(power=1)):
        found = selector(candidates, 50, generator=derive_generator(1)).positions
        assert torch.equal(found, expected)
    sharp, fourth = (
        each(candidates, 50, generator=derive_generator(1)).positions
        for each in (Coherence(), Coherence("neighbors", 4))
    )
    assert torch.equal(sharp, fourth)
    assert not torch.equal(sharp, expected)
    assert repr(Coherence()) == "Coherence(judge='labels', power=None)"
    # As positions and records of before hold it, when the neighbors were the default.
    before = Coherence("neighbors")
    assert described(before) == described(Coherence("neighbors", 1.0)) == "Coherence()"
    assert described(Coherence("labels", 4)) == "Coherence(judge='labels', power=4.0)"
    assert described(Coherence("labels", 1)) == "Coherence(judge='labels')"
    assert described(Coherence()) == "Coherence(judge='labels', power=None)"
    assert describe(before) == {"class": "saln.selection.coherence.Coherence"}
    assert describe(Coherence()) != describe(before) != describe(Coherence("neighbors", 2))


def test_a_derived_class_of_before_has_the_default_judge():
    class Derived(Coherence):
        def __init__(self, alpha):
            self.alpha = alpha

    class Calling(Coherence):
        def __init__(self, alpha):
            super().__init__()
            self.alpha = alpha

    for selector in (Derived(3), Calling(3)):
        assert judge_of(selector) == "labels"
        assert selector.sharpness == 4
        assert repr(selector) == f"{type(selector).__name__}(alpha=3)"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"judge": "judge"}, "judge='judge' is not allowed; give one of labels, neighbors"),
        ({"power": 0}, "power=0 is not allowed; give a number.*, above 0"),
        ({"power": float("inf")}, "power=inf is not allowed"),
        ({"power": "4x"}, "power='4x' is not allowed"),
    ],
)
def test_another_judge_and_powers_that_are_none_are_refused(values, message):
    with pytest.raises(InputError, match=message):
        Coherence(**values)


def test_a_label_that_cannot_be_right_is_kept_last():
    candidates = Candidates(
        indices=torch.arange(3), label_confidence=torch.tensor([0.0, 1e-9, 1.0])
    )
    generator = derive_generator(0)
    for _ in range(20):
        kept = Coherence(power=4)(candidates, 2, generator=generator).positions.tolist()
        assert sorted(kept) == [1, 2]
        kept = Coherence()(candidates, 2, generator=generator).positions.tolist()
        assert sorted(kept) == [1, 2]


def test_what_cannot_be_judged_is_refused():
    indices, similarities = torch.zeros(3, 2, dtype=torch.int64), torch.zeros(3, 2)
    labels = torch.tensor([0, 1, 2])
    with pytest.raises(InputError, match="do not fit 2 labels"):
        label_beliefs(indices, similarities, labels[:2], 3)
    with pytest.raises(InputError, match="labels from 0 to 2 do not fit 2 classes"):
        label_beliefs(indices, similarities, labels, 2)
    with pytest.raises(InputError, match=r"label of example 1 is 1\.5, which is no class"):
        label_beliefs(indices, similarities, labels * 1.5, 4)
    with pytest.raises(InputError, match="label of example 0 is -1; give 0 or more"):
        label_beliefs(indices, similarities, labels - 1, 3)
    with pytest.raises(InputError, match=r"labels \(3, 2\); give"):
        label_beliefs(indices, similarities, torch.eye(3)[:, :2], 3)
    with pytest.raises(InputError, match="indices are int64 from 0 to 3; give whole numbers"):
        label_beliefs(indices + 3 * torch.eye(3, 2).long(), similarities, labels, 3)
    with pytest.raises(InputError, match="similarities of example 2 are NaN"):
        label_beliefs(indices, torch.tensor([[0, 0], [0, 0], [0, float("nan")]]), labels, 3)
    with pytest.raises(InputError, match="shared_noise=-1"):
        label_beliefs(indices, similarities, labels, 3, shared_noise=-1)
    with pytest.raises(InputError, match="no labels to judge"):
        label_beliefs(indices[:0], similarities[:0], labels[:0], 3)
    negative = Candidates(indices=torch.arange(2), label_confidence=torch.tensor([1.0, -0.5]))
    with pytest.raises(InputError, match=r"candidate 1 is -0\.5"):
        Coherence()(negative, 1, generator=derive_generator(0))


def store_of(path, features, labels):
    return write_store(path, features.numpy(), labels.numpy())


def test_batches_of_a_store_avoid_its_wrong_labels(tmp_path):
    features, labels = clusters(n=300)
    noisy = with_flips(labels, 0.4, 3)
    store = store_of(tmp_path / "store", features, noisy)
    batches = saln.SelectedBatches(
        store, selector=saln.Coherence("neighbors"), batch_size=10, filter_ratio=0.8, seed=0
    )
    assert not list((tmp_path / "store").glob("neigh*"))  # judged in memory
    assert np.array_equal(
        batches.fields.rows["label_confidence"].array, store_beliefs(store).confidence.numpy()
    )
    kept = [index for batch in batches for index in batch]
    assert len(kept) == 60
    assert float((noisy != labels)[kept].double().mean()) < 0.08


def test_batches_without_a_store_need_the_confidence():
    with pytest.raises(InputError, match="Coherence requires label_confidence"):
        saln.SelectedBatches(50, selector=Coherence(), batch_size=4, filter_ratio=0.8, seed=0)
    with pytest.raises(InputError, match="50 examples but 49 label_confidence"):
        saln.SelectedBatches(
            50,
            selector=Coherence(),
            batch_size=4,
            filter_ratio=0.8,
            seed=0,
            label_confidence=np.ones(49),
        )
    given = np.zeros(50)
    given[::5] = 1.0
    batches = saln.SelectedBatches(
        50, selector=Coherence(), batch_size=4, filter_ratio=0.2, seed=0, label_confidence=given
    )
    order = [index for batch in batches for index in batch]
    assert len(order) == 40
    assert sum(index % 5 == 0 for index in order) == 10  # none of the believed is dropped
