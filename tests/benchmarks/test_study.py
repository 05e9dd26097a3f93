"""From finished runs to rows and tables."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import study
from evidence_tables import TABLES

FLAGS = (
    *("--preset", "digits", "--methods", "standard,uniform,saln,jest", "--image-size", "16"),
    *("--seeds", "0,1", "--limit", "200", "--epochs", "3", "--batch-size", "8"),
    *("--learning-rate", "0.02", "--schedule", "constant", "--evaluate-every", "1"),
    *("--label-noise", "0.4", "--reference-epochs", "2"),
)


@pytest.fixture(scope="module")
def finished(warm, tmp_path_factory):
    folder = tmp_path_factory.mktemp("study") / "small"
    cache = ["--cache-dir", str(folder.parent / "cache")]
    ended = warm.run(["compare", *FLAGS, *cache, "--out", str(folder)], folder.parent)
    assert ended.returncode == 0, ended.stderr
    return folder


@pytest.fixture(scope="module")
def rows(finished):
    path = finished.parent / "paper-setting-digits.jsonl"
    assert study.main([str(finished), "--rows", str(path)]) == 0
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_there_is_a_row_for_every_run_arm_and_seed(rows, finished):
    assert rows[0]["environment"]["command"][1] == "benchmarks/study.py"
    assert [row["kind"] for row in rows[1:]] == ["run", *["seed", "seed", "arm"] * 4]
    assert str(finished.parent) not in json.dumps(rows)  # no folders of this machine
    summary = json.loads((finished / "summary.json").read_text())
    for arm, entry in summary["arms"].items():
        own = [row for row in rows if row.get("arm") == arm and row["kind"] == "seed"]
        assert [row["test_accuracy"] for row in own] == entry["test_accuracy"]["per_seed"]
        assert all(row["curve"][-1][1] == entry["steps"] for row in own)


def test_the_time_to_an_accuracy_can_be_had_from_the_curves(rows):
    for arm in ("uniform", "saln"):
        (found,) = (row for row in rows if row.get("arm") == arm and row["kind"] == "arm")
        for seed, told in zip((0, 1), found["seconds_to_standard"]["per_seed"], strict=True):
            mine, other = (
                np.array(row["curve"])
                for name in (arm, "standard")
                for row in rows
                if (row.get("arm"), row.get("seed")) == (name, seed)
            )
            target = other[-1, 3]
            above = np.flatnonzero(mine[:, 3] >= target)
            if not len(above):
                assert told is None
            elif above[0] == 0:
                assert told == pytest.approx(mine[0, 2], abs=1e-2)
            else:
                before, after = mine[above[0] - 1], mine[above[0]]
                share = (target - before[3]) / (after[3] - before[3])
                assert told == pytest.approx(before[2] + share * (after[2] - before[2]), abs=1e-2)


def test_the_tables_are_made_of_whatever_is_stored(rows, finished, tmp_path):
    assert "No rows" in TABLES["paper-found"](tmp_path)
    spent, gained = (
        [
            [value(row) for row in rows if row.get("arm") == arm and row["kind"] == "seed"]
            for arm in ("saln", "standard")
        ]
        for value in (lambda row: row["seconds"]["spent"], lambda row: row["test_accuracy"])
    )
    times = np.mean(np.divide(spent[1], spent[0]))
    points = 100 * np.mean(np.subtract(*gained))
    reading = TABLES["paper-reading"](finished.parent)
    assert f"at equal epochs: {times:.1f} times less" in reading
    assert f"({points:+.1f} ± " in reading
    assert "JEST takes" in reading
    assert TABLES["paper-found"](finished.parent).count("| digits, f = 0.8 |") == 3


def test_an_unfinished_run_and_runs_of_one_name_are_refused(finished, tmp_path, capsys):
    broken = tmp_path / "small"
    shutil.copytree(finished, broken)
    (broken / "summary.json").unlink()
    for folders in ([broken], [finished, broken]):
        with pytest.raises(SystemExit, match="2"):
            study.main([*map(str, folders), "--rows", str(tmp_path / "rows.jsonl")])
    error = capsys.readouterr().err
    assert "no finished run" in error
    assert "must differ" in error
    assert not (tmp_path / "rows.jsonl").exists()
