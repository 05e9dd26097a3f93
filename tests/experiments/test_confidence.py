"""``labels.json``: what coherence makes of the first seed's labels."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from helpers.comparisons import Quiet
from helpers.digits import digits_config

import saln
from saln.data.datasets import load_dataset
from saln.experiments import progress as progress_module
from saln.experiments.arm import read_arm
from saln.experiments.comparison import SharedBySeed
from saln.experiments.config import Config
from saln.experiments.label_confidence import LabelConfidence, doubted_labels, judge_for_arms
from saln.experiments.run import compare
from saln.experiments.run_folder import RunFolder
from saln.experiments.shared_inputs import SharedInputs
from saln.features.neighbors import NeighborTable, nearest_neighbors
from saln.features.store import FeatureStore
from saln.report.label_section import label_section


class Killed(BaseException):
    """Stands for SIGKILL: nothing that catches exceptions catches it."""


@pytest.fixture
def config(tmp_path) -> Config:
    return digits_config(
        limit=900, epochs=1, seeds=(3, 4), methods=("coherence",), learner="pixels",
        image_size=8, label_noise=0.4, out=tmp_path / "run", cache_dir=tmp_path / "cache",
    )  # fmt: skip


def labels_of(config):
    return json.loads((config.out / "labels.json").read_text())


def test_the_noise_and_the_least_believed_labels_are_written(config):
    compare(config, Quiet())
    found = labels_of(config)
    train = load_dataset("digits", limit=900).with_label_noise(0.4, 3).train
    assert found["seed"] == 3
    assert found["classes"] == list("0123456789")
    assert found["training_labels"] == len(train) == 810
    assert found["true_noise_rate"] == pytest.approx(0.4, abs=1e-9)
    assert found["estimated_noise_rate"] == pytest.approx(0.4, abs=0.08)
    transition = np.array(found["transition"])
    assert transition.shape == (10, 10)
    assert transition.sum(axis=1) == pytest.approx(np.ones(10))
    assert transition.diagonal().mean() == pytest.approx(0.6, abs=0.1)
    labels = found["labels"]
    assert len(labels) == 100
    assert found["doubted"] > 100
    confidences = [label["confidence"] for label in labels]
    assert confidences == sorted(confidences)
    assert all(label["given"] != label["believed"] for label in labels)
    for label in labels:
        i = label["example"]
        assert label["given"] == train.labels[i]
        assert label["wrong"] == (train.labels[i] != train.true_labels[i])
        assert label["image"] == f"row {train.rows[i]}"
    # Digits are easy: the least believed labels are nearly all wrong, the beliefs right.
    right = [train.true_labels[label["example"]] == label["believed"] for label in labels]
    assert np.mean(right) > 0.9
    assert np.mean([label["wrong"] for label in labels]) > 0.95


def test_without_injected_noise_nobody_knows_which_are_wrong(config, image_folder):
    # One picture of the other color in each folder: wrong labels of a person.
    (image_folder / "red" / "07.png").rename(image_folder / "away.png")
    (image_folder / "blue" / "07.png").rename(image_folder / "red" / "07.png")
    (image_folder / "away.png").rename(image_folder / "blue" / "07.png")
    changed = dataclasses.replace(
        config, dataset=f"folder:{image_folder}", label_noise=0.0, limit=None, image_size=8,
        seeds=(0,), batch_size=4, backbone="pixels",
    )  # fmt: skip
    compare(changed, Quiet())
    found = labels_of(changed)
    assert found["true_noise_rate"] is None
    assert {label["image"] for label in found["labels"]} <= {"red/07.png", "blue/07.png"}
    assert len(found["labels"]) == found["doubted"] > 0
    assert all(label["wrong"] is None for label in found["labels"])


def test_a_run_killed_as_it_writes_the_labels_writes_them_when_it_goes_on(
    config, tmp_path, monkeypatch
):
    whole = dataclasses.replace(config, out=tmp_path / "whole")
    compare(whole, Quiet())
    write_json = progress_module.write_json

    def dying(path, value, **options):
        if path.name == "labels.json":
            path.with_name(".labels.json.1").write_text(json.dumps(value)[:100])  # half-written
            raise Killed
        write_json(path, value, **options)

    monkeypatch.setattr(progress_module, "write_json", dying)
    with pytest.raises(Killed):
        compare(config, Quiet())
    assert not (config.out / "labels.json").exists()
    monkeypatch.undo()
    compare(dataclasses.replace(config, resume=True), Quiet())
    assert labels_of(config) == labels_of(whole)
    assert not list(config.out.glob(".labels*"))


def test_an_arm_that_judges_no_labels_writes_none(config):
    compare(dataclasses.replace(config, methods=("uniform",), seeds=(3,)), Quiet())
    assert not (config.out / "labels.json").exists()


NEAR, JUDGED = BOTH = ("coherence(judge=neighbors)", "coherence")


def kept_examples(folder, arm, seed):
    return RunFolder(folder).choices_of(arm, seed).read_bytes()


def test_arms_of_both_judges_are_trained_side_by_side(config, tmp_path):
    watching = Quiet()
    alone = dataclasses.replace(config, label_noise=0.2, seeds=(3,), out=tmp_path / "alone")
    compare(alone, Quiet())
    both = dataclasses.replace(alone, methods=BOTH, out=tmp_path / "both")
    summary = compare(both, watching).summary.to_json()
    assert list(summary["arms"]) == [NEAR, JUDGED]
    # The judged arm is what it is alone, and so is what is listed.
    assert labels_of(both) == labels_of(alone)
    kept = {arm: kept_examples(both.out, arm, 3) for arm in BOTH}
    assert kept[JUDGED] == kept_examples(alone.out, JUDGED, 3)
    assert kept[NEAR] != kept[JUDGED]
    rows = [json.loads(line) for line in (both.out / "epochs.jsonl").read_text().splitlines()]
    wrong = {row["arm"]: row["wrong_label_share_kept"] for row in rows}
    assert wrong[JUDGED] < wrong[NEAR] < 0.1
    # Each pays for its own judge, who is asked once.
    assert sum("label coherence, seed 3" in note for note in watching.notes) == 1
    assert sum("judged labels, seed 3: about" in note for note in watching.notes) == 1
    seconds = FeatureStore.open(next(both.cache_dir.glob("*/manifest.json")).parent).seconds
    paid = [summary["arms"][arm]["seconds"]["features"] for arm in BOTH]
    assert min(paid) > seconds
    assert paid[0] != paid[1]


def test_a_comparison_without_neighbors_searches_none_and_lists_what_is_judged(config):
    only = dataclasses.replace(config, methods=BOTH[1:], label_noise=0.2, seeds=(3,))
    compare(only, Quiet())
    assert not list(only.cache_dir.glob("*/neighbours*"))
    found = labels_of(only)
    assert found["judge"] == "labels"
    assert found["estimated_noise_rate"] == pytest.approx(0.2, abs=0.04)
    assert np.mean([label["wrong"] for label in found["labels"]]) > 0.95
    assert "The other examples believe" in label_section(only.out).sentences[1]


def test_a_run_with_the_judged_arm_goes_on_to_the_same_rows(config, tmp_path, monkeypatch):
    whole = dataclasses.replace(
        config, methods=BOTH, label_noise=0.2, seeds=(3,), epochs=2, out=tmp_path / "whole"
    )
    compare(whole, Quiet())
    save_epoch, saved = progress_module.RunProgress.save_epoch, []

    def dying(self, row, state):
        save_epoch(self, row, state)
        saved.append(row)
        if len(saved) == 3:  # in the middle of the second arm
            raise Killed

    monkeypatch.setattr(progress_module.RunProgress, "save_epoch", dying)
    stopped = dataclasses.replace(whole, out=tmp_path / "stopped")
    with pytest.raises(Killed):
        compare(stopped, Quiet())
    monkeypatch.undo()
    compare(dataclasses.replace(stopped, resume=True), Quiet())
    for arm in BOTH:
        assert kept_examples(stopped.out, arm, 3) == kept_examples(whole.out, arm, 3)
    assert labels_of(stopped) == labels_of(whole)
    told = [
        [
            (row["arm"], row["epoch"], row["train_loss"], row["validation_accuracy"])
            for row in map(json.loads, (run.out / "epochs.jsonl").read_text().splitlines())
        ]
        for run in (stopped, whole)
    ]
    assert told[0] == told[1]


def test_features_that_tell_nothing_are_noted_and_no_label_is_listed():
    data = load_dataset("digits", limit=300)
    rows = np.zeros((len(data.train), 4), dtype=np.float32)
    notes = []
    quiet = Quiet()
    quiet.note = notes.append
    inputs = SharedInputs(data, neighbors=nearest_neighbors(rows, 20))
    found = judge_for_arms([read_arm(NEAR)], inputs, data, 3, quiet)["neighbors"]
    assert notes[0].startswith("label coherence, seed 3: the features tell nothing")
    assert "look wrong" not in notes[0]
    assert set(found.values.tolist()) == {1.0}
    listed = doubted_labels(found, data, seed=3, noise_share=0.0)
    assert json.loads(json.dumps(listed, allow_nan=False)) == listed
    assert (listed["estimated_noise_rate"], listed["doubted"], listed["labels"]) == (None, 0, [])


TAUGHT = (
    *("balanced-curriculum", "coherence(judge=labels)", "rho-loss(reference=features)"),
    *("jest(reference=features)", "uniform+targets(beliefs=0.5)", "uniform"),
)


def test_a_teacher_is_made_once_for_every_arm_that_asks_it(config):
    watching = Quiet()
    changed = dataclasses.replace(config, seeds=(3,), methods=TAUGHT)
    arms = compare(changed, watching).summary.to_json()["arms"]
    (note,) = (note for note in watching.notes if "features as a teacher, seed 3" in note)
    assert "of the training labels from the others" in note
    # No example is set aside for a reference model that nobody trains.
    assert labels_of(changed)["training_labels"] == 810
    assert all(arm["seconds"]["reference"] == 0 for arm in arms.values())
    rows = [json.loads(line) for line in (config.out / "epochs.jsonl").read_text().splitlines()]
    wrong = {row["arm"]: row["wrong_label_share_kept"] for row in rows}
    assert wrong["balanced-curriculum"] < 0.2 < 0.35 < wrong["uniform"]


def test_each_arm_pays_once_for_what_it_asks():
    random = np.random.default_rng(0)
    labels = np.arange(90) % 3
    teacher = saln.features_as_teacher(
        np.eye(3)[labels] + 0.2 * random.normal(size=(90, 3)), labels
    )
    confidence = {
        "neighbors": LabelConfidence(None, 2.0),
        "labels": LabelConfidence(None, 5.0, "labels"),
    }
    inputs = SharedInputs(None, neighbors=NeighborTable(None, None, 0.5))
    shared = SharedBySeed(
        seed=3, data=None, inputs=inputs, learner=None, body=None, reference=None,
        confidence=confidence, teacher=dataclasses.replace(teacher, seconds=4.0),
    )  # fmt: skip
    methods = (*TAUGHT, NEAR, f"{NEAR}+targets(beliefs=0.5)", "reducible(smoothing=0.5)")
    seconds = [shared.judging_seconds(read_arm(method)) for method in methods]
    assert seconds == [5.0, 5.0, 4.0, 4.0, 4.0, 0.0, 2.0, 6.0, 4.5]
