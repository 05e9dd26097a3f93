"""What one comparison of every arm on the digits leaves, in a form that can be compared.

Run as a script it makes the golden files anew::

    PYTHONPATH=src:tests python -m helpers.golden
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).parents[1] / "golden"
ARMS = (
    "standard", "uniform", "saln", "jest", "rho-loss", "top-loss", "infobatch", "k-center",
    "facility-location", "rs2", "coherence", "coherence-batch",
)  # fmt: skip
# A schedule of the filter ratio, wrong labels and two seeds: every path of an arm is taken.
FLAGS = (
    "--preset", "digits", "--methods", ",".join(ARMS), "--limit", "400", "--epochs", "3",
    "--batch-size", "16", "--label-noise", "0.2", "--seeds", "0,1", "--threads", "1",
    "--reference-epochs", "2", "--filter-ratio", "0.75", "--full-first-epochs", "1",
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


def run_all_arms(folder: Path) -> dict[str, Any]:
    """Runs the comparison through the command line and gives its contents."""
    from saln.cli import main

    flags = ("--cache-dir", str(folder / "features"), "--out", str(folder / "run"))
    if main(["compare", *FLAGS, *flags]):
        raise RuntimeError("the comparison failed")
    return contents(folder / "run")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        found = run_all_arms(Path(place))
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / "all-arms.json").write_text(json.dumps(found, indent=1) + "\n")
