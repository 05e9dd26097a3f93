"""The rows, the summary and the choices of every arm stay what they were; so do old folders.

The golden files are of the version before arms, rows and candidates got one home each. To compare
two versions to the last byte on one machine, see ``benchmarks/same_rows.py``.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from helpers.golden import FOLDER, run_all_arms
from same_rows import ARMS, as_before, contents

from saln.cli import main
from saln.files import write_signed

# Their choices hang on the features alone, not on a network whose sums differ between processors.
NAMES = as_before(list(ARMS))
EXACT = set(NAMES) - {"jest", "rho-loss", "top-loss", "infobatch"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any]]:
    before = json.loads((FOLDER / "all-arms.json").read_text())
    return before, run_all_arms(tmp_path_factory.mktemp("golden"))


def near(value: Any) -> Any:
    """Floats to four digits, for sums that another processor rounds differently."""
    if isinstance(value, dict):
        return {key: near(part) for key, part in value.items()}
    if isinstance(value, list):
        return [near(part) for part in value]
    return pytest.approx(value, rel=1e-4, abs=1e-4) if isinstance(value, float) else value


def test_rows_are_those_of_before(runs: tuple[dict[str, Any], dict[str, Any]]):
    before, now = (run["epochs.jsonl"] for run in runs)
    assert [list(row) for row in now] == [list(row) for row in before]  # the order of fields, too
    assert len(now) == 3 * 2 * len(ARMS)
    for old, new in zip(before, now, strict=True):
        assert new == near(old)


def test_the_summary_is_that_of_before(runs: tuple[dict[str, Any], dict[str, Any]]):
    before, now = (run["summary.json"] for run in runs)
    assert list(now) == list(before)
    assert now == near(before)


@pytest.mark.parametrize("arm", NAMES)
def test_choices_are_those_of_before(runs: tuple[dict[str, Any], dict[str, Any]], arm: str):
    before, now = (run["choices"] for run in runs)
    files = [name for name in before if name.startswith(f"{arm}-seed")]
    assert [name for name in now if name.startswith(f"{arm}-seed")] == files
    for name in files:
        if arm in EXACT:
            assert now[name] == before[name]
        else:  # of the same kinds and sizes
            kinds = [
                {key: text.rsplit(" ", 1)[0] for key, text in run[name].items()}
                for run in (now, before)
            ]
            assert kinds[0] == kinds[1]


def strip(run: Path, arm: str) -> None:
    """Takes an arm out of a run folder, as if it had been run without."""
    for name in ("config.json", "progress.json"):
        values = json.loads((run / name).read_text())
        del values["checksum"]
        for holder in (values, values.get("about", {})):
            if "methods" in holder:
                holder["methods"].remove(arm)
        for key in {"costs", "rows"} & set(values):
            values[key] = [row for row in values[key] if row["arm"] != arm]
        for file in list(values.get("files", ())):
            if arm in file or file in ("labels.json", "summary.json"):
                del values["files"][file]
                (run / file).unlink()
        write_signed(run / name, values)
    lines = (run / "epochs.jsonl").read_text().splitlines(keepends=True)
    (run / "epochs.jsonl").write_text("".join(line for line in lines if arm not in line))


def test_a_run_whose_coherence_asked_the_neighbors_is_not_mixed_with_another(tmp_path, capfd):
    shutil.copytree(FOLDER / "run", tmp_path / "run")
    before = contents(tmp_path / "run")
    assert main(["compare", "--resume", "--out", str(tmp_path / "run"), "--seeds", "0,1"]) == 2
    said = capfd.readouterr().err
    assert "usual judge of labels was neighbors" in said
    assert "is labels, to the power of 4" in said
    assert contents(tmp_path / "run") == before


def test_a_run_of_before_goes_on_and_its_store_is_used(tmp_path: Path, capfd):
    shutil.copytree(FOLDER / "run", tmp_path / "run")
    strip(tmp_path / "run", "coherence")
    shutil.copytree(FOLDER / "features", tmp_path / "features")
    rows = (tmp_path / "run" / "epochs.jsonl").read_text()
    flags = ["--resume", "--out", str(tmp_path / "run"), "--cache-dir", str(tmp_path / "features")]
    assert main(["compare", *flags, "--seeds", "0,1"]) == 0
    printed = capfd.readouterr()
    assert "features: reused" in printed.out + printed.err
    assert (tmp_path / "run" / "epochs.jsonl").read_text().startswith(rows)
    assert len(contents(tmp_path / "run")["epochs.jsonl"]) == 2 * len(rows.splitlines())
