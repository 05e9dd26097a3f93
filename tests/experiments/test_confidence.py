"""``labels.json``: what coherence makes of the first seed's labels."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from helpers.comparisons import Quiet

from saln.data.datasets import load_dataset
from saln.experiments import progress as progress_module
from saln.experiments.config import Config, load_preset
from saln.experiments.label_confidence import doubted_labels, judge_labels
from saln.experiments.run import compare
from saln.features.neighbors import nearest_neighbors


class Killed(BaseException):
    """Stands for SIGKILL: nothing that catches exceptions catches it."""


@pytest.fixture
def config(tmp_path) -> Config:
    return dataclasses.replace(
        load_preset("digits"), limit=900, epochs=1, seeds=(3, 4), methods=("coherence",),
        label_noise=0.4, out=tmp_path / "run", cache_dir=tmp_path / "cache",
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


def test_features_that_tell_nothing_are_noted_and_no_label_is_listed():
    data = load_dataset("digits", limit=300)
    rows = np.zeros((len(data.train), 4), dtype=np.float32)
    notes = []
    quiet = Quiet()
    quiet.note = notes.append
    found = judge_labels(nearest_neighbors(rows, 20), data, 3, quiet)
    assert notes[0].startswith("label coherence, seed 3: the features tell nothing")
    assert "look wrong" not in notes[0]
    assert set(found.values.tolist()) == {1.0}
    listed = doubted_labels(found.beliefs, data, seed=3, noise_share=0.0)
    assert json.loads(json.dumps(listed, allow_nan=False)) == listed
    assert (listed["estimated_noise_rate"], listed["doubted"], listed["labels"]) == (None, 0, [])
