"""A selector of another package, installed, is an arm without a change of ours."""

from __future__ import annotations

import json

import pytest
from helpers.plugin import install, run_python

# All in one process: importing torch takes longer than the rest.
SCRIPT = """
if __name__ == "__main__":  # all of it, as a check starts a process that imports this file
    import json
    import sys
    from pathlib import Path

    import numpy as np
    from helpers.quick_figures import not_drawn

    import saln
    from saln.cli import main
    from saln.testing import check_selector

    for arguments in (
        ["list"],
        ["compare", "--methods", "standard,uniform,longest:power=1,longest(reverse=true)",
         "--limit", "120", "--epochs", "1", "--seeds", "0", "--batch-size", "4",
         "--learner", "small-cnn", "--out", "run", "--cache-dir", "cache"],
        ["compare", "--methods", "longest:power=0", "--out", "none"],
        ["compare", "--methods", "gone,uniform", "--out", "none"],
        ["select", "STORE", "--selector", "longest", "--candidates", "20", "--out", "kept.parquet"],
        ["report", "run"],
    ):
        print("###", arguments[0], flush=True)
        if "STORE" in arguments:
            arguments[1] = next(str(path.parent) for path in Path("cache").rglob("manifest.json"))
        with not_drawn():
            print("###", main(arguments), flush=True)
    rows = np.arange(24.0).reshape(12, 2)
    batches = saln.SelectedBatches(
        rows, selector="longest:power=3", batch_size=3, filter_ratio=0.75, seed=0
    )
    (kept,) = batches
    assert sorted(kept) == [9, 10, 11], kept
    from long_selectors import Longest
    check_selector(lambda: Longest())
    check_selector(lambda: Longest(3.0, reverse=True))
    print("### all passed")
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plugin")
    done = run_python(install(folder), SCRIPT, folder)
    return folder, done


def test_it_is_listed_with_its_package_and_broken_ones_say_so(finished):
    _, done = finished
    assert done.returncode == 0, done.stdout + done.stderr
    listed = done.stdout.split("### list")[1].split("###")[0]
    lines = listed.splitlines()
    at = next(number for number, line in enumerate(lines) if line.split()[:1] == ["longest"])
    assert "the longest features; costs cached features" in lines[at]
    assert [line.strip() for line in lines[at + 1 : at + 5]] == [
        "requires features; chooses before loading",
        "power (a number, above 0; default 2.0)",
        "reverse (true or false; default false)",
        "of the package long-selectors",
    ]
    for name in ("broken", "gone", "number"):
        (line,) = [line for line in lines if line.split()[:1] == [name]]
        assert f"selector {name} of the package long-selectors" in line
        assert "update or uninstall long-selectors" in line
    assert sum(line.split()[:1] == ["jest"] for line in lines) == 1


def test_it_is_compared_and_chosen_by(finished):
    folder, done = finished
    summary = json.loads((folder / "run" / "summary.json").read_text())
    arms = ["standard", "uniform", "longest(power=1.0)", "longest(reverse=true)"]
    assert list(summary["arms"]) == arms
    assert all("error" not in entry for entry in summary["arms"].values())
    assert (folder / "run" / "checkpoints" / "longest(power=1.0)-seed0.pt").exists()
    assert "longest(reverse=true)" in (folder / "run" / "report.html").read_text()
    assert (folder / "kept.parquet").exists()
    codes = [part.split()[0] for part in done.stdout.split("###")[2::2]]
    assert codes == ["0", "0", "2", "2", "0", "0"]
    assert "power=0 of longest is not allowed; give a number, above 0" in done.stderr
    assert "gone of the package long-selectors cannot be loaded" in done.stderr
    assert not (folder / "none").exists()


def test_it_passes_the_conformance_kit(finished):
    assert finished[1].stdout.rstrip().endswith("### all passed")


def test_without_the_package_its_run_is_drawn_and_not_gone_on_with(finished, tmp_path, warm):
    folder, _ = finished
    run = folder / "run"
    drawn = warm.run(["report", run], tmp_path)
    assert drawn.returncode == 0, drawn.stderr
    bare = warm.run(["compare", "--resume", "--out", run, "--seeds", "0,1"], tmp_path)
    assert bare.returncode == 2
    assert "--methods longest is not allowed; give one of standard" in bare.stderr
