"""Rows, costs and summaries as values: read once, with the field named, and written as read."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from helpers.experiments_rows import COSTS, ROWS, about, summary_of
from helpers.golden import FOLDER

from saln.errors import DataError
from saln.experiments.json_record import FieldError, json_lines
from saln.experiments.rows import (
    METRICS,
    ArmCost,
    ArmSummary,
    EpochRow,
    PhaseSeconds,
    StoppedArm,
    Summary,
    row_of_line,
)

RUN = FOLDER / "run"


def line(**changes: Any) -> bytes:
    return json.dumps(ROWS[0] | changes).encode()


def row(**changes: Any) -> EpochRow:
    return row_of_line(line(**changes), "epochs.jsonl", 12, "remove the line")


def test_what_a_run_of_before_holds_is_written_back_to_the_last_byte():
    lines = (RUN / "epochs.jsonl").read_bytes()
    rows = [row_of_line(each, "x", 1, "y") for each in lines.splitlines()]
    assert json_lines(rows) == lines
    text = (RUN / "summary.json").read_text()
    summary = Summary.read(RUN / "summary.json", "")
    assert json.dumps(summary.to_json(), indent=2) + "\n" == text
    assert isinstance(summary.arms["saln"], ArmSummary)
    assert summary.finished["saln"].test_accuracy.mean == pytest.approx(0.4125)
    for cost in json.loads((RUN / "progress.json").read_text())["costs"]:
        assert json.dumps(ArmCost.from_json(cost).to_json()) == json.dumps(cost)


def test_a_new_row_has_the_fields_in_their_order():
    seconds = PhaseSeconds(1.0, 0.0, 0.0, 2.0, 5.0)
    counts = {"steps": 1, "examples_forward": 2, "examples_backward": 3}
    named = {"arm": "saln", "seed": 0, "epoch": 1, **counts, "seconds": seconds}
    measured = EpochRow(**named, **dict.fromkeys(METRICS, 0.5))
    head = ["arm", "seed", "epoch", *counts]
    by_split = [f"{split}_{what}" for split in ("train", "validation", "test")
                for what in ("accuracy", "loss")]  # fmt: skip
    assert list(measured.to_json()) == [*head, *by_split, "wrong_label_share_kept", "seconds"]
    unmeasured = EpochRow(**named)
    assert list(unmeasured.to_json()) == [*head, *METRICS, "wrong_label_share_kept", "seconds"]
    assert not unmeasured.evaluated
    assert seconds.spent == 3.0


def test_unknown_fields_keep_their_places():
    raw = {"arm": "saln", "energy": {"joules": 3}, **ROWS[0], "note": [1, None]}
    raw["seconds"] = {"wait": 9.5, **ROWS[0]["seconds"]}
    read = EpochRow.from_json(raw)
    assert json.dumps(read.to_json()) == json.dumps(raw)
    changed = dataclasses.replace(read, steps=11)
    assert json.dumps(changed.to_json()) == json.dumps(raw | {"steps": 11})
    assert read.seconds.extra == {"wait": 9.5}
    assert read != EpochRow.from_json(ROWS[0])


def test_rows_of_an_older_version_are_read_and_written_without_the_newer_fields():
    old = {name: value for name, value in ROWS[0].items() if name != "wrong_label_share_kept"}
    read = EpochRow.from_json(old)
    assert read.wrong_label_share_kept is None
    assert json.dumps(read.to_json()) == json.dumps(old)
    later = dataclasses.replace(read, wrong_label_share_kept=0.25)
    assert later.to_json()["wrong_label_share_kept"] == 0.25


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seconds": ROWS[0]["seconds"] | {"train": "abc"}},
         "seconds.train is 'abc'; give a number"),
        ({"steps": 1.5}, "steps is 1.5; give a whole number"),
        ({"seed": True}, "seed is True; give a whole number"),
        ({"arm": 3}, "arm is 3; give text"),
        ({"seconds": [1]}, "seconds is [1]; give an object with named fields"),
        ({"test_loss": "low"}, "test_loss is 'low'; give a number or null"),
        ({"test_loss": None}, "test_loss is missing beside train_accuracy; give it"),
    ],
)  # fmt: skip
def test_a_field_that_is_none_is_named(changes, said):
    with pytest.raises(DataError) as error:
        row(**changes)
    assert str(error.value) == f"epochs.jsonl line 12: {said}, or remove the line"


def test_a_missing_field_and_a_torn_line_are_named():
    with pytest.raises(DataError, match=r"line 3: seed is missing; give a whole number, or cure"):
        row_of_line(b'{"arm": "saln"}', "epochs.jsonl", 3, "cure")
    with pytest.raises(DataError, match=r"epochs\.jsonl line 3 is no JSON \(.*\); cure"):
        row_of_line(b'{"arm": "sa', "epochs.jsonl", 3, "cure")
    with pytest.raises(DataError, match=r"line 3: it is 7; give an object with named fields"):
        row_of_line(b"7", "epochs.jsonl", 3, "cure")


def test_a_summary_names_the_field_inside(tmp_path):
    good = summary_of().to_json()
    assert Summary.from_json(good).to_json() == good
    source = tmp_path / "summary.json"
    for change, said in (
        (lambda s: s["arms"]["saln"]["test_accuracy"].update(mean="x"),
         "arms.saln.test_accuracy.mean is 'x'; give a number"),
        (lambda s: s["arms"]["saln"]["test_accuracy"].update(ci95=[1]),
         r"arms.saln.test_accuracy.ci95 is \[1\]; give 2 values"),
        (lambda s: s["arms"]["saln"]["break_even"]["uniform"].pop("verdict"),
         "arms.saln.break_even.uniform.verdict is missing; give text"),
        (lambda s: s.update(seeds=[0, "1"]), r"seeds\[1\] is '1'; give a whole number"),
        (lambda s: s.update(arms={"saln": 3}), "arms.saln is 3; give an object"),
    ):  # fmt: skip
        bad = json.loads(json.dumps(good))
        change(bad)
        source.write_text(json.dumps(bad))
        with pytest.raises(DataError, match=rf"summary\.json: {said}.*, or run again"):
            Summary.read(source, "run again")


def test_a_summary_of_an_older_version_is_read():
    """From before runs were compared at equal costs, and kept one-off examples and memory."""
    newer = {"at_equal_steps", "at_equal_seconds", "break_even", "versus_standard", "peak_bytes",
             "seconds_to_standard", "one_off_examples", "wrong_label_share_kept"}  # fmt: skip
    old = summary_of().to_json()
    arms = {
        arm: {name: value for name, value in entry.items() if name not in newer}
        for arm, entry in old["arms"].items()
    }
    read = Summary.from_json(old | {"arms": arms})
    assert json.dumps(read.to_json()["arms"]) == json.dumps(arms)
    assert read.finished["saln"].break_even == {}


def test_stopped_arms_have_only_their_error():
    summary = summary_of(failures={("saln", 1): "saln, seed 1: the loss is nan"})
    again = Summary.from_json(summary.to_json())
    assert again.arms["saln"] == StoppedArm("saln, seed 1: the loss is nan")
    assert list(again.finished) == ["uniform"]
    assert again.stopped == {"saln": "saln, seed 1: the loss is nan"}
    assert list(again.arms) == ["uniform", "saln"]


def test_facts_of_another_version_stay_in_the_summary():
    summary = summary_of(about(weather="rain"))
    written = summary.to_json()
    assert written["weather"] == "rain"
    assert list(written)[-1] == "arms"


def test_no_number_is_turned_into_another():
    """1 is not written as 1.0: a summary that is made anew has the checksum of the first."""
    cost = COSTS["saln", 0]
    with pytest.raises(FieldError, match="total is missing"):
        ArmCost.from_json({"features": 0, "reference": 0, "save": 1})
    assert ArmCost.from_json(cost).to_json() == cost
    assert type(ArmCost.from_json(cost).total) is int
