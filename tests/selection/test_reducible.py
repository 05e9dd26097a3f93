from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.exhaustive_reducible import best_set

import saln
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
