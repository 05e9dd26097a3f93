"""The joint's gradient is that of its loss, by differences; and what it is the loss of."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from saln.labels.evidence import Evidence
from saln.labels.joint_fit import Joint, JointLoss, link


@pytest.mark.parametrize("left", [0, 5])
@pytest.mark.parametrize("votes", [True, False])
def test_the_gradient_of_the_joint_is_that_of_its_loss(left, votes):
    random = np.random.default_rng(0)
    n, held, classes = 40, 4, 4 + left
    which = np.sort(random.permuted(np.tile(np.arange(classes), (n, 1)), axis=1)[:, :held])
    evidence = Evidence(
        np.arange(n),
        which,
        random.normal(size=(n, held)).astype(np.float32),
        random.normal(size=(n, held)).astype(np.float32) if votes else None,
        left,
        random.random(n).astype(np.float32),
        random.random(n).astype(np.float32),
        -3.0,
    )
    voices, noise = random.random(n), random.random((n, held))
    place = np.concatenate([[0.7, -0.3], random.normal(size=classes)])
    both = JointLoss(evidence, voices).under(noise, 0.01)
    loss, gradient = (found.numpy() for found in both(torch.from_numpy(place)))
    t, b = np.exp(place[:2])
    joined, beside = Joint(t, b, torch.from_numpy(place[2:])).probabilities(evidence)
    counts = voices / voices.sum()
    prior = ((place[2:] ** 2).sum() / 2 + (place[:2] ** 2).sum() / 1e3) / n
    found = (joined * noise).sum(axis=1) + beside * 0.01
    assert loss == pytest.approx(prior - counts @ np.log(found), abs=1e-12)
    # By its definition, with the classes left out where they are few enough to be looked up.
    logits = t * link(torch.from_numpy(evidence.scores).double()).numpy() + place[2:][which]
    logits += b * evidence.votes if votes else 0.0
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(joined / joined.sum(axis=1, keepdims=True), shares, atol=1e-12)
    steps = 1e-6 * np.eye(len(place))
    ends = [[float(both(torch.from_numpy(place + s))[0]) for s in (-step, step)] for step in steps]
    slopes = [(after - before) / 2e-6 for before, after in ends]
    np.testing.assert_allclose(gradient, slopes, atol=1e-8)
