"""Does the time of judging labels grow with the examples alone, and is its memory bounded?

    python benchmarks/judging_scale.py                     a table
    python benchmarks/judging_scale.py --out rows.jsonl    and the rows
    python benchmarks/judging_scale.py --features x.npy --labels y.npy --out rows.jsonl

Generated features, 512 wide, of 100 classes, with a fifth of the labels replaced at random, from
ten thousand examples to a million; no neighbors, whose search is no part of what grows with the
examples alone. Each size runs in processes of its own, on one thread, and the fastest is kept.
Seconds are those of the processor, so that other work on the machine changes them little. At the
end a straight line is laid through them: a fixed time, and a time for each example.

With ``--features`` and ``--labels``: how long judging takes there, neighbors and all, against the
beliefs of ``coherence``, whose search for neighbors is exact. The two take turns in one process.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from evidence_tables.label_finding import straight_line
from scale import make_store
from torch import Tensor

import saln
from saln import label_beliefs
from saln.data.label_noise import flip_labels
from saln.experiments.environment import environment
from saln.features import FeatureStore, nearest_neighbors

__all__ = ["judging_row", "measure", "speed_rows"]

SIZES = (10_000, 30_000, 100_000, 300_000, 1_000_000)
REPEATS = 3
WIDTH, CLASSES, WRONG = 512, 100, 0.2

Row = dict[str, Any]


class MemoryWatch:
    """The most memory of this process's own, without mapped files, while a block runs."""

    INTERVAL = 0.02

    def __init__(self) -> None:
        self.peak = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        status = Path("/proc/self/status")
        while not self._done.wait(self.INTERVAL):
            own = status.read_text().split("RssAnon:")[1].split()[0]
            self.peak = max(self.peak, 1024 * int(own))

    def __enter__(self) -> MemoryWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()


def measure(path: str) -> Row:
    """Judges the labels of a store, in this process."""
    torch.set_num_threads(1)
    store = FeatureStore.open(path)
    labels = flip_labels(np.asarray(store.labels), WRONG, CLASSES, 0)
    right = labels == store.labels
    with MemoryWatch() as watch:
        started, used = time.perf_counter(), time.process_time()
        beliefs = saln.judge_labels(store, labels, neighbors=False)
        used, seconds = time.process_time() - used, time.perf_counter() - started
    return {
        "n": len(labels),
        "processor_seconds": used,
        "seconds": seconds,
        "parts": beliefs.seconds,
        "rounds": beliefs.rounds,
        "peak_bytes": watch.peak,
        "estimated_noise_rate": beliefs.noise_rate,
        "agreement": float((beliefs.suspicious.numpy() == ~right).mean()),
    }


def judging_row(n: int, folder: Path, repeats: int = REPEATS) -> Row:
    """Judges the labels of ``n`` generated examples, in processes of their own: the fastest."""
    path = folder / f"store-{n}"
    make_store(path, n, WIDTH, classes=CLASSES)
    rows: list[Row] = []
    for _ in range(repeats):
        done = subprocess.run(
            [sys.executable, __file__, "--measure", str(path)],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        rows.append(json.loads(done.stdout.splitlines()[-1]))
    return min(rows, key=lambda row: row["processor_seconds"]) | {"repeats": repeats}


def _keep(row: Row, out: Path | None) -> None:
    if out is not None:
        with out.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(row) + "\n")


def speed_rows(
    features: npt.NDArray[Any], truth: npt.NDArray[np.int64], wrong: float, rounds: int
) -> Iterator[Row]:
    """Judging and ``coherence`` in turn on the same labels, then the ratio of their sums.

    Args:
        features: floating, (n, d).
        truth: (n,): right labels, of which some are replaced.
        wrong: The share to replace.
        rounds: How often each of the two runs.
    """
    torch.set_num_threads(1)
    classes = int(truth.max()) + 1
    labels = flip_labels(truth, wrong, classes, 0)

    def judged() -> Tensor:
        return saln.judge_labels(features, labels).suspicious

    def coherence() -> Tensor:
        table = nearest_neighbors(features)
        indices, similarities = map(torch.from_numpy, (table.indices, table.similarities))
        given = torch.from_numpy(labels)
        return label_beliefs(indices, similarities, given, classes).confidence < 0.5

    sums = {"judge_labels": np.zeros(2), "coherence": np.zeros(2)}
    for number in range(rounds):
        for name, finder in (("judge_labels", judged), ("coherence", coherence)):
            started, used = time.perf_counter(), time.process_time()
            doubted = finder().numpy()
            used, seconds = time.process_time() - used, time.perf_counter() - started
            sums[name] += used, seconds
            right = float((doubted == (labels != truth)).mean())
            yield {
                "n": len(labels),
                "width": features.shape[1],
                "wrong": wrong,
                "finder": name,
                "round": number,
                "processor_seconds": used,
                "seconds": seconds,
                "agreement": right,
            }
    used, seconds = (sums["judge_labels"] / sums["coherence"]).tolist()
    yield {
        "n": len(labels),
        "width": features.shape[1],
        "wrong": wrong,
        "rounds": rounds,
        "ratio_of_processor_seconds": used,
        "ratio_of_seconds": seconds,
    }


def main() -> None:
    """Runs every size."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)))
    parser.add_argument("--repeats", type=int, default=REPEATS, help="processes a size")
    parser.add_argument("--out", type=Path, help="write the rows here as well")
    parser.add_argument("--features", type=Path, help="(n, d), an .npy file")
    parser.add_argument("--labels", type=Path, help="(n,), an .npy file: right labels")
    parser.add_argument("--wrong", type=float, default=0.4, help="the share to replace")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args.measure)))
        return
    if args.out is not None:
        about = {"environment": environment(torch.device("cpu"))}
        args.out.write_text(json.dumps(about) + "\n", encoding="utf-8")
    if args.features is not None:
        features, truth = np.load(args.features), np.load(args.labels).astype(np.int64)
        for row in speed_rows(features, truth, args.wrong, args.rounds):
            _keep(row, args.out)
            print(json.dumps(row), flush=True)
        return
    with tempfile.TemporaryDirectory() as folder:
        rows: list[Row] = []
        for n in map(int, args.sizes.split(",")):
            row = judging_row(n, Path(folder), args.repeats)
            _keep(row, args.out)
            rows.append(row)
            print(
                f"{n:>9,} rows  {row['processor_seconds']:8.1f} s  "
                f"{1e6 * row['processor_seconds'] / n:7.1f} s a million  "
                f"peak {row['peak_bytes'] / 2**30:.2f} GiB",
                flush=True,
            )
    if len(rows) > 2:
        print(straight_line(rows))


if __name__ == "__main__":
    main()
