"""Losses against their formulas, in float64 and by loops over examples and classes."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import cross_entropy, one_hot
from torch.testing import assert_close

from saln.randomness import derive_generator
from saln.training.losses import GIVEN_LABELS, Objective, generalized_cross_entropy

GENERATOR = derive_generator("losses")
OUTPUTS = 3 * torch.randn(7, 5, generator=GENERATOR, dtype=torch.float64)
LABELS = torch.randint(0, 5, (7,), generator=GENERATOR)
SHARES = torch.rand(20, 5, generator=GENERATOR, dtype=torch.float64)
SHARES /= SHARES.sum(dim=1, keepdim=True)
WHERE = torch.tensor([3, 0, 19, 7, 8, 2, 11])


def by_hand(outputs, rows, loss):
    """The loss of each example: by class, weighed by the shares in ``rows``."""
    found = []
    for logits, shares in zip(outputs.tolist(), rows.tolist(), strict=True):
        total = sum(math.exp(each) for each in logits)
        each_class = [loss(math.exp(each) / total) for each in logits]
        found.append(sum(s * one for s, one in zip(shares, each_class, strict=True)))
    return torch.tensor(found, dtype=torch.float64)


@pytest.mark.parametrize("q", [1e-3, 0.3, 0.7, 1.0])
def test_generalized_cross_entropy_is_its_formula(q):
    def loss(p):
        return (1 - p**q) / q

    expected = by_hand(OUTPUTS, one_hot(LABELS, 5), loss)
    assert_close(generalized_cross_entropy(OUTPUTS, LABELS, q), expected)
    assert_close(
        generalized_cross_entropy(OUTPUTS, SHARES[WHERE], q), by_hand(OUTPUTS, SHARES[WHERE], loss)
    )


def test_the_limits_are_cross_entropy_and_half_the_absolute_error():
    """Also of their gradients, and in float32, where 1 - p ** q alone has no digits left."""
    logits = OUTPUTS.float().requires_grad_()
    near = generalized_cross_entropy(logits, LABELS, 1e-6)
    usual = cross_entropy(logits, LABELS, reduction="none")
    assert_close(near, usual, rtol=1e-4, atol=1e-5)
    gradients = [torch.autograd.grad(loss.sum(), logits)[0] for loss in (near, usual)]
    assert_close(*gradients, rtol=1e-4, atol=1e-5)
    errors = (OUTPUTS.softmax(dim=1) - one_hot(LABELS, 5)).abs().sum(dim=1)
    assert_close(generalized_cross_entropy(OUTPUTS, LABELS, 1.0), errors / 2)


def test_without_anything_it_is_cross_entropy_to_the_last_bit():
    outputs = OUTPUTS.float()
    expected = cross_entropy(outputs, LABELS, reduction="none")
    assert torch.equal(GIVEN_LABELS(outputs, LABELS, WHERE), expected)


@pytest.mark.parametrize("share", [0.1, 1.0])
def test_smoothing_is_that_of_torch_for_labels_and_for_shares(share):
    rows = one_hot(LABELS, 5).double()
    for targets in (None, lambda labels, indices: rows):
        found = Objective(targets=targets, smoothing=share)(OUTPUTS, LABELS, WHERE)
        expected = cross_entropy(OUTPUTS, LABELS, reduction="none", label_smoothing=share)
        assert_close(found, expected)


def test_shares_take_the_place_of_the_given_labels():
    def targets(labels, indices):
        assert torch.equal(labels, LABELS)
        return SHARES[indices].float()

    expected = by_hand(OUTPUTS, SHARES[WHERE], lambda p: -math.log(p))
    assert_close(Objective(targets)(OUTPUTS, LABELS, WHERE), expected, rtol=1e-6, atol=1e-6)


def test_targets_smoothing_and_loss_are_combined():
    mixed = 0.8 * SHARES[WHERE] + 0.2 / 5
    expected = by_hand(OUTPUTS, mixed, lambda p: (1 - p**0.5) / 0.5)
    objective = Objective(lambda labels, indices: SHARES[indices], smoothing=0.2, q=0.5)
    assert_close(objective(OUTPUTS, LABELS, WHERE), expected)
    hard = Objective(lambda labels, indices: (labels + 1) % 5, smoothing=0.2, q=0.5)
    rows = 0.8 * one_hot((LABELS + 1) % 5, 5).double() + 0.2 / 5
    assert_close(
        hard(OUTPUTS, LABELS, WHERE),
        by_hand(OUTPUTS, rows, lambda p: (1 - p**0.5) / 0.5),
        rtol=1e-6,
        atol=1e-6,
    )
