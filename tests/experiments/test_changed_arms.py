"""Arms with changes of training: how they are given, trained, stopped and shown."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from helpers.stopped_runs import Quiet, again, rows_of, small_run, stopped

import saln
from saln.cli import main
from saln.errors import InputError
from saln.experiments import compare
from saln.experiments.arm import UNIFORM, keeps_all, read_arm
from saln.experiments.config import Config, from_mapping, load_toml
from saln.experiments.kept_examples import read_choices, read_examples
from saln.training.changes import EMA, GCE, Relabel, Targets


@pytest.mark.parametrize(
    ("method", "label"),
    [
        ("uniform+gce(q=0.7)", "uniform+gce"),
        ("uniform + gce(q=0.5)", "uniform+gce(q=0.5)"),
        ("coherence+ema+smoothing:share=0.2", "coherence+smoothing(share=0.2)+ema"),
        ("jest:chunks=4+ema", "jest(chunks=4)+ema"),
        ("top-loss:beta=1e+3+ema", "top-loss(beta=1000.0)+ema"),
        ("standard+targets(features=0.3,beliefs=0.7)",
         "standard+targets(beliefs=0.7,features=0.3)"),
    ],
)  # fmt: skip
def test_an_arm_is_a_selector_and_changes(method, label):
    arm = read_arm(method)
    assert arm.label == label
    assert read_arm(arm.text) == read_arm(label) == arm
    assert not arm.is_baseline
    assert keeps_all(label) == label.startswith("standard") == arm.keeps_all


def test_python_texts_and_files_say_the_same(tmp_path):
    arm = read_arm(saln.JEST(chunks=4), EMA(), GCE(q=0.5))
    methods = ("jest(chunks=4)+gce(q=0.5)+ema", "uniform+relabel")
    assert Config(methods=(arm, read_arm(UNIFORM, Relabel()))).methods == methods
    assert read_arm("jest:chunks=4+ema", GCE(q=0.5)) == arm
    path = tmp_path / "run.toml"
    for text in (f'"{", ".join(methods)}"', json.dumps(methods)):
        path.write_text(f"methods = {text}\n")
        assert load_toml(path).labels == methods


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ("uniform+gcee", r"methods change \+gcee is not allowed; give one of gce, .* mean gce"),
        ("uniform+gce(q=0)", "methods q=0 of gce is not allowed; give a number, above 0, at most"),
        ("uniform+gce+gce(q=0.5)", "uniform has gce and gce; give each change once"),
        ("uniform+", r"uniform\+ is no selector; write a NAME"),
        ("gce(q=0.5)", r"gce\(q=0.5\) is no arm by itself; give uniform\+gce\(q=0.5\)"),
        ("uniform+ema+gce, uniform+gce+ema", "none of them twice"),
    ],
)
def test_what_is_no_arm_is_refused_with_the_cure(method, said):
    with pytest.raises(InputError, match=said):
        Config(methods=method).check()


def test_the_usual_targets_are_those_of_every_arm_that_names_none():
    config = Config(
        methods="uniform, saln+ema, uniform+targets(beliefs=0.5), uniform+relabel",
        targets="features",
        target_share=0.4,
    )
    changes = [arm.all_changes for arm in config.arms]
    usual = Targets(features=0.4)
    assert changes == [(usual,), (EMA(), usual), (Targets(beliefs=0.5),), (Relabel(),)]
    assert all(arm.needs_teacher and arm.needs_features for arm in config.arms)
    # They are no part of its name: uniform is still the control.
    assert config.labels[:2] == ("uniform", "saln+ema")
    assert config.arms[0].is_baseline
    assert Config(targets="beliefs").arms[0].all_changes == (Targets(beliefs=1.0),)
    assert not any(arm.needs_teacher for arm in Config().arms)
    saved = json.loads(json.dumps(config.to_json()))
    assert from_mapping(saved, "config.json").arms[1].all_changes == (EMA(), usual)
    with pytest.raises(InputError, match=r"target_share=0.5 is a share of nothing.*targets=bel"):
        Config(target_share=0.5).check()
    with pytest.raises(InputError, match=r"target_share=0\.0 is not allowed; give a number, ab"):
        Config(targets="beliefs", target_share=0.0).check()


def test_every_arm_that_selects_has_quotas_by_class_on_request():
    config = Config(methods="standard,uniform,jest,coherence,balanced-curriculum", balance=True)
    standard, *selecting = config.arms
    assert not standard.requires
    assert all("believed" in arm.requires and arm.needs_teacher for arm in selecting)
    assert config.arms[2].judge is None
    assert config.arms[3].judge == "labels"  # its own, whoever says the classes
    assert config.labels == tuple(arm.name for arm in config.arms)
    assert from_mapping(json.loads(json.dumps(config.to_json())), "config.json").arms[1].balance
    assert not any("believed" in arm.requires for arm in Config(methods="uniform,jest").arms)


def test_a_run_with_quotas_keeps_as_many_of_each_class(tmp_path):
    """Of ten classes ten are kept: one of each, but where a step has none of a class."""
    missing = {}
    for balance in (False, True):
        config = small_run(
            tmp_path / str(balance), methods=("uniform", "jest"), seeds=(0,), epochs=1,
            batch_size=10, balance=balance,
        )  # fmt: skip
        compare(config, Quiet())
        labels = read_examples(config.out, 0).labels
        for arm in config.labels:
            chosen = read_choices(config.out, arm, 0, len(labels)).shown
            missing[balance, arm] = sum(
                len(set(labels[step.indices]) - set(labels[step.indices][step.positions]))
                for step in chosen
            )
            assert chosen
    # The classes are the believed ones, which few labels differ from.
    assert all(missing[True, arm] <= 1 < missing[False, arm] for arm in ("uniform", "jest"))


METHODS = (
    "uniform", "uniform+gce(q=0.5)", "standard", "standard+smoothing+ema",
    "uniform+targets(beliefs=1.0)",
)  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    config = small_run(
        tmp_path_factory.mktemp("changed"), methods=METHODS, seeds=(0,), label_noise=0.3
    )
    return config, compare(config, Quiet())


def test_each_change_trains_another_network_on_the_same_choices(run):
    config, outcome = run
    rows = {(row["arm"], row["epoch"]): row for row in rows_of(config.out)}
    assert list(outcome.summary.finished) == [read_arm(method).label for method in METHODS]
    for changed, plain in (
        ("uniform+gce(q=0.5)", "uniform"), ("standard+smoothing+ema", "standard")
    ):  # fmt: skip
        for epoch in (1, 2, 3):
            one, other = rows[changed, epoch], rows[plain, epoch]
            assert one["test_loss"] != other["test_loss"]
            assert one["wrong_label_share_kept"] == other["wrong_label_share_kept"]
    assert (config.out / "checkpoints" / "uniform+gce(q=0.5)-seed0.pt").exists()


def test_they_are_compared_with_the_plain_controls(run):
    config, outcome = run
    arms = outcome.summary.finished
    assert arms["uniform"].versus_uniform is None
    gain = arms["uniform+gce(q=0.5)"].versus_uniform
    means = [arms[arm].test_accuracy.mean for arm in ("uniform+gce(q=0.5)", "uniform")]
    assert gain.difference == pytest.approx(means[0] - means[1])
    assert main(["report", str(config.out)]) == 0
    page = (config.out / "report.html").read_text()
    for arm in arms:
        assert arm in page


def test_whoever_asks_the_teacher_pays_for_it(run):
    seconds = {arm: each.seconds for arm, each in run[1].summary.finished.items()}
    assert seconds["uniform+targets(beliefs=1.0)"].features > 0
    assert seconds["uniform+gce(q=0.5)"].features == 0


def test_a_checkpoint_holds_what_was_evaluated(run):
    config, _ = run
    saved = torch.load(config.out / "checkpoints" / "standard+smoothing+ema-seed0.pt")
    plain = torch.load(config.out / "checkpoints" / "standard-seed0.pt")
    assert saved.keys() == plain.keys()  # no names of the average's own


def test_a_stopped_arm_goes_on_with_the_same_rows(run, tmp_path):
    config, _ = run
    whole = {row["arm"]: row for row in rows_of(config.out) if row["epoch"] == 3}
    method = "standard+smoothing+ema"
    part = dataclasses.replace(config, methods=(method, *METHODS[-1:]), out=tmp_path / "run")
    for epochs in (2, 2):  # in the first arm, then in the second
        stopped(part, epochs)
        part = again(part)
    compare(part, Quiet())
    rows = rows_of(part.out)
    assert [row["arm"] for row in rows] == [method] * 3 + [read_arm(METHODS[-1]).label] * 3
    assert [row for row in rows if row["epoch"] == 3] == [whole[row["arm"]] for row in rows[2::3]]


def test_usual_targets_train_as_named_ones_do(run, tmp_path):
    config, _ = run
    usual = dataclasses.replace(config, methods="uniform", targets="beliefs", out=tmp_path / "run")
    summary = compare(usual, Quiet()).summary
    assert (summary.targets, run[1].summary.targets) == ("beliefs (1)", None)
    named = [row for row in rows_of(config.out) if row["arm"].startswith("uniform+t")]
    assert [row | {"arm": ""} for row in rows_of(usual.out)] == [row | {"arm": ""} for row in named]


def test_changes_are_listed(capsys):
    assert main(["list"]) == 0
    listed = capsys.readouterr().out
    assert "+gce        generalized cross-entropy (Zhang and Sabuncu 2018)" in listed
    assert "decay (a number, above 0, below 1; default 0.99)" in listed
