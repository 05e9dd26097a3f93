"""What the public call checks; saln.testing runs the rest on every selector."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from saln.errors import InputError
from saln.randomness import derive_generator
from saln.selection import SELECTORS, Candidates, RHOLoss, Selection, Selector, Uniform
from saln.testing import example_candidates


def choosing(**answer):
    class Mistaken(Selector):
        def choose(self, candidates, k, generator):
            return Selection(**answer)

    return Mistaken()(example_candidates(), 2, generator=derive_generator(0))


@pytest.mark.parametrize(
    "positions",
    [
        torch.zeros(2, dtype=torch.int64),
        torch.tensor([0, 12]),
        torch.tensor([-1, 0]),
        torch.tensor([0, 1, 2]),
        torch.tensor([0.0, 1.0]),
    ],
)
def test_a_selector_that_breaks_the_contract_is_caught(positions):
    with pytest.raises(InputError, match=r"Mistaken.choose .* expected 2 distinct int64"):
        choosing(positions=positions)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": torch.ones(3)}, r"gave weights of shape \(3,\), expected \(2,\)"),
        ({"scores": torch.ones(2)}, r"gave scores of shape \(2,\), expected \(12,\)"),
        ({"weights": torch.tensor([1.0, -1.0])}, "gave weights that are not finite or below 0"),
        ({"weights": torch.tensor([1.0, float("nan")])}, "gave weights that are not finite"),
    ],
)
def test_weights_and_scores_are_checked(changes, message):
    with pytest.raises(InputError, match=message):
        choosing(positions=torch.tensor([0, 1]), **changes)


class Blend(Selector):
    def __init__(self, strength, *, center=None, rounds=3):
        self._strength, self.center, self.rounds = strength, center, rounds
        self.remembered = 0

    def choose(self, candidates, k, generator):
        return Selection(torch.arange(k))


def test_a_selector_is_known_by_its_hyperparameters():
    assert repr(Blend(0.5)) == "Blend(strength=0.5, center=None, rounds=3)"
    # Long tensors differ in digits that their own text leaves out.
    some, other = torch.zeros(5000), torch.zeros(5000)
    other[2500] = 1e-6
    assert repr(Blend(1, center=some)) == repr(Blend(1, center=some.clone()))
    assert repr(Blend(1, center=some)) != repr(Blend(1, center=other))
    assert repr(Blend(1, center=some)) != repr(Blend(1, center=some.double()))
    told = Blend(2)
    told.watch(lambda candidates, selection: None)
    told.remembered = 7
    assert repr(told) == "Blend(strength=2, center=None, rounds=3)"


@pytest.mark.parametrize("name", SELECTORS)
def test_every_selector_of_ours_has_a_repr_that_makes_it_again(name):
    selector = SELECTORS[name]()
    again = eval(repr(selector), {kind.__name__: kind for kind in SELECTORS.values()})
    assert type(again) is type(selector)
    assert repr(again) == repr(selector)


def test_labels_must_be_int64():
    class NeedsLabels(Selector):
        requires = frozenset({"labels"})

        def choose(self, candidates, k, generator):
            return Selection(torch.arange(k))

    candidates = example_candidates()
    object.__setattr__(candidates, "labels", candidates.labels.float())
    with pytest.raises(InputError, match=r"NeedsLabels needs int64 labels, not torch.float32"):
        NeedsLabels()(candidates, 2, generator=derive_generator(0))


def test_numbers_and_rows_are_told_apart():
    candidates = example_candidates()
    object.__setattr__(candidates, "learner_losses", torch.ones(12, 2))
    with pytest.raises(InputError, match=r"needs learner_losses of shape \(n,\), not \(12, 2\)"):
        RHOLoss()(candidates, 2, generator=derive_generator(0))


def test_losses_must_be_floating():
    candidates = example_candidates()
    object.__setattr__(candidates, "learner_losses", torch.ones(12, dtype=torch.int64))
    with pytest.raises(InputError, match="RHOLoss needs floating learner_losses"):
        RHOLoss()(candidates, 2, generator=derive_generator(0))


def test_most_remember_nothing():
    selector = Uniform.for_run(epochs=3)
    selector.begin_epoch(1)
    selector.observe(torch.arange(2), torch.ones(2))
    assert selector.state_dict() == {}
    selector.load_state_dict({})
    with pytest.raises(InputError, match=r"Uniform remembers nothing, but the state holds known"):
        selector.load_state_dict({"known": torch.ones(2)})


def test_a_choice_leaves_no_graph():
    """Outputs that carry gradients are read, not differentiated."""
    candidates = example_candidates()
    candidates.learner_losses.requires_grad_()
    assert not RHOLoss()(candidates, 2, generator=derive_generator(0)).scores.requires_grad


def test_a_watcher_is_told_every_checked_choice():
    told = []
    selector = RHOLoss()
    selector.watch(lambda candidates, selection: told.append((candidates, selection)))
    candidates = example_candidates()
    first = selector(candidates, 2, generator=derive_generator(0))
    assert told == [(candidates, first)]
    with pytest.raises(InputError):
        selector(candidates, 0, generator=derive_generator(0))
    assert len(told) == 1


def test_a_label_below_zero_is_no_class():
    labels = torch.tensor([0, 1, -1])
    candidates = Candidates(indices=torch.arange(3), features=torch.eye(3), labels=labels)
    with pytest.raises(InputError, match="label of candidate 2 is -1; give 0 or more"):
        SELECTORS["coherence-batch"]()(candidates, 1, generator=derive_generator(0))


@pytest.mark.parametrize("generator", [None, 3, np.random.default_rng(0)])
def test_a_generator_is_one_of_torch(generator):
    with pytest.raises(InputError, match=r"give a torch\.Generator"):
        Uniform()(example_candidates(), 2, generator=generator)
