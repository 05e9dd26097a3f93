"""Changes of training: what each does to the loss or to what is evaluated, and its text."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

import saln
from saln.errors import InputError
from saln.randomness import derive_generator, seeded_globally
from saln.training.changes import (
    CHANGES,
    EMA,
    GCE,
    Relabel,
    Smoothing,
    Targets,
    averaged_by,
    listed_changes,
    objective_of,
    ordered,
    read_change,
)

GENERATOR = derive_generator("changes")
OUTPUTS = torch.randn(6, 3, generator=GENERATOR)
LABELS = torch.tensor([0, 1, 2, 2, 1, 0])
WHERE = torch.tensor([11, 4, 0, 29, 17, 5])


@pytest.fixture(scope="module")
def teacher():
    """Of three clear clusters, in which every seventh label is wrong."""
    classes = torch.arange(60) % 3
    rows = 4 * nn.functional.one_hot(classes, 8) + torch.randn(60, 8, generator=GENERATOR)
    given = torch.where(torch.arange(60) % 7 == 0, (classes + 1) % 3, classes)
    return saln.features_as_teacher(rows.numpy(), given.numpy())


def test_a_network_learns_from_the_mixture_of_targets(teacher):
    """Against float64 in NumPy."""
    posterior, others = (
        part.double().numpy()[WHERE] for part in (teacher.posterior, teacher.leave_one_out)
    )
    mixed = 0.2 * np.eye(3)[LABELS] + 0.5 * posterior + 0.3 * others
    logits = OUTPUTS.double().numpy()
    logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    objective = objective_of([Targets(beliefs=0.5, features=0.3)], teacher)
    found = objective(OUTPUTS, LABELS, WHERE)
    assert_close(
        found.double(), torch.from_numpy(-(mixed * logs).sum(axis=1)), rtol=1e-5, atol=1e-6
    )


def test_believed_classes_take_the_place_of_labels(teacher):
    objective = objective_of([Relabel()], teacher)
    believed = teacher.believed[WHERE]
    assert believed.tolist() != LABELS.tolist()
    expected = nn.functional.cross_entropy(OUTPUTS, believed, reduction="none")
    assert torch.equal(objective(OUTPUTS, LABELS, WHERE), expected)


def test_what_has_no_features_keeps_its_label(teacher):
    class Silent:
        believed = torch.where(torch.arange(60) == 4, -1, teacher.believed)

    hoped = Silent.believed[WHERE].clone()
    hoped[1] = LABELS[1]
    found = objective_of([Relabel()], Silent())(OUTPUTS, LABELS, WHERE)
    expected = nn.functional.cross_entropy(OUTPUTS, hoped, reduction="none")
    assert torch.equal(found, expected)


def test_changes_of_the_loss_come_together(teacher):
    changes = [GCE(q=0.5), Smoothing(share=0.2), Relabel(), EMA()]
    objective = objective_of(changes, teacher)
    assert (objective.q, objective.smoothing) == (0.5, 0.2)
    assert torch.equal(objective.targets(LABELS, WHERE), teacher.believed[WHERE])
    assert objective_of([], None) == saln.training.losses.GIVEN_LABELS


@pytest.mark.parametrize("change", [Relabel(), Targets(beliefs=1)])
def test_a_teacher_that_is_missing_is_said(change):
    with pytest.raises(InputError, match=r"needs a teacher; give what saln\.features_as_"):
        objective_of([change], None)


def test_the_average_is_that_of_a_loop_by_hand():
    """Of weights and of BatchNorm's statistics; the first step's are where it starts."""
    with seeded_globally("average"):
        learner = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    average = averaged_by([GCE(), EMA(decay=0.8)], learner)
    expected, steps = None, []
    for _ in range(4):
        with torch.no_grad():
            for weight in learner.parameters():
                weight += torch.randn(weight.shape, generator=GENERATOR)
        learner(torch.randn(5, 4, generator=GENERATOR))  # moves the statistics
        average.update_parameters(learner)
        now = copy.deepcopy(learner.state_dict())
        steps.append(now)
        expected = expected or now
        if len(steps) > 1:
            expected = {name: 0.8 * expected[name] + 0.2 * now[name] for name in now}
    found = average.module.state_dict()
    for name in ("0.weight", "0.bias", "1.weight", "1.running_mean", "1.running_var"):
        assert_close(found[name], expected[name])
        assert not torch.equal(found[name], steps[-1][name])
    assert averaged_by([GCE()], learner) is None


def test_they_are_listed_with_what_may_be_set():
    listed = dict(listed_changes())
    assert list(listed) == [f"+{name}" for name in CHANGES]
    assert "q (a number, above 0, at most 1; default 0.7)" in listed["+gce"]


@pytest.mark.parametrize(
    ("text", "change"),
    [
        ("gce", GCE(q=0.7)),
        ("gce(q=1)", GCE(q=1.0)),
        ("ema:decay=0.999", EMA(decay=0.999)),
        ("targets(beliefs=0.7, features=0.3)", Targets(beliefs=0.7, features=0.3)),
        ("targets", Targets(beliefs=0.7, features=0.3)),
        ("targets(beliefs=1)", Targets(beliefs=1.0)),
        ("relabel", Relabel()),
    ],
)
def test_a_text_names_a_change(text, change):
    assert read_change(text) == change


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("gcee", r"change \+gcee is not allowed; give one of gce, .*\(did you mean gce\?\)"),
        ("gce(q=0)", "q=0 of gce is not allowed; give a number, above 0, at most 1"),
        ("gce(p=1)", r"gce has no hyperparameter p; it has q \(a number"),
        ("ema(decay=1)", "decay=1 of ema is not allowed; give a number, above 0, below 1"),
        ("smoothing(share=-0.1)", "share=-0.1 of smoothing is not allowed; give a number, at"),
        (
            "targets(beliefs=0)",
            "beliefs=0 and features=0 are not allowed; give one or both, above 0",
        ),
        ("targets(beliefs=0.7,features=0.4)", "together at most 1"),
        ("relabel(x=1)", "relabel has no hyperparameter x; it has none"),
        ("a b", "a b is no change of training; write a NAME"),
    ],
)
def test_what_is_no_change_is_refused_with_the_cure(text, said):
    with pytest.raises(InputError, match=said):
        read_change(text)
    with pytest.raises(InputError, match="q=2 is not allowed; give a number, above 0, at most 1"):
        GCE(q=2)


def test_their_order_means_nothing_and_none_is_there_twice():
    assert ordered([EMA(), GCE()], "uniform") == (GCE(), EMA())
    with pytest.raises(InputError, match="uniform has gce and gce; give each change once"):
        ordered([GCE(), GCE(q=0.5)], "uniform")
    with pytest.raises(InputError, match=r"targets and relabel, which both say .*; give one"):
        ordered([Targets(beliefs=1), Relabel()], "uniform")
