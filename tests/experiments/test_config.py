from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from saln.errors import InputError
from saln.experiments.config import Config, from_mapping, load_preset, load_toml, preset_names


def test_every_preset_is_sound():
    names = preset_names()
    assert set(names) >= {
        "digits", "photos", "paper-oxford-pet", "paper-cifar10", "offline-oxford-pet",
        "offline-cifar10",
    }  # fmt: skip
    for name in names:
        preset = load_preset(name)
        preset.check()
        assert preset.preset == name
        json.dumps(preset.to_json())


def test_the_papers_presets_are_the_papers():
    for name, dataset in (("paper-oxford-pet", "oxford-pet"), ("paper-cifar10", "cifar10")):
        preset = load_preset(name)
        assert (preset.dataset, preset.learner, preset.backbone) == (
            dataset,
            "resnet18",
            "resnet50",
        )
        assert (preset.epochs, preset.learning_rate, preset.filter_ratio) == (25, 0.001, 0.8)
        assert preset.pretrained
        assert preset.schedule == "constant"
        assert (preset.weight_decay, preset.nesterov, preset.tune) == (0.0, False, 0)


def test_the_study_tunes_every_arm_and_has_a_rival_that_is_robust():
    study = load_preset("study")
    assert study.tune >= 6  # learning rates and a second weight decay
    assert study.schedule == "onecycle"
    assert {"standard", "uniform", "coherence"} < set(study.labels)
    assert any(arm.all_changes for arm in study.arms)
    assert len(study.seeds) == 5


def test_a_rate_decays_where_nothing_else_is_said():
    assert Config().schedule == "cosine"
    # What a run began with is what it goes on with, whatever the default is now.
    assert from_mapping({"schedule": "constant"}, "config.json").schedule == "constant"


def test_a_toml_file_changes_what_it_names(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text(
        'epochs = 3\nlearning-rate = 1\nmethods = ["uniform"]\nseeds = [4, 5]\nout = "x"\n'
    )
    found = load_toml(path, load_preset("digits"))
    assert found.epochs == 3
    assert found.learning_rate == 1.0
    assert found.methods == ("uniform",)
    assert found.seeds == (4, 5)
    assert found.out == Path("x")
    assert found.dataset == "digits"
    assert found.learner == "small-cnn"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch = 3", "unknown key 'epoch'; choose among .*epochs"),
        ('epochs = "three"', "epochs = 'three' is not allowed; give a whole number"),
        ("epochs = true", "epochs = True is not allowed"),
        ('seeds = ["a"]', "seeds = .* is not allowed"),
        ("epochs = = 3", "cannot be read"),
    ],
)
def test_a_wrong_toml_file_is_refused(tmp_path, text, message):
    path = tmp_path / "run.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        load_toml(path)


def test_a_missing_toml_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        load_toml(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dataset": "mnist"}, "dataset='mnist' is not allowed; give one of digits"),
        ({"dataset": "folder:"}, "dataset='folder:' is not allowed"),
        ({"methods": ("best",)}, "methods best is not allowed; give one of standard, uniform"),
        ({"methods": ()}, r"methods=\(\) is not allowed; give at least one"),
        ({"methods": ("saln", "saln")}, "none of them twice"),
        ({"seeds": (1, 1)}, r"seeds=\(1, 1\) is not allowed"),
        ({"learner": "resnet19"}, "learner='resnet19' is not allowed"),
        ({"backbone": "resnet19"}, "backbone='resnet19' is not allowed"),
        ({"filter_ratio": 1.0}, "filter ratio 1.0 is not allowed"),
        ({"batch_size": 0}, "batch_size=0 is not allowed; give a whole number, at least 1"),
        ({"epochs": 0}, "epochs=0 is not allowed"),
        ({"workers": -1}, "workers=-1 is not allowed"),
        ({"threads": 0}, "threads=0 is not allowed"),
        ({"limit": 0}, "limit=0 is not allowed"),
        ({"image_size": 4}, "image_size=4 is not allowed"),
        ({"learning_rate": 0.0}, "learning_rate=0.0 is not allowed"),
        ({"learning_rate": float("nan")}, "learning_rate=nan is not allowed"),
        ({"weight_decay": -0.1}, "weight_decay=-0.1 is not allowed"),
        ({"label_noise": 1.0}, "label_noise=1.0 is not allowed"),
        ({"schedule": "linear"}, "schedule='linear' is not allowed; give one of constant"),
        ({"device": "tpu"}, "device='tpu' is not allowed"),
        ({"preset": "fast"}, "preset='fast' is not allowed; give one of digits"),
    ],
)
def test_what_cannot_work_is_refused(change, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(Config(), **change).check()


def test_an_unknown_preset_is_refused():
    with pytest.raises(InputError, match="preset='fast' is not allowed"):
        load_preset("fast")


def test_keys_may_be_written_with_dashes_or_underscores():
    assert from_mapping({"batch_size": 8}, "here") == from_mapping({"batch-size": 8}, "here")
