"""Runs that are killed and go on: the rows are those of a run that was left alone."""

from __future__ import annotations

import dataclasses
import json
import random
import shutil
import subprocess
import sys
import time

import pytest
import torch
from helpers.stopped_runs import (
    Quiet,
    again,
    rows_of,
    small_run,
    stopped,
    summary_of,
)

from saln import files
from saln.errors import InputError
from saln.experiments import arm_states
from saln.experiments import progress as progress_module
from saln.experiments.config import Config
from saln.experiments.progress import RowLog
from saln.experiments.run import compare
from saln.experiments.run_folder import read_settings
from saln.files import signed
from saln.selection import SALN, SELECTORS
from saln.selection.candidates import Selection
from saln.training.cost_ledger import PHASES

SMALL = (
    "--limit", "90", "--epochs", "6", "--seeds", "0,1", "--batch-size", "6",
    "--reference-epochs", "3", "--methods", "jest,saln",
)  # fmt: skip


@pytest.fixture
def config(tmp_path) -> Config:
    return small_run(tmp_path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Config:
    """The same run, finished, for the tests that only read it."""
    config = small_run(tmp_path_factory.mktemp("whole"))
    compare(config, Quiet())
    return config


def count_lines(path):
    rows = path / "epochs.jsonl"
    return rows.read_bytes().count(b"\n") if rows.exists() else 0


class Killed(BaseException):
    """Stands for SIGKILL: nothing that catches exceptions catches it."""


def test_a_run_killed_at_random_moments_goes_on(warm, tmp_path):
    """Real processes, real SIGKILL, some before the next row and some a few rows on."""
    environment = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    whole, out = tmp_path / "whole", tmp_path / "out"
    ended = warm.run(["compare", *SMALL, "--out", whole], tmp_path, environment=environment)
    assert ended.returncode == 0, ended.stderr
    moments = random.Random(4)
    # By rows, not by the clock alone: on a fast machine the run would be over too soon.
    further = moments.sample((0, 2, 4, 5, 7), 5)
    killed = 0
    for attempt in range(40):
        begun = (out / "config.json").exists()
        environment_file = out / "environment.json"
        before = environment_file.read_bytes() if environment_file.exists() else b""
        arguments = ("--resume",) if begun else SMALL
        process = warm.start(
            ["compare", *arguments, "--out", out], tmp_path, environment=environment
        )
        # Written when the run begins or goes on: from then the moment is counted.
        while process.poll() is None and (
            not environment_file.exists() or environment_file.read_bytes() == before
        ):
            time.sleep(0.005)
        if attempt < 5:
            more = further[attempt]
            time.sleep(0 if more else moments.uniform(0, 0.3))
            many = count_lines(out) + more
            while process.poll() is None and count_lines(out) < many:
                time.sleep(0.005)
            time.sleep(moments.uniform(0, 0.02) if more else 0)
            process.kill()
        status = process.wait()
        assert status in (0, -9), (tmp_path / "process.err").read_text()
        killed += status == -9
        if status == 0:
            break
    assert killed >= 4  # the run was not over before it was killed
    assert rows_of(out) == rows_of(whole)
    assert len(rows_of(out)) == 2 * 2 * 6
    assert summary_of(out) == summary_of(whole)
    assert not (out / "resume").exists()
    for name in ("jest-seed0.pt", "saln-seed1.pt"):
        one, two = (torch.load(path / "checkpoints" / name) for path in (out, whole))
        assert all(torch.equal(one[key], two[key]) for key in two)


def test_killed_before_or_within_any_write_it_goes_on(config, whole, monkeypatch):
    """A kill between any two writes, and in the middle of any line, chained to the end."""
    left = [0]

    def dying(write):
        def wrapped(*arguments, **options):
            left[0] -= 1
            if left[0] == 0:
                raise Killed
            return write(*arguments, **options)

        return wrapped

    def torn(self, lines):
        left[0] -= 1
        if left[0] == 0:
            self.stream.write(lines[: len(lines) // 2])
            raise Killed
        append(self, lines)

    append = RowLog._append
    monkeypatch.setattr(RowLog, "_append", torn)
    deadly = dying(files.write_with)  # every other write ends there
    for module in (files, progress_module, arm_states):
        monkeypatch.setattr(module, "write_with", deadly)
    kills = 0
    # When going on it writes three times before the first epoch: rows, environment, progress.
    for writes in (2, 3, 4, *range(1, 30)):
        left[0] = writes
        begun = (config.out / "config.json").exists()
        try:
            outcome = compare(again(config) if begun else config, Quiet())
            break
        except Killed:
            kills += 1
    assert kills > 8
    assert not outcome.nothing_to_do
    assert rows_of(config.out) == rows_of(whole.out)
    assert summary_of(config.out) == summary_of(whole.out)


def test_only_what_was_missing_is_done(config):
    first = stopped(config, 4)
    assert first.notes[-1].endswith(f"go on with: saln compare --resume --out {config.out}")
    second = Quiet()
    compare(again(config), second)
    assert first.epochs[-1] == ("jest", 0, 1)
    assert second.epochs[0] == ("jest", 0, 2)
    assert len(first.epochs + second.epochs) == 2 * 2 * 3
    # The reference model of seed 0 was kept, that of seed 1 was still to be trained.
    assert second.begun[0] == "jest, seed 0, from epoch 2"
    assert [what for what in second.begun if "reference" in what] == ["reference model, seed 1"]
    assert not (config.out / "resume").exists()
    environment = json.loads((config.out / "environment.json").read_text())
    assert len(environment["resumed"]) == 1


def test_seconds_before_the_stop_stay_counted(config):
    stopped(config, 5)
    state = torch.load(config.out / "resume" / "jest-seed0.pt")
    reference = torch.load(config.out / "resume" / "reference-0.pt")
    spent = state["ledger"]["total"]
    time.sleep(1)  # nobody trains: this counts nowhere
    summary = compare(again(config), Quiet()).summary.to_json()
    jest = json.loads((config.out / "progress.json").read_text())["costs"][1]
    assert (jest["arm"], jest["seed"]) == ("jest", 0)
    assert jest["reference"] == reference["seconds"] > 0
    lines = [json.loads(line) for line in (config.out / "epochs.jsonl").read_text().splitlines()]
    rows = [row for row in lines if (row["arm"], row["seed"]) == ("jest", 0)]
    parts = sum(row["seconds"][name] for row in rows for name in PHASES)
    assert sum(rows[0]["seconds"].values()) < spent
    # Between the phases a busy machine may do something else for a moment.
    assert -0.01 < jest["total"] - (parts + jest["reference"] + jest["save"]) < 0.9
    assert summary["arms"]["jest"]["seconds"]["total"] >= spent / 2


def test_a_schedule_goes_on_where_it_was(config, tmp_path):
    bent = dataclasses.replace(
        config, schedule="onecycle", methods=("uniform",), learner="small-cnn"
    )
    whole = dataclasses.replace(bent, out=tmp_path / "whole")
    compare(whole, Quiet())
    stopped(bent, 2)
    compare(again(bent), Quiet())
    assert rows_of(bent.out) == rows_of(whole.out)


def test_what_a_selector_remembers_goes_on(config, tmp_path, monkeypatch):
    """A rule that keeps other candidates the more often it was asked."""

    class Remembering(SALN):
        def __init__(self):
            self.asked = 0

        def choose(self, candidates, k, generator):
            self.asked += 1
            positions = (torch.arange(k) + self.asked) % len(candidates)
            return Selection(positions)

        def state_dict(self):
            return {"asked": self.asked}

        def load_state_dict(self, state):
            self.asked = state["asked"]

    monkeypatch.setitem(SELECTORS, "saln", Remembering)
    one = dataclasses.replace(config, methods=("saln",), seeds=(0,))
    whole = dataclasses.replace(one, out=tmp_path / "whole")
    compare(whole, Quiet())
    stopped(one, 2)
    compare(again(one), Quiet())
    assert rows_of(one.out) == rows_of(whole.out)


def test_a_failed_arm_is_not_run_again(config, monkeypatch):
    diverging = dataclasses.replace(config, learning_rate=1e38, methods=("uniform", "standard"))

    class Stops(Quiet):
        def note(self, text):
            super().note(text)
            if text.startswith("stopped uniform"):
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare(diverging, Stops())
    second = Quiet()
    outcome = compare(again(diverging), second)
    assert "uniform, seed 0" not in second.begun
    assert len(outcome.failures) == 4
    assert outcome.failures[0].startswith("uniform, seed 0: the loss is")


def test_a_finished_run_is_left_alone(whole):
    before = {path: path.stat().st_mtime_ns for path in whole.out.rglob("*")}
    outcome = compare(again(whole), Quiet())
    assert outcome.nothing_to_do
    assert {path: path.stat().st_mtime_ns for path in whole.out.rglob("*")} == before


def test_seeds_are_added_to_a_finished_run(config, whole, tmp_path):
    """A run of two seeds and one more is the run of three, even when stopped on the way."""
    shutil.copytree(whole.out, config.out)
    whole = dataclasses.replace(config, seeds=(0, 1, 2), out=tmp_path / "whole")
    compare(whole, Quiet())
    weights = config.out / "checkpoints" / "jest-seed1.pt"
    before = weights.stat().st_mtime_ns
    first = stopped(again(config, seeds=(0, 1, 2)), 2)
    assert first.epochs == [("uniform", 2, 1), ("uniform", 2, 2)]
    assert not (config.out / "summary.json").exists()
    second = Quiet()
    stored = again(read_settings(config.out), out=config.out)
    compare(stored, second)  # as the command does without --seeds
    assert second.epochs[0] == ("uniform", 2, 3)
    assert rows_of(config.out) == rows_of(whole.out)
    assert summary_of(config.out) == summary_of(whole.out)
    assert weights.stat().st_mtime_ns == before
    with pytest.raises(InputError, match=r"resume: seeds was 0,1,2 .* give 0,1,2 and further"):
        compare(again(config), Quiet())
    assert compare(stored, Quiet()).nothing_to_do


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 4}, "epochs was 3 when the run in .* began and is 4 now; leave epochs out"),
        ({"seeds": (0, 2)}, "seeds was 0,1 when .* and is 0,2 now"),
        ({"methods": ("uniform",)}, "methods was uniform,jest when"),
        ({"preset": None}, "preset was digits when"),
        ({"learning_rate": 0.5}, "learning_rate was 0.02 when"),
        ({"threads": 2}, "threads was 1 when"),
    ],
)
def test_other_settings_are_refused(config, change, message):
    stopped(config, 1)
    before = (config.out / "epochs.jsonl").read_bytes()
    with pytest.raises(InputError, match=message):
        compare(again(config, **change), Quiet())
    assert (config.out / "epochs.jsonl").read_bytes() == before


def test_what_changes_no_row_may_differ(config, tmp_path):
    stopped(config, 5)
    moved = again(config, cache_dir=tmp_path / "elsewhere", workers=1, data_root=tmp_path)
    assert not compare(moved, Quiet()).failures


def test_settings_are_read_back_as_they_were(config):
    stopped(config, 1)
    assert read_settings(config.out) == config


def test_changed_data_or_device_is_refused(config):
    stopped(config, 1)
    path = config.out / "progress.json"
    saved = json.loads(path.read_text())
    for name, message in (
        ("data set's fingerprint", "the data set's fingerprint was other when"),
        ("device", "device was other when the run in .* began and is cpu now"),
    ):
        changed = saved | {"facts": saved["facts"] | {name: "other"}}
        path.write_text(json.dumps(signed(changed)))
        with pytest.raises(InputError, match=message):
            compare(again(config), Quiet())


def test_a_run_with_another_process_at_work_is_refused(config, tmp_path):
    stopped(config, 1)
    code = (
        "import fcntl, sys\n"
        "stream = open(sys.argv[1] + '/.lock', 'ab')\n"
        "fcntl.lockf(stream, fcntl.LOCK_EX)\n"
        "print('held', flush=True)\n"
        "sys.stdin.read()\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(config.out)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(InputError, match="another process is at work on a run there"):
            compare(again(config), Quiet())
        holder.stdin.close()
    assert not compare(again(config), Quiet()).failures


def test_no_folder_or_no_run_is_refused(config, tmp_path):
    with pytest.raises(InputError, match=r"resume needs the folder .* give out=DIR"):
        compare(again(config, out=None), Quiet())
    with pytest.raises(InputError, match="holds no run; give the folder of a run with out"):
        compare(again(config), Quiet())
    assert not config.out.exists()
