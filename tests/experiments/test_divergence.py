"""What diverges stops the arms that need it, and no others."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from helpers.comparisons import Quiet, rows_of
from helpers.digits import digits_config

from saln.errors import ConvergenceError
from saln.experiments import comparison as comparison_module
from saln.experiments import reference_model as reference_module
from saln.experiments import run as run_module
from saln.experiments.run import compare
from saln.selection import SALN


@pytest.fixture
def config(tmp_path):
    return digits_config(
        limit=120, epochs=1, seeds=(0, 1), batch_size=8, filter_ratio=0.5,
        reference_epochs=1, methods=("jest", "uniform", "rho-loss"), backbone="pixels",
        learner="pixels", image_size=8,
        out=tmp_path / "run", cache_dir=tmp_path / "cache",
    )  # fmt: skip


def ruin(learner):
    with torch.no_grad():
        for parameter in learner.parameters():
            parameter.fill_(float("nan"))


def diverging(original, seed, when):
    """Trains as it should, but for one seed, whose weights are lost before or after."""

    def train(learner, batches, settings, **options):
        if settings.seed == seed and when == "before":
            ruin(learner)
        for result in original(learner, batches, settings, **options):
            if settings.seed == seed:
                ruin(learner)
            yield result

    return train


@pytest.mark.parametrize(
    ("when", "said"),
    [("before", "the loss is nan in epoch 1, step 0"), ("after", "its outputs are not finite")],
)
def test_a_reference_model_that_diverges_stops_the_arms_that_need_it(
    config, monkeypatch, when, said
):
    with monkeypatch.context() as patch:
        patch.setattr(reference_module, "train", diverging(reference_module.train, 0, when))
        watching = Quiet()
        outcome = compare(config, watching)
    assert len(outcome.failures) == 2
    for arm, failure in zip(("jest", "rho-loss"), outcome.failures, strict=True):
        assert failure.startswith(f"{arm}, seed 0: its reference model diverged: {said}")
        assert failure.endswith("lower learning_rate")
        assert len(failure.splitlines()) == 1
    assert [(row["arm"], row["seed"]) for row in rows_of(config.out)] == [
        ("uniform", 0), ("jest", 1), ("uniform", 1), ("rho-loss", 1),
    ]  # fmt: skip
    arms = outcome.summary.to_json()["arms"]
    assert [name for name, entry in arms.items() if "error" in entry] == ["jest", "rho-loss"]
    assert any(note.startswith(f"reference model, seed 0: {said}") for note in watching.notes)
    # The other arms' rows are those of a run in which nothing diverged.
    whole = dataclasses.replace(config, out=config.out.with_name("whole"))
    compare(whole, Quiet())
    mine, theirs = (
        [row | {"seconds": None} for row in rows_of(path) if row["arm"] == "uniform"]
        for path in (config.out, whole.out)
    )
    assert mine == theirs


def test_going_on_trains_no_reference_model_for_arms_that_were_stopped(config, monkeypatch):
    trained = []
    original = comparison_module.train_reference

    class Stops(Quiet):
        def epoch(self, row, epochs):
            raise KeyboardInterrupt

    def counted(*arguments, **options):
        trained.append(arguments)
        return original(*arguments, **options)

    monkeypatch.setattr(comparison_module, "train_reference", counted)
    monkeypatch.setattr(reference_module, "train", diverging(reference_module.train, 0, "before"))
    one = dataclasses.replace(config, seeds=(0,), methods=("jest", "rho-loss", "uniform"))
    with pytest.raises(KeyboardInterrupt):
        compare(one, Stops())  # both have failed, uniform has a row
    assert len(trained) == 1
    outcome = compare(dataclasses.replace(one, resume=True), Quiet())
    assert len(trained) == 1
    assert [failure.split(",")[0] for failure in outcome.failures] == ["jest", "rho-loss"]
    assert [row["arm"] for row in rows_of(config.out)] == ["uniform"]


def test_a_learner_that_its_last_step_ruins_is_stopped_alone(config, monkeypatch):
    """No loss in training shows it; a row with NaN would be no JSON."""
    original = run_module.train_arm

    def train_arm(comparison, arm, *rest):
        measure = comparison.measuring.measure

        def ruined(learner, splits, body):
            if arm.label == "uniform":
                ruin(learner)
            return measure(learner, splits, body)

        with monkeypatch.context() as patch:
            patch.setattr(comparison.measuring, "measure", ruined)
            return original(comparison, arm, *rest)

    monkeypatch.setattr(run_module, "train_arm", train_arm)
    one = dataclasses.replace(config, seeds=(0,), methods=("standard", "uniform", "rho-loss"))
    outcome = compare(one, Quiet())
    assert outcome.failures == (
        "uniform, seed 0: the train loss is nan after epoch 1; lower learning_rate",
    )
    assert [row["arm"] for row in rows_of(config.out)] == ["standard", "rho-loss"]
    assert "NaN" not in (config.out / "epochs.jsonl").read_text()


def test_a_selector_that_finds_no_answer_is_stopped_alone(config, monkeypatch):
    def choose(self, candidates, k, generator):
        raise ConvergenceError("the eigensolver gave up; take another selector")

    monkeypatch.setattr(SALN, "choose", choose)
    one = dataclasses.replace(config, seeds=(0,), methods=("saln", "uniform"))
    outcome = compare(one, Quiet())
    assert outcome.failures == ("saln, seed 0: the eigensolver gave up; take another selector",)
    assert [row["arm"] for row in rows_of(config.out)] == ["uniform"]
