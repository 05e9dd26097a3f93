"""What people give is taken where its meaning is plain, else refused in one line."""

from __future__ import annotations

import numpy as np
import pandas
import pytest
import torch
from helpers.loading_processes import KEYS, ROWS, Keyed, N

import saln
from saln.errors import InputError
from saln.loading.selected_batches import SelectedBatches
from saln.loading.selected_stream import SelectedStream

LABELS = np.arange(N) % 3
OPTIONS = {"selector": saln.SALN(), "batch_size": 4, "filter_ratio": 0.5, "seed": 5}


def batches(features=ROWS, **changes):
    return SelectedBatches(features, **OPTIONS | changes)


def stream(features=ROWS, **changes):
    return SelectedStream(Keyed(), features=features, keys=KEYS, **OPTIONS | changes)


def named(one):
    return [batch.indices.tolist() if hasattr(batch, "indices") else batch for batch in one]


@pytest.mark.parametrize("make", [batches, stream])
@pytest.mark.parametrize(
    "changes",
    [
        {"features": torch.from_numpy(ROWS)},
        {"features": torch.from_numpy(ROWS).requires_grad_()},
        {"features": ROWS.tolist()},
        {"features": pandas.DataFrame(ROWS)},
        {"selector": "saln"},
        {"selector": saln.SALN},
        {"batch_size": 4.0},
        {"batch_size": np.uint8(4)},
        {"filter_ratio": np.float32(0.5)},
        {"filter_ratio": torch.tensor(0.5)},
        {"seed": np.int16(5)},
        {"seed": 5.0},
    ],
)
def test_the_same_batches_whatever_the_type(make, changes):
    assert named(make(**changes)) == named(make())


@pytest.mark.parametrize("make", [batches, stream])
@pytest.mark.parametrize(
    "labels",
    [
        LABELS.tolist(),
        torch.from_numpy(LABELS),
        LABELS.astype(np.uint8)[:, None],
        LABELS.astype(np.float32),
        pandas.Series(LABELS),
        np.array(["ant", "bee", "cat"])[LABELS],
    ],
)
def test_labels_of_any_kind(make, labels):
    options = {"selector": saln.BatchCoherence()}
    assert named(make(**options, labels=labels)) == named(make(**options, labels=LABELS))


def test_coherence_judges_labels_by_an_array_alone():
    rows = ROWS + 4 * np.eye(ROWS.shape[1])[LABELS]  # that tell of the labels
    given = np.where(np.arange(N) == 7, (LABELS + 1) % 3, LABELS)
    one = batches(rows, selector=saln.Coherence(), labels=given)
    confidence = one.fields.rows["label_confidence"].array
    assert confidence.shape == (N,)
    assert int(confidence.argmin()) == 7
    told = batches(rows, selector=saln.Coherence(), labels=given, label_confidence=confidence)
    assert named(one) == named(told)
    with pytest.raises(InputError, match=r"label_confidence; give .* or labels, of which it is"):
        batches(selector=saln.Coherence())


def test_epochs_and_indices_of_any_number_type():
    one = batches(selector="infobatch")
    plain = batches()
    plain.set_epoch(1)
    typed = batches()
    typed.set_epoch(np.int64(1))
    assert named(typed) == named(plain)
    one.observe([0, 1], [0.5, 0.25])
    one.observe(np.array([[2]], dtype=np.int32), torch.tensor([[0.125]]))
    assert one.selector.state_dict()["next"][:3].tolist() == [0.5, 0.25, 0.125]


@pytest.mark.parametrize("make", [batches, stream])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"selector": "salmon"}, "selector salmon is not allowed; give one of uniform"),
        ({"selector": 3}, "selector 3 is not allowed; give a saln.Selector"),
        ({"selector": saln.Selector}, "selector Selector is a class, which needs"),
        ({"batch_size": 2.5}, "batch_size=2.5 is not allowed"),
        ({"batch_size": "4"}, "batch_size='4' is not allowed"),
        ({"filter_ratio": "0.5"}, "filter ratio '0.5' is not allowed"),
        ({"filter_ratio": None}, "filter ratio None is not allowed"),
        ({"seed": None}, "seed=None is not allowed; give a whole number"),
        ({"features": ROWS[:, 0]}, r"features are float32 \(60,\); give numbers, \(n, d\)"),
        ({"features": [["a"], ["b"]]}, "features are <U1"),
        ({"labels": np.zeros((N, 2))}, "one-hot or soft labels"),
        ({"labels": np.full(N, 0.5)}, "the label of example 0 is 0.5, which is no class"),
        ({"label_confidence": ["x"] * N}, "label_confidence is <U1"),
        ({"rank": 0}, "give world_size too"),
    ],
)
def test_one_line_says_what_is_wrong(make, changes, message):
    with pytest.raises(InputError, match=message) as caught:
        make(**changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (None, "the state holds None"),
        ([], r"the state holds \[\]"),
        ({}, "the state holds nothing"),
        ({"epoch": "x"}, "epoch='x' is not allowed"),
        ({"step": 1.5}, "step=1.5 is not allowed"),
    ],
)
def test_states_that_are_none(state, message):
    one = batches()
    if state and isinstance(state, dict):
        state = one.state_dict() | state
    with pytest.raises(InputError, match=message):
        one.load_state_dict(state)
    with pytest.raises(InputError, match="steps=8 is not allowed: epoch 0 has 7"):
        one.state_dict(steps=8)


def test_losses_that_do_not_fit():
    one = batches(selector="infobatch")
    with pytest.raises(InputError, match="1 losses for 2 indices"):
        one.observe([0, 1], torch.tensor(0.5))
    with pytest.raises(InputError, match="indices are float64"):
        one.observe([0.5], [0.5])
