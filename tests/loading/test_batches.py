from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import saln
from saln.data.datasets import load_dataset
from saln.data.image_sources import ArrayImages
from saln.data.torch_datasets import TrainingView
from saln.data.transforms import DigitAugmentation
from saln.errors import DataError, InputError
from saln.loading.epoch_batches import LoadedBatches
from saln.loading.selected_batches import SelectedBatches
from saln.selection import JEST, SALN, InfoBatch, Selection, Selector, Uniform


class FirstOnes(Selector):
    """Keeps the first k candidates and remembers what it was shown."""

    requires = frozenset({"features", "labels"})

    def __init__(self):
        self.seen = []

    def choose(self, candidates, k, generator):
        self.seen.append(candidates)
        return Selection(torch.arange(k))


def sampler(length=50, selector=None, **changes):
    options = {"selector": selector or Uniform(), "batch_size": 4, "filter_ratio": 0.8, "seed": 0}
    return SelectedBatches(length, **(options | changes))


def test_an_epoch_names_k_of_every_n_candidates():
    batches = sampler()
    kept = list(batches)
    assert len(batches) == len(kept) == 50 // 20
    assert all(len(batch) == len(set(batch)) == 4 for batch in kept)
    assert all(isinstance(index, int) for index in kept[0])
    assert len({index for batch in kept for index in batch}) == 8  # none twice in an epoch


def test_keeping_everything_goes_through_everything_once():
    kept = list(sampler(filter_ratio=0.0))
    assert len(kept) == 12
    assert len({index for batch in kept for index in batch}) == 48


def test_epochs_differ_and_can_be_repeated():
    batches = sampler()
    first = list(batches)
    with pytest.warns(UserWarning, match="second iteration of epoch 0 begins.*call set_epoch"):
        assert list(batches) == first
    assert list(batches) == first  # said once
    batches.set_epoch(1)
    second = list(batches)
    assert second != first
    batches.set_epoch(0)
    assert list(batches) == first
    assert list(sampler(seed=1)) != first


def test_all_selectors_see_the_same_candidates_in_the_same_order():
    features = np.arange(100, dtype=np.float16).reshape(50, 2)
    labels = np.arange(50)
    shown = FirstOnes()
    batches = SelectedBatches(
        features, labels=labels, selector=shown, batch_size=4, filter_ratio=0.8, seed=0
    )
    list(batches)
    whole = list(sampler(batch_size=20, filter_ratio=0.0))
    for candidates, everything in zip(shown.seen, whole, strict=True):
        assert sorted(candidates.indices.tolist()) == sorted(everything)
        # Rows and labels are those of the indices.
        assert torch.equal(candidates.features[:, 0].long(), 2 * candidates.indices)
        assert torch.equal(candidates.labels, candidates.indices)


def test_features_decide_what_saln_keeps():
    random = np.random.Generator(np.random.PCG64(0))
    features = random.random((40, 6)).astype(np.float16)
    features[7] = 0
    features[7, 5], features[7, 0] = 1, 0.1  # hardly like the others
    features[:7, 5] = features[8:, 5] = 0
    batches = SelectedBatches(features, selector=SALN(), batch_size=4, filter_ratio=0.8, seed=0)
    holds = [7 in batch for batch in batches]
    assert sum(holds) == 1


def test_a_selector_that_needs_the_learner_is_refused_at_once():
    with pytest.raises(InputError, match=r"JEST requires learner_outputs.*LearnerSelected"):
        sampler(selector=JEST())


def test_missing_features_are_refused_at_once():
    with pytest.raises(InputError, match="SALN requires features"):
        sampler(selector=SALN())


def test_lengths_must_agree():
    with pytest.raises(InputError, match="50 examples but 49 labels"):
        sampler(labels=np.zeros(49, dtype=np.int64))


def test_a_batch_larger_than_the_data_is_refused():
    with pytest.raises(InputError, match="needs 60 candidates, but there are 50"):
        sampler(batch_size=12)


class Remembers(Selector):
    """Weighs each example by its index and remembers what it is told."""

    observes_losses = True

    def __init__(self):
        self.epochs, self.told = [], []

    def begin_epoch(self, epoch):
        self.epochs.append(epoch)

    def observe(self, indices, losses):
        self.told.append((indices.tolist(), losses.tolist()))

    def choose(self, candidates, k, generator):
        return Selection(torch.arange(k), weights=candidates.indices[:k].double() / 7)


@pytest.mark.filterwarnings("ignore:Remembers chooses by the losses:UserWarning")
def test_an_epoch_begins_once_before_its_first_choice():
    selector = Remembers()
    batches = sampler(selector=selector)
    for epoch in (1, 2):
        batches.set_epoch(epoch)
        assert len(list(batches)) == 2
    assert selector.epochs == [1, 2]


@pytest.mark.filterwarnings("ignore:Remembers chooses by the losses:UserWarning")
@pytest.mark.parametrize("workers", [0, 2])
def test_loss_weights_travel_with_their_examples(workers):
    data = load_dataset("digits", limit=200)
    view = TrainingView(data.train, DigitAugmentation(8), seed=0)
    batches = LoadedBatches(view, sampler(len(view), Remembers()), workers=workers)
    for epoch in (1, 2):
        batches.set_epoch(epoch)
        for batch in batches:
            torch.testing.assert_close(batch.weights, batch.indices.float() / 7)
    plain = LoadedBatches(view, sampler(len(view)), workers=0)
    assert all(batch.weights is None for batch in plain)


@pytest.mark.parametrize("workers", [0, 2])
def test_targets_are_those_of_the_examples_of_a_batch(workers):
    """The mixture in float64, looked up by the index that each example carries."""
    random = np.random.default_rng(0)
    labels = np.arange(200) % 3
    rows = 3 * np.eye(3)[labels] + random.standard_normal((200, 3))
    given = np.where(np.arange(200) % 5 == 0, (labels + 1) % 3, labels)
    teacher = saln.features_as_teacher(rows, given)
    batches = sampler(200, teacher=teacher)
    dataset = TensorDataset(torch.from_numpy(given), torch.arange(200))
    seen = 0
    for some, indices in DataLoader(
        dataset, batch_sampler=batches, num_workers=workers, generator=batches.generator
    ):
        found = batches.targets_of(indices, some, beliefs=0.5, features=0.2)
        own, others = teacher.posterior[indices], teacher.leave_one_out[indices]
        expected = 0.3 * torch.eye(3).double()[some] + 0.5 * own.double() + 0.2 * others.double()
        torch.testing.assert_close(found, expected.float())
        assert found.dtype == torch.float32
        seen += len(indices)
    assert seen == len(batches) * batches.batch_size
    with pytest.raises(InputError, match=r"beliefs=0\.9 and features=0\.2 are not allowed"):
        batches.targets_of(indices, some, beliefs=0.9, features=0.2)
    with pytest.raises(InputError, match=r"asks a teacher; make the batches with teacher=saln\."):
        sampler(200).targets_of(indices, some, beliefs=1.0)
    with pytest.raises(InputError, match=r"300 .*200 examples that the teacher knows"):
        sampler(300, teacher=teacher)


def test_targets_are_those_of_the_teacher_that_the_selector_made_necessary():
    labels = np.arange(200) % 3
    rows = 3 * np.eye(3)[labels] + np.random.default_rng(0).standard_normal((200, 3))
    options = {"batch_size": 10, "filter_ratio": 0.5, "seed": 0}
    options |= {"labels": labels}
    batches = saln.SelectedBatches(rows, selector=saln.Curriculum(epochs=2), **options)
    indices = torch.tensor([7, 0, 199])
    expected = saln.features_as_teacher(rows, labels).posterior[indices]
    found = batches.targets_of(indices, labels[indices], beliefs=1.0)
    torch.testing.assert_close(found, expected)
    # Nothing is judged for a selector that asks no teacher.
    plain = saln.SelectedBatches(rows, selector="uniform", **options)
    with pytest.raises(InputError, match="asks a teacher"):
        plain.targets_of(indices, labels[indices], beliefs=1.0)


@pytest.mark.parametrize("name", ["curriculum", "balanced-curriculum"])
def test_an_order_over_a_run_of_unknown_length_says_so(name):
    teacher = saln.features_as_teacher(np.eye(3)[np.arange(60) % 3], np.arange(60) % 3)
    with pytest.warns(UserWarning, match=r"does not know how many .*; give \w+\(epochs=") as seen:
        batches = sampler(60, name, teacher=teacher)
    assert [Path(each.filename) for each in seen] == [Path(__file__)]
    for epoch in (1, 2):  # once, not in every epoch
        batches.set_epoch(epoch)
        assert len(list(batches)) == 3
    for planned in ("strength=0", "epochs=2"):
        sampler(60, f"{name}:{planned}", teacher=teacher)


def test_losses_reach_the_selector_that_asks_for_them():
    selector = Remembers()
    data = load_dataset("digits", limit=200)
    view = TrainingView(data.train, DigitAugmentation(8), seed=0)
    batches = LoadedBatches(view, sampler(len(view), selector))
    batches.observe(torch.tensor([3, 1]), torch.tensor([0.5, 2.0]))
    assert selector.told == [([3, 1], [0.5, 2.0])]
    selector.observes_losses = False
    batches.observe(torch.tensor([3]), torch.tensor([0.5]))
    assert len(selector.told) == 1


def test_infobatch_prunes_what_training_reported_as_easy():
    """Through a sampler: told in epoch 1 that low indices are easy, it keeps fewer of them."""
    batches = sampler(1_000, InfoBatch(prune_ratio=0.9), batch_size=20)
    batches.set_epoch(1)
    kept = [index for batch in batches for index in batch]
    batches.observe(torch.arange(1_000), (torch.arange(1_000) >= 500).float())
    assert sum(index < 500 for index in kept) / len(kept) == pytest.approx(0.5, abs=0.1)
    batches.set_epoch(2)
    kept = [index for batch in batches for index in batch]
    assert sum(index < 500 for index in kept) / len(kept) == pytest.approx(1 / 11, abs=0.05)
    weights = batches.weights_of(torch.tensor(kept))
    easy = torch.tensor(kept) < 500
    assert float(weights[easy].mean() / weights[~easy].mean()) == pytest.approx(10, rel=0.2)


class Counting(ArrayImages):
    """Counts how often each image is opened."""

    opened: list[int] = []  # noqa: RUF012

    def load(self, row):
        Counting.opened.append(row)
        return super().load(row)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_dropped_image_is_never_opened(workers):
    data = load_dataset("digits", limit=200)
    source = Counting(data.train.images.pixels)
    train = type(data.train)(source, data.train.rows, data.train.labels, data.train.true_labels)
    view = TrainingView(train, DigitAugmentation(8), seed=0)
    batches = LoadedBatches(view, sampler(len(train)), workers=workers)
    batches.set_epoch(1)
    Counting.opened = []
    loaded = list(batches)
    kept = [int(index) for batch in loaded for index in batch.indices]
    assert len(kept) == 4 * len(batches)
    if workers == 0:  # other processes count for themselves
        assert Counting.opened == train.rows[kept].tolist()
    for batch in loaded:
        assert torch.equal(batch.labels, torch.from_numpy(train.labels[batch.indices.numpy()]))


def test_the_number_of_workers_changes_nothing():
    data = load_dataset("digits", limit=200)
    loaded = []
    for workers in (0, 2):
        view = TrainingView(data.train, DigitAugmentation(8), seed=0)
        batches = LoadedBatches(view, sampler(len(view)), workers=workers)
        epochs = []
        for epoch in (1, 2):  # persistent workers must see the second epoch too
            batches.set_epoch(epoch)
            epochs += list(batches)
        loaded.append(epochs)
    for alone, together in zip(*loaded, strict=True):
        assert torch.equal(alone.images, together.images)
        assert torch.equal(alone.indices, together.indices)


def test_a_broken_image_stops_the_epoch_with_its_name(image_folder):
    data = load_dataset(f"folder:{image_folder}")
    for path in data.train.images.paths:
        path.write_bytes(b"no image")
    view = TrainingView(data.train, DigitAugmentation(8), seed=0)
    batches = LoadedBatches(view, sampler(len(view), filter_ratio=0.0))
    with pytest.raises(DataError, match=r"\.png cannot be read as an image"):
        list(batches)
