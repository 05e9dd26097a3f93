from __future__ import annotations

import numpy as np
import pytest
import torch
from oracles import dense_coherence

from saln.errors import InputError
from saln.randomness import derive_generator, derive_seed
from saln.selection import BatchCoherence, Candidates
from saln.selection.coherence import candidate_neighbors


def draw(n=40, classes=3, seed=0):
    random = np.random.Generator(np.random.PCG64(derive_seed("batch", seed)))
    labels = random.integers(0, classes, n)
    features = 2 * np.eye(6)[labels] + random.random((n, 6))
    return torch.from_numpy(features), torch.from_numpy(labels)


@pytest.mark.parametrize("n", [1, 2, 9, 40])
def test_scores_are_those_of_the_definition(n):
    features, labels = draw(n)
    labels = labels * 5 + 2  # numbers with gaps: the classes that are there count
    candidates = Candidates(indices=torch.arange(n), features=features, labels=labels)
    selection = BatchCoherence()(candidates, 1, generator=derive_generator(0))
    indices, similarities = dense_coherence.neighbors(features.numpy(), 10)
    present, numbered = np.unique(labels.numpy(), return_inverse=True)
    posterior, _, _, _ = dense_coherence.beliefs(
        indices.reshape(n, -1).astype(int),
        similarities.reshape(n, -1),
        numbered,
        len(present),
        shared_noise=5.0,
        calibrated=False,
    )
    np.testing.assert_allclose(
        selection.scores.numpy(), posterior[np.arange(n), numbered], atol=1e-5
    )


def test_neighbors_are_those_of_the_definition():
    features, _ = draw(30)
    found, values = candidate_neighbors(features, 7)
    indices, similarities = dense_coherence.neighbors(features.numpy(), 7)
    assert np.array_equal(found.numpy(), indices)
    np.testing.assert_allclose(values.numpy(), similarities, atol=1e-8)


def test_it_avoids_wrong_labels():
    features, labels = draw(200)
    noisy = labels.clone()
    noisy[::3] = (noisy[::3] + 1) % 3
    candidates = Candidates(indices=torch.arange(200), features=features, labels=noisy)
    kept = BatchCoherence()(candidates, 60, generator=derive_generator(1)).positions
    assert int((kept % 3 == 0).sum()) <= 6  # 20 at random


def test_neighbors_below_one_are_refused():
    with pytest.raises(InputError, match="neighbors=0"):
        BatchCoherence(neighbors=0)
