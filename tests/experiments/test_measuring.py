"""What learners are measured on: read once where it is small, with the labels of the seed."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from saln.data.datasets import load_dataset
from saln.data.torch_datasets import EvaluationView
from saln.data.transforms import EvaluationTransform, Normalization
from saln.experiments import evaluation as measuring
from saln.experiments.evaluation import Measuring
from saln.training.processes import ALONE


class Counted(EvaluationView):
    """Counts the images that are read."""

    read = 0

    def __getitem__(self, index):
        Counted.read += 1
        return super().__getitem__(index)


@pytest.fixture
def data():
    return load_dataset("digits", limit=200)


@pytest.fixture
def found(data):
    Counted.read = 0
    transform = EvaluationTransform(16, Normalization((0.5,) * 3, (0.5,) * 3))
    return Measuring(lambda part: Counted(part, transform), 0, torch.device("cpu"), 0, ALONE)


@pytest.fixture
def learner():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 16 * 16, 10))


@pytest.mark.parametrize("kept", [True, False])
def test_small_splits_are_read_once(data, found, learner, kept, monkeypatch):
    if not kept:
        monkeypatch.setattr(measuring, "KEPT_BYTES", 40 * 3 * 16 * 16 * 4)  # 40 images
    splits = found.splits(data)
    images = sum(len(part) for part in splits.values())
    small = images if kept else sum(len(p) for p in splits.values() if len(p) <= 40)
    assert small > 0
    first = found.measure(learner, splits, None)
    assert Counted.read == images
    assert found.measure(learner, splits, None) == first
    assert Counted.read == images + (images - small)


def test_the_labels_are_those_of_now(data, found, learner):
    splits = found.splits(data)
    first = found.measure(learner, splits, None)
    part = splits["train"]
    with torch.no_grad():
        view = found.view(part)
        images = torch.stack([view[index][0] for index in range(len(part))])
        answers = learner(images).argmax(dim=1).numpy()
    assert first["train"].accuracy == pytest.approx((answers == part.labels).mean())
    other = dataclasses.replace(part, labels=np.where(np.arange(len(part)) < 50, answers, 0))
    again = found.measure(learner, {**splits, "train": other}, None)
    assert again["train"].accuracy == pytest.approx((answers == other.labels).mean())
    assert again["test"] == first["test"]


def test_other_rows_are_read(data, found, learner):
    splits = found.splits(data)
    found.measure(learner, splits, None)
    before = Counted.read
    fewer = {"test": splits["test"].part(np.arange(10))}
    ten = found.measure(learner, fewer, None)
    assert Counted.read == before + 10
    assert found.measure(learner, fewer, None) == ten
    assert Counted.read == before + 10
