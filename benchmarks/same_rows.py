"""Do two versions leave the same rows, summary and choices, to the last byte, on this machine?

    python benchmarks/same_rows.py --before 758fa04

Runs the comparison of every arm on the digits twice, with the code of a commit and with that of
this checkout, each in a process of its own, and compares what they leave: ``epochs.jsonl`` and
``summary.json`` without what is measured in seconds and bytes of memory, and all arrays of
``choices/``. Prints what differs; the exit status is 1 then.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from helpers.golden import FLAGS, contents  # noqa: E402


def run_with(source: Path, folder: Path) -> dict[str, Any]:
    """Runs the comparison with the code below ``source`` and gives what it leaves."""
    command = [sys.executable, "-m", "saln", "compare", *FLAGS]
    command += ["--cache-dir", str(folder / "features"), "--out", str(folder / "run")]
    environment = {**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"}
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    return contents(folder / "run")


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
