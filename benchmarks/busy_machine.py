"""How much is left of the speed of extraction when another process is busy?

    python benchmarks/busy_machine.py --data-root ../data            a table
    python benchmarks/busy_machine.py --data-root ../data --json     one JSON object a line
    python benchmarks/busy_machine.py --rounds 1                     in about a minute

Each measurement is a process of its own that puts photos through EfficientNet-Lite0 at 96 pixels,
as the command line does it: with waiting threads that sleep (``PASSIVE``), or, for comparison, as
torch has them by default (``default``), which spin. Idle and beside a process that computes all
the time are measured one after the other, and all settings take turns; what counts is the median
of the rounds. Nothing else may run on the machine meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import torch

from saln.experiments.environment import environment

POLICIES = ("default", "PASSIVE")
# Warmed up by a part of the photos; prints images a second.
MEASURED = """
import sys, tempfile, time
from pathlib import Path
import numpy as np
import torch
from saln.data import load_dataset
from saln.features import build_backbone, extract_features
torch.set_num_threads(int(sys.argv[2]))
train = load_dataset("oxford-pet", Path(sys.argv[1])).train
network = build_backbone("efficientnet-lite0", image_size=96)
def seconds(first, last):
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        part = train.part(np.arange(first, last))
        extract_features(part, network, cache_dir=folder, device="cpu")
        return time.perf_counter() - started
seconds(0, 64)
print(256 / seconds(64, 320))
"""


def images_per_second(data_root: Path, policy: str, threads: int, busy: int) -> float:
    """Of one process, beside others that compute all the time."""
    variables = {k: v for k, v in os.environ.items() if not k.startswith("OMP_")}
    if policy != "default":
        variables["OMP_WAIT_POLICY"] = policy
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(busy)]
    try:
        done = subprocess.run(
            [sys.executable, "-c", MEASURED, str(data_root), str(threads)],
            env=variables, stdout=subprocess.PIPE, text=True, check=True,
        )  # fmt: skip
    finally:
        for other in others:
            other.kill()
            other.wait()
    return float(done.stdout)


def main() -> None:
    """Measures each setting and prints what is left beside a busy process."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data-root", type=Path, default=Path("../data"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    settings = [(policy, threads) for policy in POLICIES for threads in (1, os.cpu_count() or 1)]
    speeds: dict[tuple[str, int, int], list[float]] = {}
    for turn in range(args.rounds):
        for policy, threads in settings[:: 1 if turn % 2 == 0 else -1]:
            for busy in (0, 1):
                speed = images_per_second(args.data_root, policy, threads, busy)
                speeds.setdefault((policy, threads, busy), []).append(speed)
    about = {"environment": environment(torch.device("cpu"))}
    about["environment"]["command"] = ["python", *sys.argv]
    if args.json:
        sys.stdout.write(json.dumps(about) + "\n")
    for policy, threads in settings:
        idle, beside = (statistics.median(speeds[policy, threads, busy]) for busy in (0, 1))
        row = {
            "question": f"extraction beside a busy process, {threads} threads, {policy}",
            "policy": policy,
            "threads": threads,
            "rounds": args.rounds,
            "value": round(beside, 1),
            "unit": "images/s",
            "baseline": round(idle, 1),
            "ratio": round(beside / idle, 3),
        }
        line = json.dumps(row) if args.json else "  ".join(f"{k}: {v}" for k, v in row.items())
        sys.stdout.write(line + "\n")


if __name__ == "__main__":
    main()
