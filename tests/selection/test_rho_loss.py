from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.exhaustive_rho_loss import best_set

from saln.randomness import derive_generator
from saln.selection import Candidates, RHOLoss


def kept(learner, reference, k):
    candidates = Candidates(
        indices=torch.arange(len(learner)), learner_losses=learner, reference_losses=reference
    )
    return RHOLoss()(candidates, k, generator=derive_generator("unused"))


@settings(deadline=None)
@given(n=st.integers(1, 10), data=st.data(), seed=st.integers(0, 10_000))
def test_the_best_set_of_all(n, data, seed):
    k = data.draw(st.integers(1, n))
    generator = derive_generator("rho", seed)
    learner, reference = torch.rand(2, n, generator=generator, dtype=torch.float64) * 5
    found = kept(learner, reference, k).positions
    assert frozenset(found.tolist()) == best_set(learner.tolist(), reference.tolist(), k)


def test_noise_and_what_is_learned_stay_out():
    learner = torch.tensor([8.0, 0.1, 3.0, 8.0])
    reference = torch.tensor([7.9, 0.1, 0.2, 9.0])
    selection = kept(learner, reference, 1)
    assert selection.positions.tolist() == [2]
    torch.testing.assert_close(selection.scores, torch.tensor([0.1, 0.0, 2.8, -1.0]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_losses_are_subtracted_in_single(dtype):
    learner, reference = torch.tensor([60000.0, 1.0]), torch.tensor([-60000.0, 0.0])
    assert torch.isfinite(kept(learner.to(dtype), reference.to(dtype), 1).scores).all()


def test_equal_scores_go_to_the_lower_position():
    ones = torch.ones(40)
    assert kept(ones, ones, 5).positions.tolist() == [0, 1, 2, 3, 4]


def test_the_features_take_the_place_of_the_reference_model():
    learner, teacher = torch.rand(2, 6, generator=derive_generator("teacher")) * 5
    selector = RHOLoss(reference="features")
    assert selector.requires == {"learner_losses", "teacher_losses"}
    candidates = Candidates(
        indices=torch.arange(6), learner_losses=learner, teacher_losses=teacher.double()
    )
    found = selector(candidates, 3, generator=derive_generator("unused"))
    assert frozenset(found.positions.tolist()) == best_set(learner.tolist(), teacher.tolist(), 3)
    # What was stored before there was a choice still fits.
    assert RHOLoss()._stored() == "RHOLoss()"
