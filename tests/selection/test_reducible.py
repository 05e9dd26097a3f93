from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from helpers.feature_examples import Pictures, extract
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.exhaustive_reducible import best_set, up_to_date

import saln
from saln.errors import InputError
from saln.features import nearest_neighbors
from saln.randomness import derive_generator
from saln.selection import SELECTORS, Candidates

Reducible = SELECTORS["reducible"]


def kept_by(selector, teacher, k, **fields):
    candidates = Candidates(
        indices=torch.arange(len(teacher)), teacher_losses=torch.as_tensor(teacher), **fields
    )
    found = selector(candidates, k, generator=derive_generator("reducible"))
    return frozenset(found.positions.tolist())


@settings(deadline=None)
@given(n=st.integers(1, 9), data=st.data(), seed=st.integers(0, 10_000))
def test_the_best_set_of_all(n, data, seed):
    k = data.draw(st.integers(1, n))
    learner, teacher = torch.rand(2, n, generator=derive_generator("losses", seed))
    selector = Reducible()
    selector.begin_epoch(1)
    selector.observe(torch.arange(n), learner)
    selector.begin_epoch(2)
    assert kept_by(selector, teacher, k) == best_set(learner.tolist(), teacher.tolist(), k)


def test_before_anything_was_trained_the_teacher_decides():
    assert kept_by(Reducible(), [2.0, 0.5, 1.0, 0.1], 2) == {1, 3}


def test_classes_are_balanced_on_request():
    selector = Reducible(balance=1.0)
    believed = torch.tensor([4, 4, 1, 1])
    assert kept_by(selector, [0.1, 0.2, 2.0, 3.0], 2, believed=believed) == {0, 2}


def test_what_the_features_lose_on_a_given_label_comes_with_the_candidates():
    """The user's path: wrong labels, which the learner has not fitted either, are left out."""
    random = np.random.default_rng(0)
    truth = np.arange(1200) % 3
    rows = np.eye(3, 6)[truth] + 0.15 * random.normal(size=(1200, 6))
    wrong = random.random(1200) < 0.2
    labels = np.where(wrong, (truth + 1) % 3, truth)
    batches = saln.SelectedBatches(
        rows, labels=labels, selector="reducible", batch_size=10, filter_ratio=0.8, seed=0
    )
    batches.set_epoch(1)
    batches.observe(torch.arange(1200), torch.from_numpy(np.where(wrong, 2.0, 0.5)))
    batches.set_epoch(2)
    kept = [row for batch in batches for row in batch]
    assert wrong[kept].mean() < 0.02
    teacher = saln.features_as_teacher(rows, labels)
    assert torch.equal(teacher.losses(), teacher.losses(labels))


@settings(deadline=None)
@given(data=st.data(), smoothing=st.sampled_from([0.1, 0.5, 0.9, 1.0]), seed=st.integers(0, 10_000))
def test_old_losses_are_brought_up_to_date_by_fresher_neighbors(data, smoothing, seed):
    n, epochs = data.draw(st.integers(2, 8)), data.draw(st.integers(1, 5))
    generator = derive_generator("smoothing", seed)
    selector = Reducible(smoothing=smoothing)
    losses, ages = [math.nan] * n, [math.inf] * n
    for epoch in range(3, 3 + epochs):  # any number may be the first
        selector.begin_epoch(epoch)
        trained = (torch.rand(n, generator=generator) < 0.3).nonzero()[:, 0]
        fresh = torch.rand(len(trained), generator=generator)
        selector.observe(trained, fresh)
        ages = [age + 1 for age in ages]
        for index, loss in zip(trained.tolist(), fresh.tolist(), strict=True):
            losses[index], ages[index] = loss, 0
    selector.begin_epoch(3 + epochs)
    highest = max((loss for loss in losses if not math.isnan(loss)), default=1.0)
    known = [highest if math.isnan(loss) else loss for loss in losses]
    near = torch.randint(0, n, (n, 3), generator=generator)
    teacher = torch.rand(n, generator=generator)
    candidates = Candidates(indices=torch.arange(n), teacher_losses=teacher, neighbors=near)
    found = selector(candidates, 1, generator=generator)
    expected = np.array(up_to_date(known, ages, near.tolist(), smoothing)) - teacher.numpy()
    np.testing.assert_allclose(found.scores, expected, rtol=1e-6, atol=1e-6)
    assert int(found.positions) == int(torch.argmax(found.scores))


def test_a_loss_so_old_that_its_power_is_0_still_has_fresher_neighbors():
    selector = Reducible(smoothing=0.9)
    selector.begin_epoch(0)
    selector.observe(torch.tensor([1, 2]), torch.tensor([0.5, 3.0]))
    selector.begin_epoch(2_000)
    near = torch.tensor([[1], [2], [1]])
    candidates = Candidates(indices=torch.arange(3), teacher_losses=torch.zeros(3), neighbors=near)
    found = selector(candidates, 2, generator=derive_generator("old"))
    assert found.scores.tolist() == [0.5, 0.5, 3.0]


def test_a_loss_that_is_not_finite_counts_as_never_trained():
    selector = Reducible(smoothing=0.5)
    selector.begin_epoch(1)
    selector.observe(torch.arange(3), torch.tensor([math.nan, 2.0, 4.0]))
    selector.begin_epoch(2)
    near = torch.tensor([[1, 2], [0, 2], [0, 1]])
    candidates = Candidates(indices=torch.arange(3), teacher_losses=torch.zeros(3), neighbors=near)
    found = selector(candidates, 1, generator=derive_generator("unknown"))
    assert found.scores.tolist() == [3.0, 2.0, 4.0]


def test_without_smoothing_neighbors_are_neither_asked_nor_named():
    assert "neighbors" not in Reducible().requires
    assert Reducible()._stored() == "Reducible(balance=0.0)"
    assert Reducible(smoothing=0.2)._stored() == "Reducible(balance=0.0, smoothing=0.2)"
    with pytest.raises(InputError, match="saved by another selector"):
        Reducible(smoothing=0.2).load_state_dict(Reducible().state_dict())
    with pytest.raises(InputError, match="saved by another selector"):
        Reducible().load_state_dict(Reducible(smoothing=0.2).state_dict())


@pytest.mark.parametrize("source", ["array", "whole numbers", "store", "table"])
def test_neighbors_come_with_the_candidates(source, tmp_path):
    random = np.random.default_rng(1)
    labels = np.arange(60) % 3
    rows = (8 * np.eye(3, 5)[labels] + random.normal(size=(60, 5))).round().astype(np.float32)
    features, more = rows, {}
    if source == "whole numbers":
        features = rows.astype(np.int64)
    elif source == "table":
        more["neighbors"] = nearest_neighbors(rows, 4)
    elif source == "store":
        features = saln.write_store(tmp_path / "store", rows, labels)
    batches = saln.SelectedBatches(
        features, labels=labels, selector="reducible(smoothing=0.5)", batch_size=4,
        filter_ratio=0.5, seed=0, **more,
    )  # fmt: skip
    found = batches.fields.candidates(torch.arange(60)).neighbors
    expected = nearest_neighbors(rows, 4 if source == "table" else 20).indices
    assert torch.equal(found, torch.from_numpy(expected).long())
    assert all(len(batch) == 4 for batch in batches)
    with pytest.raises(InputError, match="neighbors='ndarray' is not allowed; give what saln"):
        saln.SelectedBatches(
            rows, labels=labels, selector="reducible(smoothing=0.5)", batch_size=4,
            filter_ratio=0.5, seed=0, neighbors=expected,
        )  # fmt: skip


@pytest.mark.filterwarnings("ignore:the teacher knows little")  # the pictures are noise
def test_what_a_store_skipped_is_nobodys_neighbor(tmp_path):
    def read(index):
        if index in (5, 20):
            raise OSError("cut short")

    store = extract(tmp_path, Pictures(read=read), unreadable="skip")
    batches = saln.SelectedBatches(
        store, labels=np.arange(len(store)) % 3, selector="reducible(smoothing=0.5)",
        batch_size=4, filter_ratio=0.5, seed=0,
    )  # fmt: skip
    readable = torch.from_numpy(store.readable)
    found = batches.fields.candidates(readable).neighbors
    expected = nearest_neighbors(np.array(store.features)[store.readable]).indices
    assert torch.equal(found, readable[torch.from_numpy(expected).long()])
