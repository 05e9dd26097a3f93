"""Saved at any step, loaded anywhere: the rest of the batches, exactly."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from helpers.rank_processes import sampler_of
from hypothesis import given, settings
from hypothesis import strategies as st

import saln
from saln.errors import InputError
from saln.loading.filter_schedule import FilterSchedule
from saln.loading.selected_batches import SelectedBatches
from saln.selection import RS2, SALN, BalancedCurriculum, InfoBatch, Uniform
from saln.selection.herding import Herding
from saln.selection.reducible import Reducible
from saln.selection.remembered_loss import RememberedLoss

EPOCHS = 3
SELECTORS = {
    "uniform": Uniform,
    "saln": SALN,
    "rs2": RS2,
    "infobatch": InfoBatch,
    "balanced-curriculum": lambda: BalancedCurriculum(epochs=EPOCHS),
    "remembered-loss": lambda: RememberedLoss(beta=1.0, pool=0.5, balance=0.5),
    "reducible": lambda: Reducible(balance=0.5),
    "reducible, smoothed": lambda: Reducible(smoothing=0.5),
    "herding": lambda: Herding(balance=True),
}
LABELS = np.arange(90) % 3
CLEAR = np.eye(3)[LABELS] + np.random.Generator(np.random.PCG64(2)).normal(0, 0.3, (90, 3))
TEACHER = saln.features_as_teacher(CLEAR, LABELS)


def sampler(name="uniform", **changes):
    features = np.random.Generator(np.random.PCG64(1)).random((90, 5))
    options = {"batch_size": 3, "filter_ratio": 0.8, "seed": 7, "ahead": 0, "teacher": TEACHER}
    return SelectedBatches(features, selector=SELECTORS[name](), **(options | changes))


def train(batches, epoch, seen, stop=None):
    """One epoch, the losses told; ``stop``: after so many steps."""
    batches.set_epoch(epoch)
    for step, indices in enumerate(batches):
        seen.append(indices)
        indices = torch.tensor(indices)
        batches.observe(indices, (indices * (epoch + 2)) % 11 / 7)
        if step + 1 == stop:
            return


@settings(deadline=None)
@given(
    name=st.sampled_from(sorted(SELECTORS)),
    epoch=st.integers(0, EPOCHS - 1),
    step=st.integers(1, 6),
    ahead=st.integers(0, 3),
    schedule=st.booleans(),
)
def test_the_rest_of_a_run_is_the_same_after_a_resume(name, epoch, step, ahead, schedule):
    ratio = FilterSchedule(0.8, 0.5, epochs=EPOCHS) if schedule else 0.8
    changes = {"filter_ratio": ratio, "ahead": ahead}
    whole, whole_seen = sampler(name, **changes), []
    for number in range(EPOCHS):
        train(whole, number, whole_seen)
    first, seen = sampler(name, **changes), []
    for number in range(epoch):
        train(first, number, seen)
    train(first, epoch, seen, stop=step)
    state = pickle.loads(pickle.dumps(first.state_dict(steps=step)))
    assert (state["epoch"], state["step"]) == (epoch, step)
    second = sampler(name, **changes)
    second.load_state_dict(state)
    for number in range(epoch, EPOCHS):
        train(second, number, seen)
    assert seen == whole_seen


def test_the_state_counts_what_was_named():
    batches = sampler(ahead=2)
    assert batches.state_dict()["step"] == 0
    iterator = iter(batches)
    rest = list(sampler())[2:]
    next(iterator), next(iterator)
    assert batches.state_dict() == iterator.state_dict()
    assert batches.state_dict()["step"] == 2
    fresh = iter(sampler())
    fresh.load_state_dict(iterator.state_dict())
    assert list(fresh) == rest
    del iterator
    assert batches.state_dict()["step"] == 2
    batches.set_epoch(0)
    for _ in batches:
        break
    assert batches.state_dict()["step"] == 1
    batches.set_epoch(0)
    list(batches)
    assert batches.state_dict()["step"] == 6  # nothing of this epoch is left
    batches.set_epoch(1)
    assert batches.state_dict()["step"] == 0


def test_a_loaded_position_holds_for_its_own_epoch_alone():
    state = sampler().state_dict(steps=4)
    batches = sampler()
    batches.load_state_dict(state)
    batches.set_epoch(0)
    assert len(list(batches)) == 2
    batches.set_epoch(0)
    assert len(list(batches)) == 6  # the epoch again, whole
    batches.load_state_dict(state)
    batches.set_epoch(1)
    assert len(list(batches)) == 6


def test_the_number_of_ranks_may_change():
    state = sampler(rank=0, world_size=3).state_dict(steps=2)
    shares = []
    for rank in range(3):
        batches = sampler(rank=rank, world_size=3)
        batches.load_state_dict(state)
        shares.append(list(batches))
    alone = sampler()
    alone.load_state_dict(state)
    together = [[*a, *b, *c] for a, b, c in zip(*shares, strict=True)]
    assert together == list(alone)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 8}, "saved with seed 7, here it is 8"),
        ({"batch_size": 4}, "saved with batch_size 3, here it is 4"),
        ({"filter_ratio": 0.5}, "saved with candidates 15, here it is 6"),
    ],
)
def test_a_state_of_other_batches_is_refused(changes, message):
    other = sampler(**changes)
    with pytest.raises(InputError, match=message):
        other.load_state_dict(sampler().state_dict())
    with pytest.raises(InputError, match=r"selector Uniform\(\), here it is RS2\("):
        sampler("rs2").load_state_dict(sampler().state_dict())


class Doubtful(Uniform):
    def __init__(self, threshold):
        self.threshold = threshold


@pytest.mark.parametrize("kind", ["batches", "stream", "learner"])
def test_a_state_of_other_hyperparameters_is_refused(kind):
    def made(threshold):
        selector = Doubtful(threshold)
        options = {"selector": selector, "batch_size": 2, "seed": 0}
        if kind == "batches":
            return SelectedBatches(20, filter_ratio=0.5, **options)
        if kind == "stream":
            return saln.SelectedStream([("a", 0)], filter_ratio=0.5, **options)
        return saln.LearnerSelected([], learner=torch.nn.Identity(), indices=0, **options)

    state = made(0.25).state_dict()
    made(0.25).load_state_dict(state)
    with pytest.raises(InputError, match=r"selector Doubtful\(threshold=0.25\), here it is .*0.5"):
        made(0.5).load_state_dict(state)
    # As it was saved when a state held the name of the class alone.
    made(0.5).load_state_dict(state | {"selector": "Doubtful"})


def test_a_damaged_state_is_refused():
    state = sampler().state_dict()
    with pytest.raises(InputError, match="expected batch_size, candidates"):
        sampler().load_state_dict({"epoch": 1})
    with pytest.raises(InputError, match="step 7 is not in its epoch of 6"):
        sampler().load_state_dict(copy.deepcopy(state) | {"step": 7})


CHILD = """
import json, sys
sys.path[:0] = json.loads(sys.argv[1])
from helpers.rank_processes import sampler_of
given = json.loads(sys.argv[2])
for state in given:
    batches = sampler_of("saln")
    batches.load_state_dict(state)
    print(json.dumps(list(batches)))
"""


def test_another_process_goes_on_with_the_same_batches():
    states, expected = [], []
    for epoch, step in [(0, 1), (1, 0), (2, 3), (5, 5)]:
        batches = sampler_of("saln")
        batches.set_epoch(epoch)
        expected.append(list(batches)[step:])
        states.append(batches.state_dict(steps=step))
    arguments = [json.dumps(sys.path), json.dumps(states)]
    child = subprocess.run(
        [sys.executable, "-c", CHILD, *arguments], capture_output=True, text=True, check=False
    )
    assert child.returncode == 0, child.stderr
    assert [json.loads(line) for line in child.stdout.splitlines()] == expected
