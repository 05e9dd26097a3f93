"""Does a killed ``saln labels apply`` lose anything? Real processes, killed at random moments.

    python benchmarks/label_kills.py                  50 kills of each kind, a table
    python benchmarks/label_kills.py --kills 10 --json

Every trial makes a folder of small files with decisions about half of them, starts the command
as a person would, and sends SIGKILL at a random moment of the time that it works in the folder,
from its lock to its end. Every content must be there. Then the same command must end the work, or
``--undo`` must restore every byte, name and place, by turns. ``undo`` kills an undo of a finished
apply. ``midway`` counts the kills that came while files were moving; before, the command plans.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

FILES = 600
COMMAND = (sys.executable, "-m", "saln", "labels", "apply")


def make(folder: Path, files: int) -> Path:
    """A folder of photos in two classes, and decisions about half of them."""
    shutil.rmtree(folder, ignore_errors=True)
    out = folder / "out"
    out.mkdir(parents=True)
    (out / "review.json").write_text(json.dumps({"dataset": f"folder:{folder / 'photos'}"}))
    decisions = folder / "decisions.csv"
    with decisions.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("id", "split", "given", "decision", "label", "key", "review"))
        for number in range(files):
            own, other = ("cat", "dog") if number % 2 else ("dog", "cat")
            path = folder / "photos" / own / f"{number // 4}.jpg"  # half of the names clash
            path = path.with_name(f"{number // 2}.jpg") if number % 3 else path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(f"content {number}".encode())
            if number % 4 < 2:
                what = "drop" if number % 8 == 0 else "believe"
                writer.writerow((f"{own}/{path.name}", "", own, what, other, "", out))
    return decisions


def look(folder: Path) -> dict[str, bytes]:
    """Every file of the data set with its content, those of an undo aside."""
    root = folder / "photos"
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and not path.name.startswith((".apply-", "apply-", "lock"))
    }


def run(decisions: Path, flag: str, seconds: float | None = None) -> tuple[bool, float]:
    """Runs the command, and kills it when it has worked for some seconds.

    Returns:
        Whether it was still at work, and for how many seconds it has worked.
    """
    process = subprocess.Popen((*COMMAND, str(decisions), flag), stdout=subprocess.DEVNULL)
    lock = decisions.parent / "photos" / ".saln" / "lock"
    while process.poll() is None and not lock.exists():
        time.sleep(0.001)
    begun = time.perf_counter()
    try:
        status = process.wait(seconds)
    except subprocess.TimeoutExpired:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        return True, time.perf_counter() - begun
    if status != 0:
        raise SystemExit(f"saln labels apply {flag} ended with {status}")
    return False, time.perf_counter() - begun


def measure(kind: str, kills: int, files: int, seed: int) -> dict[str, Any]:
    """Kills that many runs of ``--yes`` or ``--undo``; gives the row."""
    chance = random.Random(seed)
    lost = broken = midway = done = 0
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="saln-kills-") as name:
        folder = Path(name)
        decisions = make(folder, files)
        before = look(folder)
        whole, after = run(decisions, "--yes")[1], look(folder)
        if kind == "undo":
            whole = run(decisions, "--undo")[1]
        while done < kills:
            decisions = make(folder, files)
            if kind == "undo":
                run(decisions, "--yes")
            flag = "--undo" if kind == "undo" else "--yes"
            killed, worked = run(decisions, flag, chance.uniform(0, whole))
            if not killed:
                whole = worked  # it was quicker this time
                continue
            done += 1
            found = look(folder)
            midway += found not in (before, after)
            lost += not set(found.values()) >= set(before.values())
            end = ("--yes", "--undo")[done % 2]
            run(decisions, end)
            broken += look(folder) != (after if end == "--yes" else before)
    return {
        "question": f"killed {kind}", "kills": kills, "files": files, "midway": midway,
        "lost": lost, "not_ended_or_restored": broken,
        "seconds": round(time.perf_counter() - started, 1),
    }  # fmt: skip


def main() -> None:
    """Prints a row for each kind."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--files", type=int, default=FILES)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    options = parser.parse_args()
    for kind in ("apply", "undo"):
        row = measure(kind, options.kills, options.files, options.seed)
        if options.json:
            print(json.dumps(row), flush=True)
        else:
            print("  ".join(f"{name} {value}" for name, value in row.items()), flush=True)


if __name__ == "__main__":
    main()
