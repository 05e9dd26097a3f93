"""The script for a GPU, as a whole and tiny, on the CPU."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

from helpers.tiny_studies import tiny_setup

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.py"


def gpu(*arguments):
    done = subprocess.run(
        [sys.executable, SCRIPT, *map(str, arguments)], check=False, capture_output=True, text=True
    )
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


def test_parts_run_and_leave_their_rows(warm, tmp_path, monkeypatch, capsys):
    """The first is started by a true interpreter, the others where everything is imported."""
    module, truly = importlib.import_module("gpu"), subprocess.run

    def started(command, *, stdout, **options):
        script, *arguments = command[1:]
        if "fiedler" in script:
            return truly(command, stdout=stdout, **options)
        ended = warm.run(arguments, tmp_path, script=script)
        stdout.write(ended.stdout + ended.stderr)
        return subprocess.CompletedProcess(command, ended.returncode)

    prepared = tmp_path / "prepared"
    prepared.mkdir()
    tiny_setup(prepared)
    out = tmp_path / "out"
    parts = ("fiedler", "extraction", "scratch")
    flags = ["--device", "cpu", "--tiny", "--scratch", prepared, "--parts", ",".join(parts)]
    monkeypatch.setattr(sys, "argv", ["gpu.py", *map(str, [out, *flags])])
    monkeypatch.setattr(subprocess, "run", started)
    code = module.main()
    monkeypatch.undo()
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    said = {path.name: path.read_text() for path in out.glob("*.txt")}
    assert [(row["part"], row["status"]) for row in rows] == [(name, "done") for name in parts], (
        said
    )
    assert code == 0
    assert [json.loads(line)["n"] for line in said["fiedler.txt"].splitlines()] == [64]
    assert json.loads(said["extraction.txt"])["unit"] == "images/s"
    lines = (out / "scratch.jsonl").read_text().splitlines()
    trained = [json.loads(line) for line in lines]
    final = {row["arm"]: row["steps"] for row in trained if row.get("stage") == "final"}
    assert final == {"uniform": 2, "saln": 2}
    assert len((out / "parts.jsonl").read_text().splitlines()) == 3


def test_a_part_without_its_data_is_left_out_and_one_without_time_is_stopped(tmp_path):
    _, rows = gpu(tmp_path, "--device", "cpu", "--minutes", "0.01")
    said = [row["status"] for row in rows]
    assert all(status.startswith("stopped after") for status in said[:2])
    assert said[2:] == [
        "left out: give --data-root",
        "left out: give --scratch, what tuned_scratch.py --prepare made",
    ]


def test_the_tests_that_need_a_gpu_are_where_it_looks():
    root = SCRIPT.parents[1]
    for path in importlib.import_module("gpu").TESTS:
        assert "cuda" in (root / path).read_text()
