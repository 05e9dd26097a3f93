"""Layers trained with all points at once beside the library's loop, and a whole tiny study."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import tuned_probe
from tuned_probe import ProbeStudy, split, train_points
from tuned_study import Cell, Job, Point, StudyArm, stored

from saln.data.torch_datasets import Batch
from saln.labels import features_as_teacher
from saln.loading.epoch_batches import EpochBatches
from saln.training import Ledger, TrainSettings, train
from saln.training.changes import objective_of

N, CLASSES, WIDTH = 640, 5, 12


@pytest.fixture(scope="module")
def inputs():
    random = np.random.default_rng(0)
    centers = random.normal(size=(CLASSES, WIDTH))

    def part(n):
        labels = np.arange(n) % CLASSES
        rows = centers[labels] + 0.7 * random.normal(size=(n, WIDTH))
        return rows.astype(np.float32), labels.astype(np.int64)

    return split(*part(N), *part(90))


class Planned(EpochBatches):
    """One epoch of named batches, for the library's loop."""

    def __init__(self, inputs, labels, plan):
        self.inputs, self.labels, self.plan = inputs, labels, torch.from_numpy(plan)

    def set_epoch(self, epoch):
        pass

    def __len__(self):
        return len(self.plan)

    def __iter__(self):
        for rows in self.plan:
            yield Batch(self.inputs.rows[rows], self.labels[rows], rows)

    def observe(self, indices, losses):
        pass


@pytest.fixture(scope="module")
def teacher(inputs):
    return features_as_teacher(inputs.features, np.roll(inputs.labels, N // 3))


@pytest.mark.parametrize("arm", ["uniform", "uniform+gce", "uniform+targets", "uniform+relabel"])
def test_points_train_as_the_librarys_loop_does(inputs, teacher, arm):
    labels = torch.from_numpy(teacher.beliefs.given)
    plan = np.random.default_rng(1).integers(0, N, (7, 16))
    objective = objective_of(StudyArm(arm).arm.changes, teacher)
    points = [Point(0.1, 0.0), Point(0.02, 0.3), Point(0.3, 0.01)]
    found = train_points(inputs.train, labels, plan, objective, points, CLASSES)
    for layer, point in zip(found, points, strict=True):
        learner = torch.nn.utils.skip_init(torch.nn.Linear, WIDTH + 1, CLASSES, bias=False)
        torch.nn.init.zeros_(learner.weight)
        settings = TrainSettings(1, schedule="cosine", objective=objective, **point._asdict())
        list(train(learner, Planned(inputs.train, labels, plan), settings, ledger=Ledger()))
        torch.testing.assert_close(layer, learner.weight.detach(), rtol=1e-4, atol=1e-5)


def test_a_study_tunes_tests_and_resumes(inputs, tmp_path):
    cell = Cell("tiny", "symmetric", 0.4, 0.5)
    arms = ("standard", "uniform+gce", "balanced-curriculum+targets", "oracle", "jest")
    grid = [Point(0.001, 0.0), Point(0.1, 0.1)]

    def study(rows):
        return ProbeStudy(
            {"tiny": inputs}, {"tiny": 3},
            cells={cell: arms, cell._replace(filter_ratio=0.8): arms[:2]},
            grid=grid, tuning_seeds=[100], seeds=[0], rows=rows,
        )  # fmt: skip

    path = tmp_path / "rows.jsonl"
    tuned_probe.train_all(study([]), path)
    rows = stored(path)
    # An arm that keeps everything is trained once for both filter ratios.
    assert len(rows) == (len(arms) + 1) * (len(grid) + 1)
    finals = [row for row in rows if row["stage"] == "final"]
    steps = {(row["arm"], row["filter_ratio"]): row["steps"] for row in finals}
    assert steps["standard", 0.0] == 30
    assert {steps[arm, 0.5] for arm in arms[1:]} == {15}
    assert steps["uniform+gce", 0.8] == 6
    for row in rows:
        assert ("test_accuracy" in row) == (row["stage"] == "final") == (row["seed"] != 100)
        if row["stage"] == "final" and row["arm"] != "standard":
            share = row["wrong_label_share_kept"]
            assert share == 0 if row["arm"] == "oracle" else share > 0
            assert row["choosing_ms_per_step"] > 0
    for arm in arms:
        own = [row for row in rows if (row["arm"], row["filter_ratio"]) in ((arm, 0.5), (arm, 0))]
        tried = [row for row in own if row["stage"] == "tuning"]
        best = max(tried, key=lambda row: row["validation_accuracy"])
        assert {
            (row["learning_rate"], row["weight_decay"]) for row in own if row["stage"] == "final"
        } == {(best["learning_rate"], best["weight_decay"])}
    # One that was killed does what is missing, and ends with the same numbers.
    rest = study(rows[:-5])
    path.unlink()
    tuned_probe.train_all(rest, path)
    times = {"choosing_ms_per_step": 0, "training_ms_per_step": 0, "teacher_seconds": 0}
    assert [row | times for row in stored(path)] == [row | times for row in rows[-5:]]


def test_the_judges_see_the_noise_and_the_validation_part_is_no_test_part(inputs):
    assert len(inputs.validation.labels) == 30
    both = torch.cat([inputs.validation.rows, inputs.test.rows])
    assert len(both.unique(dim=0)) == 90
    cell = Cell("tiny", "symmetric", 0.4, 0.5)
    study = ProbeStudy(
        {"tiny": inputs}, {"tiny": 1}, cells={cell: ("uniform",)},
        grid=[Point(0.1, 0.0)], tuning_seeds=[100], seeds=[], rows=[],
    )  # fmt: skip
    known, _ = study.known(Job("tuning", "uniform", cell, 3, Point(0.1, 0.0)))
    assert (known.labels != inputs.labels).mean() == pytest.approx(0.4, abs=0.01)
    assert np.array_equal(known.teacher.beliefs.given, known.labels)
