"""Tuning of a comparison's arms: what is tried, chosen, charged, kept and taken again."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from helpers.stopped_runs import Quiet, rows_of, small_run, summary_of, without_clock

from saln.cli import main
from saln.experiments.config import Config
from saln.experiments.run import compare
from saln.experiments.search import SEARCHES
from saln.experiments.trials import Point
from saln.report.page import write_report
from saln.report.reported_run import read_run
from saln.report.tables import verdicts

# A hundredth of what suits a layer on pixels.
BAD = 2e-6


def config_of(folder: Path, **changes: Any) -> Config:
    given = {"methods": ("uniform", "coherence"), "learning_rate": BAD, "learner": "pixels"}
    tuned = {"filter_ratio": 0.5, "tune": 7, "schedule": "constant", "epochs": 2}
    return small_run(folder, **(given | tuned | changes))


def trials_of(path: Path) -> list[dict[str, Any]]:
    lines = (path / "trials.jsonl").read_text().splitlines()
    return [{**json.loads(line), "seconds": None} for line in lines]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Config:
    config = config_of(tmp_path_factory.mktemp("tuned"))
    compare(config, Quiet())
    return config


def test_an_arm_with_a_bad_rate_recovers(tmp_path: Path):
    network = {"learner": "small-cnn", "limit": 200, "epochs": 4, "learning_rate": 1.0}
    untuned = config_of(
        tmp_path, methods=("uniform",), seeds=(0,), out=tmp_path / "bad", **network, tune=0
    )
    tuned = dataclasses.replace(untuned, tune=5, out=tmp_path / "tuned")
    compare(untuned, Quiet())
    compare(tuned, Quiet())
    bad, good = (
        json.loads((tmp_path / name / "summary.json").read_text())["arms"]["uniform"]
        for name in ("bad", "tuned")
    )
    assert bad["test_accuracy"]["mean"] < 0.3 < 0.5 < good["test_accuracy"]["mean"]
    assert good["tuned"]["learning_rate"] < 0.5
    # Without tuning the files are what they were.
    assert "tuned" not in bad
    assert "tune" not in bad["seconds"]
    assert not (tmp_path / "bad" / "trials.jsonl").exists()
    assert "trials" not in json.loads((tmp_path / "bad" / "progress.json").read_text())


def test_every_arm_has_the_same_trials_and_the_ledger_has_what_they_cost(finished: Config):
    assert finished.out is not None
    lines = [json.loads(line) for line in (finished.out / "trials.jsonl").read_text().splitlines()]
    arms = json.loads((finished.out / "summary.json").read_text())["arms"]
    for arm in ("uniform", "coherence"):
        mine, entry = [line for line in lines if line["arm"] == arm], arms[arm]
        assert [line["trial"] for line in mine] == list(range(1, 8))
        assert {line["seed"] for line in mine} == {0}
        rates = [line["learning_rate"] / BAD for line in mine[:5]]
        assert rates == pytest.approx([1, 3, 1 / 3, 10, 0.1])
        assert [line["weight_decay"] for line in mine] == [0.0] * 5 + [5e-4] * 2
        # Each is the whole training of the arm.
        assert {line["examples_backward"] for line in mine} == {entry["examples_backward"]}
        best = max(mine, key=lambda line: (line["validation_accuracy"], -line["validation_loss"]))
        tuned, seconds = entry["tuned"], sum(line["seconds"] for line in mine)
        for name in ("learning_rate", "weight_decay", "validation_accuracy"):
            assert tuned[name] == best[name]
        assert (tuned["trials"], tuned["lost"]) == (7, 0)
        assert tuned["on_edge"] == (best["learning_rate"] / BAD > 5 or best["trial"] == 5)
        assert tuned["examples_backward"] == 7 * entry["examples_backward"]
        assert entry["seconds"]["tune"] == tuned["seconds"] == pytest.approx(seconds)
        # Beside the total, not in it: that is of the seeds alone.
        costs = json.loads((finished.out / "progress.json").read_text())["costs"]
        totals = [cost["total"] for cost in costs if cost["arm"] == arm]
        assert entry["seconds"]["total"] == pytest.approx(sum(totals) / 2)


def test_an_arm_trains_as_it_would_with_the_chosen_values_given(finished: Config, tmp_path: Path):
    assert finished.out is not None
    tuned = json.loads((finished.out / "summary.json").read_text())["arms"]["uniform"]["tuned"]
    given = {name: tuned[name] for name in ("learning_rate", "weight_decay")}
    plain = config_of(tmp_path, tune=0, methods=("uniform",), cache_dir=finished.cache_dir, **given)
    compare(plain, Quiet())
    rows = [row for row in rows_of(finished.out) if row["arm"] == "uniform"]
    assert rows_of(tmp_path / "run") == rows
    # The trial of these values was the same training, on the first seed.
    end = [row for row in rows if row["seed"] == 0][-1]
    assert end["validation_accuracy"] == tuned["validation_accuracy"]


@pytest.mark.parametrize("where", ["uniform, trial 3", "coherence, trial 7", "coherence, seed 0"])
def test_a_run_that_is_stopped_goes_on_with_the_trials_it_has(
    finished: Config, tmp_path: Path, where: str
):
    class Stopping(Quiet):
        def begin(self, what: str, total: int) -> None:
            super().begin(what, total)
            if what.startswith(where):
                raise KeyboardInterrupt

    assert finished.out is not None
    config = dataclasses.replace(finished, out=tmp_path / "run")
    watching = Stopping()
    with pytest.raises(KeyboardInterrupt):
        compare(config, watching)
    assert any("--resume" in note for note in watching.notes)
    before = (tmp_path / "run" / "trials.jsonl").read_bytes()
    with (tmp_path / "run" / "trials.jsonl").open("ab") as stream:
        stream.write(b'{"arm": "uni')  # torn by the kill
    again = Quiet()
    compare(dataclasses.replace(config, resume=True), again)
    assert (tmp_path / "run" / "trials.jsonl").read_bytes().startswith(before)
    assert trials_of(tmp_path / "run") == trials_of(finished.out)
    assert rows_of(tmp_path / "run") == rows_of(finished.out)
    assert without_clock(summary_of(tmp_path / "run")) == without_clock(summary_of(finished.out))
    # None is done twice.
    begun = [what for watch in (watching, again) for what in watch.begun if ", trial " in what]
    assert len(begun) == 14 + (", trial " in where)


def test_further_seeds_are_trained_with_what_was_chosen(finished: Config, tmp_path: Path):
    assert finished.out is not None
    shutil.copytree(finished.out, tmp_path / "run")
    more = dataclasses.replace(finished, out=tmp_path / "run", resume=True, seeds=(0, 1, 2))
    watching = Quiet()
    compare(more, watching)
    assert not [what for what in watching.begun if "trial" in what]
    assert trials_of(tmp_path / "run") == trials_of(finished.out)
    tuned = [json.loads((path / "summary.json").read_text())["arms"]["coherence"]["tuned"]
             for path in (tmp_path / "run", finished.out)]  # fmt: skip
    assert tuned[0] == tuned[1]


def test_a_trial_that_diverges_is_lost_and_its_arm_is_not(tmp_path: Path, monkeypatch):
    points = [Point(0.02, 0.0), Point(1e38, 0.0), Point(0.01, 0.0)]
    monkeypatch.setitem(SEARCHES, "grid", lambda start, trials, before: points[len(before)])
    config = config_of(tmp_path, tune=3, methods=("uniform",), epochs=2, tune_seeds=2)
    assert not compare(config, Quiet()).failures
    trials = trials_of(tmp_path / "run")
    # With the second seed, the lost one is not tried.
    assert [(t["trial"], t["seed"]) for t in trials] == [(1, 0), (1, 1), (2, 0), (3, 0), (3, 1)]
    lost = [trial["error"] is not None for trial in trials]
    assert lost == [False, False, True, False, False]
    assert trials[2]["validation_accuracy"] is None
    tuned = json.loads((tmp_path / "run" / "summary.json").read_text())["arms"]["uniform"]["tuned"]
    assert (tuned["trials"], tuned["lost"]) == (3, 1)
    assert tuned["learning_rate"] in (0.02, 0.01)


def test_an_arm_whose_trials_are_all_lost_is_stopped_alone(tmp_path: Path):
    config = config_of(tmp_path, tune=2, methods=("uniform",), seeds=(0,), learning_rate=1e38)
    (failure,) = compare(config, Quiet()).failures
    assert failure.startswith("uniform, seed 0: the loss is")
    write_report(tmp_path / "run")
    assert "all trials were lost" in (tmp_path / "run" / "report.html").read_text()


def test_the_report_shows_what_was_tried_and_chosen(finished: Config, tmp_path: Path):
    assert finished.out is not None
    shutil.copytree(finished.out, tmp_path / "run")
    write_report(tmp_path / "run")
    tried = (tmp_path / "run" / "tables" / "trials.csv").read_text().splitlines()
    assert len(tried) == 1 + 14
    chosen = [line for line in tried if line.endswith(",chosen")]
    assert [line.split(",")[0] for line in chosen] == ["uniform", "coherence"]
    arms = summary_of(tmp_path / "run")["arms"]
    on_edge = [arm for arm, entry in arms.items() if entry["tuned"]["on_edge"]]
    assert on_edge  # by the bad rate that it began with
    table = (tmp_path / "run" / "tables" / "tuned.csv").read_text().splitlines()
    for line in table[1:]:
        assert ("the highest: widen upward" in line) == (line.split(",")[0] in on_edge)
    assert "tune" in (tmp_path / "run" / "tables" / "time.csv").read_text().splitlines()[0]
    summary = read_run(tmp_path / "run").summary
    said = [line for line in verdicts(summary) if line.startswith("tuning: ")]
    assert len(said) == 1
    assert f"the best learning rate of {', '.join(on_edge)} is" in said[0]


def test_deleted_trials_are_written_anew(finished: Config, tmp_path: Path):
    assert finished.out is not None
    shutil.copytree(finished.out, tmp_path / "run")
    (tmp_path / "run" / "trials.jsonl").unlink()
    read_run(tmp_path / "run")
    assert trials_of(tmp_path / "run") == trials_of(finished.out)


def test_the_command_line_tunes_and_prints_what_was_chosen(tmp_path: Path, capsys):
    flags = [
        "--limit=100", "--epochs=1", "--batch-size=5", "--methods=uniform", "--seeds=3,4",
        "--learner=pixels", "--tune=2", "--tune-seeds=2", f"--cache-dir={tmp_path / 'cache'}",
    ]  # fmt: skip
    assert main(["compare", *flags, f"--out={tmp_path / 'run'}"]) == 0
    tuned = summary_of(tmp_path / "run")["arms"]["uniform"]["tuned"]
    assert tuned["trials"] == 2
    assert {trial["seed"] for trial in trials_of(tmp_path / "run")} == {3, 4}
    said = f"rate {tuned['learning_rate']:.3g}, decay {tuned['weight_decay']:.3g}"
    assert said in capsys.readouterr().out
    assert main(["compare", *flags, "--seeds=3", f"--out={tmp_path / 'none'}"]) == 2
    assert "--tune-seeds 2 is not allowed; give at most 1" in capsys.readouterr().err
