"""Do two versions leave the same rows, summary and choices, to the last byte, on this machine?

    python benchmarks/same_rows.py --before 758fa04

Runs the comparison of every arm on the digits twice, with the code of a commit and with that of
this checkout, each in a process of its own, and compares what they leave: ``epochs.jsonl`` and
``summary.json`` without what is measured in seconds and bytes of memory, and all arrays of
``choices/``. Prints what differs; the exit status is 1 then.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
ARMS = (
    "standard", "uniform", "saln", "jest", "rho-loss", "top-loss", "infobatch", "k-center",
    "facility-location", "rs2", "coherence(judge=neighbors)", "coherence-batch",
)  # fmt: skip
NEIGHBORS = "coherence(judge=neighbors)"
# A schedule of the filter ratio, wrong labels and two seeds: every path of an arm is taken.
FLAGS = (
    "--preset", "digits", "--limit", "400", "--epochs", "3",
    "--batch-size", "16", "--label-noise", "0.2", "--seeds", "0,1", "--threads", "1",
    "--reference-epochs", "2", "--filter-ratio", "0.75", "--full-first-epochs", "1",
    # Whatever the preset says at either commit.
    "--learning-rate", "0.02", "--schedule", "constant", "--evaluate-every", "1",
    "--image-size", "16",
)  # fmt: skip
# Seconds and memory differ from run to run, and so does what is computed from them.
_MEASURED = frozenset(
    {"seconds", "peak_bytes", "at_equal_seconds", "seconds_to_standard", "break_even"}
)


def without_measurements(value: Any) -> Any:
    """JSON without what two runs on one machine never share."""
    if isinstance(value, dict):
        return {
            key: without_measurements(part) for key, part in value.items() if key not in _MEASURED
        }
    return [without_measurements(part) for part in value] if isinstance(value, list) else value


def contents(run: Path) -> dict[str, Any]:
    """The rows, the summary and the choices of a run folder."""
    rows = (run / "epochs.jsonl").read_text().splitlines()
    return {
        "epochs.jsonl": [without_measurements(json.loads(row)) for row in rows],
        "summary.json": without_measurements(json.loads((run / "summary.json").read_text())),
        "choices": {path.name: _arrays(path) for path in sorted(run.glob("choices/*.npz"))},
    }


def _arrays(path: Path) -> dict[str, str]:
    with np.load(path) as arrays:
        return {
            name: f"{array.dtype} {array.shape} {hashlib.sha256(array.tobytes()).hexdigest()}"
            for name, array in sorted(arrays.items())
        }


def as_before(value: Any) -> Any:
    """Contents with the neighbors' arm called what it was when there was no other judge."""
    return json.loads(json.dumps(value).replace(NEIGHBORS, "coherence"))


def run_with(source: Path, folder: Path) -> dict[str, Any]:
    """Runs the comparison with the code below ``source`` and gives what it leaves."""
    arms = ",".join(ARMS)
    if "judge: " not in (source / "saln" / "selection" / "coherence.py").read_text():
        arms = arms.replace(NEIGHBORS, "coherence")
    command = [sys.executable, "-m", "saln", "compare", *FLAGS, "--methods", arms]
    command += ["--cache-dir", str(folder / "features"), "--out", str(folder / "run")]
    environment = {**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"}
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    found: dict[str, Any] = as_before(contents(folder / "run"))
    return found


def differences(before: Any, now: Any, place: str = "") -> Iterator[str]:
    """Where two contents differ, a line each."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted(before.keys() | now.keys()):
            yield from differences(before.get(key), now.get(key), f"{place}/{key}")
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        for number, (old, new) in enumerate(zip(before, now, strict=True)):
            yield from differences(old, new, f"{place}/{number}")
    elif json.dumps(before) != json.dumps(now):
        yield f"{place}: {json.dumps(before)[:80]} before, {json.dumps(now)[:80]} now"


def main() -> int:
    """Compares and prints; 1 where anything differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--before", default="758fa04", help="the commit to compare with")
    commit = parser.parse_args().before
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        tree = folder / "tree"
        tree.mkdir()
        archive = subprocess.run(
            ["git", "archive", commit, "src"], cwd=ROOT, check=True, capture_output=True
        ).stdout
        subprocess.run(["tar", "-x", "-C", str(tree)], input=archive, check=True)
        before = run_with(tree / "src", folder / "before")
        now = run_with(ROOT / "src", folder / "now")
    lines = list(differences(before, now))
    print("\n".join(lines) or f"the same: {len(now['epochs.jsonl'])} rows of every arm")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
