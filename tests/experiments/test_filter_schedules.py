"""A filter ratio that changes from epoch to epoch, and epochs that are not evaluated."""

from __future__ import annotations

import dataclasses
import json
import re

import pytest
from helpers.digits import digits_config
from helpers.known_arms import known_arms
from hypothesis import given
from hypothesis import strategies as st

from saln.cli.display import print_summary
from saln.errors import InputError
from saln.experiments.config import Config, load_toml
from saln.experiments.rows import METRICS, Summary
from saln.experiments.run import compare
from saln.loading.epoch_batches import CandidateBatches
from saln.loading.filter_schedule import FilterSchedule
from saln.loading.selected_batches import SelectedBatches
from saln.report.page import write_report
from saln.selection import Uniform, candidates_needed


class Quiet:
    def __init__(self, stop_after=None):
        self.stop_after = stop_after
        self.done = 0
        self.total = []
        self.advanced = []

    def note(self, text):
        pass

    def begin(self, what, total):
        self.total.append(total)
        self.advanced.append(0)

    def advance(self, examples):
        self.advanced[-1] += examples

    def epoch(self, row, epochs):
        self.done += 1
        if self.done == self.stop_after:
            raise KeyboardInterrupt


@pytest.fixture
def config(tmp_path) -> Config:
    return digits_config(
        limit=150, epochs=5, seeds=(0,), batch_size=8, image_size=8, learner="pixels",
        reference_epochs=1, filter_ratio=0.8, filter_ratio_end=0.5, full_first_epochs=1,
        full_last_epochs=1, out=tmp_path / "run", cache_dir=tmp_path / "cache",
    )  # fmt: skip


def rows_of(path):
    lines = (path / "epochs.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]


EXAMPLES = 121  # 150, less a tenth for validation, less a tenth of that for the reference
RATIOS = (0.0, 0.8, 0.65, 0.5, 0.0)


def test_every_arm_makes_the_steps_of_the_schedule(config):
    """Literal lists: 8 of 8, 40, 23, 16 and 8 candidates a step."""
    every = dataclasses.replace(config, methods=tuple(known_arms()), evaluate_every=5)
    reporter = Quiet()
    summary = compare(every, reporter).summary.to_json()
    per_epoch = [15, 3, 5, 7, 15]
    assert [EXAMPLES // n for n in (8, 40, 23, 16, 8)] == per_epoch
    for arm in known_arms():
        rows = [row for row in rows_of(config.out) if row["arm"] == arm]
        done = [row["steps"] for row in rows]
        plan = [15] * 5 if arm == "standard" else per_epoch
        assert done == [sum(plan[: epoch + 1]) for epoch in range(5)]
        assert rows[-1]["examples_backward"] == 8 * done[-1]
        scored = rows[-1]["examples_forward"] - rows[-1]["examples_backward"]
        # Where nothing is dropped nothing is scored.
        needs = arm in ("jest", "rho-loss", "top-loss", "small-loss", "divbs")
        assert scored == (3 * 40 + 5 * 23 + 7 * 16 if needs else 0)
    assert config.filter_schedule().steps(EXAMPLES, 8) == sum(per_epoch)
    assert reporter.advanced == reporter.total
    assert summary["filter_schedule"] == (
        "0.8 to 0.5, all data in the first 1 epoch, all data in the last 1 epoch"
    )
    page = write_report(config.out).read_text()
    assert "filter ratio 0.8 to 0.5, all data in the first 1 epoch" in page


def test_a_run_goes_on_in_the_middle_of_a_schedule(config, tmp_path):
    small = dataclasses.replace(
        config, methods=("saln", "top-loss", "infobatch"), schedule="onecycle", evaluate_every=2
    )
    whole = dataclasses.replace(small, out=tmp_path / "whole")
    compare(whole, Quiet())
    with pytest.raises(KeyboardInterrupt):
        compare(small, Quiet(stop_after=8))  # in the third epoch of top-loss
    compare(dataclasses.replace(small, resume=True), Quiet())
    assert rows_of(small.out) == rows_of(whole.out)


def test_other_schedules_are_not_resumed(config):
    small = dataclasses.replace(config, methods=("uniform",))
    with pytest.raises(KeyboardInterrupt):
        compare(small, Quiet(stop_after=2))
    with pytest.raises(InputError, match=r"filter.ratio.end"):
        compare(dataclasses.replace(small, resume=True, filter_ratio_end=0.6), Quiet())


def test_epochs_that_are_not_evaluated(config, capsys):
    one = dataclasses.replace(
        config, methods=("standard", "uniform", "top-loss"), evaluate_every=2, seeds=(0, 1)
    )
    summary = compare(one, Quiet()).summary.to_json()
    for row in rows_of(config.out):
        measured = row["epoch"] in (2, 4, 5)
        assert all((row[name] is not None) == measured for name in METRICS)
        assert row["steps"] > 0
    entry = summary["arms"]["uniform"]
    last = [row for row in rows_of(config.out) if row["arm"] == "uniform" and row["epoch"] == 5]
    assert entry["test_accuracy"]["per_seed"] == [row["test_accuracy"] for row in last]
    assert entry["at_equal_steps"]["standard"] is not None
    write_report(config.out)
    lines = (config.out / "figures" / "test_accuracy_over_steps.csv").read_text().splitlines()
    curve = [line.split(",")[1] for line in lines if line.startswith("uniform,")]
    assert [float(x) for x in curve] == [19.0, 32.0, 48.0]  # of 135 examples: no reference
    print_summary(Summary.from_json(summary))
    assert "nan" not in capsys.readouterr().out


def test_evaluating_less_changes_nothing_else(config, tmp_path):
    often = dataclasses.replace(config, methods=("uniform", "jest"))
    seldom = dataclasses.replace(often, evaluate_every=5, out=tmp_path / "seldom")
    compare(often, Quiet())
    compare(seldom, Quiet())
    pairs = zip(rows_of(often.out), rows_of(seldom.out), strict=True)
    for one, other in pairs:
        assert all(other[name] in (one[name], None) for name in one)
        assert other["epoch"] < 5 or one == other


@given(
    st.integers(40, 300), st.integers(1, 8), st.floats(0, 0.9), st.floats(0, 0.9),
    st.integers(1, 6), st.integers(0, 2), st.integers(0, 2),
)  # fmt: skip
def test_candidates_are_those_of_the_sampler(examples, k, start, end, ramp, first, last):
    """Both ways of loading see the same candidates, as many as the schedule says."""
    epochs = first + ramp + last
    schedule = FilterSchedule(start, end, epochs, first, last, first_epoch=1)
    if schedule.candidates(k) > examples:
        return
    candidates = CandidateBatches(examples, k, schedule, seed=3)
    sampler = SelectedBatches(
        examples, selector=Uniform(), batch_size=k, filter_ratio=schedule, seed=3, ahead=0
    )
    steps = 0
    for epoch in range(1, epochs + 1):
        candidates.set_epoch(epoch)
        sampler.set_epoch(epoch)
        batches = list(candidates)
        assert len(batches) == len(candidates) == len(sampler)
        steps += len(batches)
        n = candidates_needed(k, schedule.ratio(epoch))
        for batch, kept in zip(batches, sampler, strict=True):
            assert len(set(batch)) == n
            assert len(kept) == k
            assert set(kept) <= set(batch)
    assert steps == schedule.steps(examples, k)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"filter_ratio_end": 1.0}, "filter_ratio_end=1.0 is not allowed; give a number"),
        ({"filter_ratio_end": -0.1}, "filter_ratio_end=-0.1 is not allowed"),
        ({"full_first_epochs": -1}, "full_first_epochs=-1 is not allowed"),
        ({"full_last_epochs": 4}, "full_first_epochs=1 and full_last_epochs=4 leave none of 5"),
        ({"evaluate_every": 0}, "evaluate_every=0 is not allowed"),
    ],
)
def test_schedules_that_cannot_work_are_refused(config, changes, message):
    with pytest.raises(InputError, match=re.escape(message)):
        compare(dataclasses.replace(config, **changes), Quiet())
    assert not config.out.exists()


def test_too_many_candidates_anywhere_in_the_schedule(config):
    steep = dataclasses.replace(config, filter_ratio=0.5, filter_ratio_end=0.99)
    with pytest.raises(InputError, match="needs 800 candidates for a step"):
        compare(steep, Quiet())


def test_a_file_sets_a_schedule(tmp_path):
    path = tmp_path / "ramp.toml"
    path.write_text("filter-ratio = 0.9\nfilter-ratio-end = 0.5\nfull-last-epochs = 2\n")
    found = load_toml(path)
    assert (found.filter_ratio_end, found.full_last_epochs) == (0.5, 2)
    assert str(found.filter_schedule()) == "0.9 to 0.5, all data in the last 2 epochs"
