from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from saln.data.views import Batch
from saln.errors import InputError, TrainingError
from saln.loading.learner_selected import LearnerSelected, scoring
from saln.randomness import derive_generator, seeded_globally
from saln.selection import JEST, RHOLoss, Selection, Selector


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


def test_losses_are_made_from_the_outputs_where_they_are_required():
    class Recorder(Selector):
        requires = frozenset({"learner_losses", "reference_losses", "features"})
        observes_losses = True

        def choose(self, candidates, k, generator):
            shown.append(candidates)
            return Selection(torch.arange(k))

        def observe(self, indices, losses):
            told.append((indices.tolist(), losses.tolist()))

        def begin_epoch(self, epoch):
            told.append(epoch)

    shown, told = [], []
    outputs = torch.randn(20, 2, generator=derive_generator("reference"))
    features = np.arange(40, dtype=np.float16).reshape(20, 2)
    learner = network()
    batches = selected(learner, Recorder(), reference_outputs=outputs, features=features)
    batches.set_epoch(2)
    list(batches)
    for candidates, full in zip(shown, Fixed(), strict=True):
        with scoring(learner):
            logits = learner(full.images)
        for losses, z in (
            (candidates.learner_losses, logits),
            (candidates.reference_losses, outputs[full.indices]),
        ):
            expected = torch.logsumexp(z, dim=1) - z.gather(1, full.labels[:, None])[:, 0]
            torch.testing.assert_close(losses, expected)
        assert torch.equal(candidates.features[:, 0].long(), 2 * full.indices)
    batches.observe(torch.tensor([4]), torch.tensor([0.5]))
    assert told == [2, ([4], [0.5])]


def test_what_only_the_caller_has_is_refused_at_once_when_missing():
    class NeedsFeatures(Selector):
        requires = frozenset({"learner_outputs", "features"})

        def choose(self, candidates, k, generator):
            return Selection(torch.arange(k))

    with pytest.raises(InputError, match="NeedsFeatures requires features; give one row"):
        selected(network(), NeedsFeatures())
    with pytest.raises(InputError, match="RHOLoss requires reference_losses; train a reference"):
        selected(network(), RHOLoss())
