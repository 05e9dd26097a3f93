from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from saln.data.views import Batch
from saln.errors import InputError, TrainingError
from saln.loading.learner_selected import LearnerSelected, scoring
from saln.randomness import derive_generator, seeded_globally
from saln.selection import JEST, Selection, Selector


class Fixed:
    """Two batches of ten candidates."""

    def __init__(self):
        self.epoch = None

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __len__(self):
        return 2

    def __iter__(self):
        generator = derive_generator("fixed")
        for start in (0, 10):
            yield Batch(
                torch.randn(10, 3, 4, 4, generator=generator),
                torch.arange(10) % 2,
                torch.arange(start, start + 10),
            )


class HighestLogit(Selector):
    """Keeps the examples with the highest first logit, at double weight."""

    requires = frozenset({"learner_outputs"})

    def choose(self, candidates, k, generator):
        scores = candidates.need("learner_outputs")[:, 0]
        return Selection(scores.topk(k).indices, weights=torch.full((k,), 2.0), scores=scores)


def network():
    with seeded_globally("network"):
        return nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten(), nn.Linear(16, 2)
        )


def selected(learner, selector, **changes):
    options = {
        "batch_size": 3,
        "learner": learner,
        "reference_outputs": None,
        "seed": 0,
        "device": torch.device("cpu"),
    }
    return LearnerSelected(Fixed(), selector=selector, **(options | changes))


def test_keeps_what_the_learner_says_in_eval_mode():
    learner = network().train()
    batches = selected(learner, HighestLogit())
    batches.set_epoch(3)
    assert batches.batches.epoch == 3
    assert len(batches) == 2
    reference = copy.deepcopy(learner).eval()
    for kept, full in zip(batches, Fixed(), strict=True):
        with torch.inference_mode():
            expected = reference(full.images)[:, 0].topk(3).indices
        assert torch.equal(kept.indices, full.indices[expected])
        assert torch.equal(kept.images, full.images[expected])
        assert torch.equal(kept.labels, full.labels[expected])
        assert torch.equal(kept.weights, torch.full((3,), 2.0))
    assert batches.examples_scored == 20


def test_scoring_leaves_no_trace():
    learner = network().train()
    learner[1].eval()  # a part that the user froze stays frozen
    before = copy.deepcopy(learner.state_dict())
    state = torch.get_rng_state()
    with scoring(learner):
        learner(torch.ones(5, 3, 4, 4))
        torch.rand(1)  # a network that draws by itself
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in learner] == [True, False, True, True, True]
    for key, value in learner.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_scoring_puts_modes_back_after_an_error():
    learner = network().train()
    with pytest.raises(RuntimeError), scoring(learner):
        learner(torch.ones(1, 1, 1, 1))
    assert all(module.training for module in learner.modules())


def test_reference_outputs_are_those_of_the_indices():
    class Recorder(Selector):
        requires = frozenset({"reference_outputs"})

        def choose(self, candidates, k, generator):
            assert torch.equal(
                candidates.need("reference_outputs")[:, 0], candidates.indices.float()
            )
            return Selection(torch.arange(k))

    outputs = torch.stack([torch.arange(20.0), torch.zeros(20)], dim=1)
    assert len(list(selected(network(), Recorder(), reference_outputs=outputs))) == 2


def test_a_missing_reference_is_refused_at_once():
    with pytest.raises(InputError, match="JEST requires reference_outputs"):
        selected(network(), JEST())


def test_a_learner_that_diverged_is_told_at_the_step():
    learner = network()
    with torch.no_grad():
        learner[4].bias.fill_(float("nan"))
    with pytest.raises(TrainingError, match="outputs are not finite in epoch 0, step 0"):
        list(selected(learner, HighestLogit()))
