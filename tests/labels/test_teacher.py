"""The features as a teacher: what the others say of each example, and targets made of it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from oracles.refitted_teacher import refitted_teacher

import saln
from saln.errors import InputError
from saln.labels.judge import judge_with_evidence


def example(n=120, classes=3, noise=0.0, d=6, seed=0, spread=1.0):
    random = np.random.default_rng(seed)
    truth = random.integers(0, classes, n)
    centers = 1.2 * random.normal(size=(classes, d))
    rows = centers[truth] + spread * random.normal(size=(n, d)) + 1
    wrong = random.random(n) < noise
    labels = np.where(wrong, (truth + random.integers(1, classes, n)) % classes, truth)
    return rows, labels, truth


@pytest.fixture(scope="module")
def noisy():
    rows, labels, truth = example(600, 5, 0.4, 10, spread=0.7)
    return saln.features_as_teacher(rows, labels), labels, truth


def test_the_others_say_what_a_fit_without_the_example_says():
    rows, labels, _ = example(60)
    found, outcome, _ = judge_with_evidence(rows, labels, seed=0)
    assert found.rounds == 0
    joint = outcome.judged.joint
    numbers = outcome.penalty, joint.scores, joint.votes, joint.levels.numpy()
    expected = refitted_teacher(rows, labels, 3, numbers, (found.neighbors, found.similarities))
    teacher = saln.features_as_teacher(rows, labels)
    np.testing.assert_allclose(teacher.leave_one_out.numpy(), expected, atol=2e-6)
    own = -np.log(expected[np.arange(60), labels])
    np.testing.assert_allclose(teacher.losses(labels), own, rtol=1e-4, atol=1e-5)
    believed = -np.log(expected[np.arange(60), teacher.believed])
    np.testing.assert_allclose(teacher.difficulty, believed.clip(max=3), rtol=1e-4, atol=1e-5)


def test_the_temperature_is_the_likeliest():
    rows, labels, _ = example(400, spread=1.5)
    logits = saln.features_as_teacher(rows, labels).leave_one_out.double().log()
    losses = {
        scale: float(torch.nn.functional.cross_entropy(scale * logits, torch.from_numpy(labels)))
        for scale in (0.5, 0.7, 1.0, 1.4, 2.0)
    }
    assert min(losses, key=losses.get) == 1.0


def test_a_label_says_next_to_nothing_of_its_own_example():
    rows, labels, _ = example(300, spread=0.6)
    before = saln.features_as_teacher(rows, labels)
    for row in range(5):
        changed = labels.copy()
        changed[row] = (changed[row] + 1) % 3
        after = saln.features_as_teacher(rows, changed)
        moved = (after.leave_one_out[row] - before.leave_one_out[row]).abs().max()
        assert moved < 0.02
        assert after.losses(changed)[row] > 1.0


def test_of_wrong_labels_the_right_class_is_told(noisy):
    teacher, labels, truth = noisy
    wrong = labels != truth
    for shares in (teacher.posterior, teacher.leave_one_out):
        torch.testing.assert_close(shares.sum(dim=1), torch.ones(600))
        assert (shares.argmax(dim=1).numpy() == truth)[wrong].mean() > 0.9
    assert (teacher.believed.numpy() == truth).mean() > 0.9
    agreed = (teacher.leave_one_out.argmax(dim=1).numpy() == labels).mean()
    assert teacher.accuracy == pytest.approx(agreed)
    assert teacher.difficulty.max() <= 3
    assert teacher.seconds == teacher.beliefs.seconds["total"] > 0


def test_targets_are_the_mixture_of_what_is_given_and_believed(noisy):
    teacher, labels, _ = noisy
    rows = torch.tensor([5, 0, 599, 5])
    given = torch.from_numpy(labels)[rows]
    found = teacher.targets(given, beliefs=0.5, features=0.2, rows=rows)
    expected = (
        0.3 * torch.eye(5)[given]
        + 0.5 * teacher.posterior[rows]
        + 0.2 * teacher.leave_one_out[rows]
    )
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected)
    assert torch.equal(teacher.targets(labels), torch.eye(5)[torch.from_numpy(labels)])
    whole = teacher.targets(labels, beliefs=0.7, features=0.3)
    torch.testing.assert_close(whole, 0.7 * teacher.posterior + 0.3 * teacher.leave_one_out)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beliefs": 0.8, "features": 0.3}, "together at most 1"),
        ({"features": -0.1}, "together at most 1"),
        ({"beliefs": math.nan}, "together at most 1"),
        ({"rows": [0, 600]}, "give 0 to 599"),
        ({"given": [0, 5], "rows": [0, 1]}, "class numbers from 0 to 4"),
        ({"given": [0.5, 1.0], "rows": [0, 1]}, "2 whole numbers"),
        ({"given": [0], "rows": [0, 1]}, "2 whole numbers"),
    ],
)
def test_what_is_no_target_is_refused(noisy, options, message):
    teacher, _, _ = noisy
    with pytest.raises(InputError, match=message):
        teacher.targets(**{"given": torch.tensor([0, 1]), "rows": [0, 1]} | options)


def test_columns_are_class_numbers_whatever_occurs():
    rows, labels, _ = example(120)
    plain = saln.features_as_teacher(rows, labels)
    gaps = np.array([1, 4, 6])
    teacher = saln.features_as_teacher(rows, gaps[labels], classes=9)
    assert (len(teacher), teacher.classes) == (120, 9)
    for name in ("posterior", "leave_one_out"):
        found = getattr(teacher, name)
        torch.testing.assert_close(found[:, gaps], getattr(plain, name))
        assert int((found.sum(dim=0) > 0).sum()) == 3
    assert set(teacher.believed.tolist()) <= {1, 4, 6}
    # A class that no other example has is as good as impossible, and its loss is a number.
    assert bool((teacher.losses(np.full(120, 8)) > 80).all())
    with pytest.raises(InputError, match="the highest label is 6; give 7 or more"):
        saln.features_as_teacher(rows, gaps[labels], classes=5)


def test_of_many_classes_the_likeliest_are_held_and_rows_still_sum_to_one():
    rows, labels, _ = example(700, 70, d=20, spread=0.5)
    teacher = saln.features_as_teacher(rows, labels)
    shares = teacher.leave_one_out
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(700), atol=1e-5, rtol=0)
    torch.testing.assert_close(teacher.posterior.sum(dim=1), torch.ones(700), atol=1e-5, rtol=0)
    last = np.full(700, 69)
    torch.testing.assert_close(
        teacher.losses(last), -shares[:, 69].double().clamp_min(1.2e-38).log(), atol=1e-6, rtol=1e-6
    )


def test_an_example_without_a_label_is_taught_by_the_others():
    rows, labels, _ = example(120)
    unlabeled = np.where(np.arange(120) < 6, -1, labels)
    found = saln.features_as_teacher(rows, unlabeled)
    assert not torch.isnan(found.posterior).any()
    torch.testing.assert_close(found.posterior[:6], found.leave_one_out[:6])
    with pytest.raises(InputError, match="labels are missing"):
        saln.features_as_teacher(rows)
