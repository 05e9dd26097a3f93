"""What does each part cost for ten thousand, a million, ten million examples?

    python benchmarks/scale.py            a table
    python benchmarks/scale.py --json     one JSON object a line

Features are generated: a spectrum that falls as a power, classes, no negative numbers, as a
network's pooled features have them; 512 wide for choosing, 256 for neighbors. Every
measurement runs in a process of its own, whose peak memory is given. Whether the cost of
choosing is flat is measured in turns, part by part, on a smaller and a larger store, since the
machine may be busy.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from numpy.lib.format import open_memmap
from PIL import Image

import saln
from saln.curation.feature_sources import StoreSource
from saln.curation.partition import PartitionJob, content_of
from saln.experiments.environment import environment
from saln.features import FeatureStore, nearest_neighbors
from saln.selection import SELECTORS

Row = dict[str, Any]
Array = npt.NDArray[Any]
SIZES = (10_000, 100_000, 1_000_000)
WIDTH, NEIGHBOR_WIDTH, CLASSES = 512, 256, 1000
CANDIDATES, FILTER_RATIO = 320, 0.8
CHOOSING = ("uniform", "saln", "coherence-batch", "k-center")
PARTITION = 8_000  # rows of a part, when two stores take turns
NAMING_SECONDS = 5.0  # how long batches are named for one measurement
IMAGES = (400, 1600)


def generate(
    n: int, d: int, features: Array, seed: int = 0, classes: int = CLASSES
) -> npt.NDArray[np.int64]:
    """Writes generated features to an array (n, d), part by part; gives the labels."""
    random = np.random.default_rng(seed)
    scale = (np.arange(1, d + 1) ** -0.7).astype(np.float32)
    means = 1.5 * random.normal(size=(classes, d)).astype(np.float32) * scale
    labels = np.empty(n, dtype=np.int64)
    for start in range(0, n, 20_000):
        stop = min(start + 20_000, n)
        labels[start:stop] = random.integers(0, classes, stop - start)
        noise = random.normal(size=(stop - start, d)).astype(np.float32)
        rows = means[labels[start:stop]] + noise * scale + 0.2
        features[start:stop] = np.maximum(rows, 0)
    return labels


def make_store(path: Path, n: int, d: int, seed: int = 0, classes: int = CLASSES) -> FeatureStore:
    """Generated features in a store; no more than a part of them is in memory."""
    file = path.with_suffix(".npy")
    features = open_memmap(file, "w+", np.float16, (n, d))
    labels = generate(n, d, features, seed, classes)
    store = saln.write_store(path, features, labels, name="generated")
    file.unlink()
    return store


def _peak() -> int:
    """Bytes. Not by getrusage, whose peak a process inherits from the one that started it."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def measure_flat(arguments: list[str]) -> Row:
    """Seconds to choose from all parts of a larger store, in turns with parts of a smaller one.

    The smaller is opened anew whenever its parts are used up, so that both touch every page of
    their file once for the first time.
    """
    paths, name = arguments[:2], arguments[2]
    small, large = (_job(path, name) for path in paths)
    sums, rows, parts = [0.0, 0.0], [0, 0], len(large)
    for number in range(parts):
        if number and number % len(small) == 0:
            small = _job(paths[0], name)
        turn = ((0, small, number % len(small)), (1, large, number))
        for place, job, part in turn if number % 2 else turn[::-1]:
            # A run draws its order once, not once a part; turns would draw it every time.
            job.source.order(0, 1, job.seed)
            started = time.perf_counter()
            content_of(job, part)
            sums[place] += time.perf_counter() - started
            first, stop = job.bounds(part)
            rows[place] += stop - first
    return {"seconds": sums, "rows": rows, "parts": parts}


def _job(path: str, name: str) -> PartitionJob:
    source = StoreSource(Path(path))
    return PartitionJob(source, SELECTORS[name](), CANDIDATES, FILTER_RATIO, 0, PARTITION)


def measure_select(arguments: list[str]) -> Row:
    """All rows of a store, by `saln.select`."""
    store, name, out = arguments
    started = time.perf_counter()
    result = saln.select(
        store, selector=SELECTORS[name](), candidates=CANDIDATES, filter_ratio=FILTER_RATIO, out=out
    )
    seconds = time.perf_counter() - started
    return {
        "seconds": seconds,
        "peak": _peak(),
        "rows": result.rows,
        "out_bytes": Path(out).stat().st_size,
    }


def measure_neighbors(arguments: list[str]) -> Row:
    """The table of a store, by the engine that its size asks for."""
    store = FeatureStore.open(arguments[0])
    table = nearest_neighbors(store.features, 20)
    size = table.indices.nbytes + table.similarities.nbytes
    return {"seconds": table.seconds, "peak": _peak(), "recall": table.recall, "bytes": size}


def measure_batches(arguments: list[str]) -> Row:
    """What names the batches of a training loop, without any loading; some seconds of it."""
    seconds = float(arguments[2])
    batches = saln.SelectedBatches(
        FeatureStore.open(arguments[0]),
        selector=SELECTORS[arguments[1]](),
        batch_size=64,
        filter_ratio=FILTER_RATIO,
        seed=0,
    )
    done, epoch, started = 0, 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        batches.set_epoch(epoch)
        for _ in batches:
            done += batches.n_candidates
            if time.perf_counter() - started > seconds:
                break
        epoch += 1
    return {"seconds": time.perf_counter() - started, "candidates": done, "peak": _peak()}


class _Images:
    """Generated photos of 96 pixels."""

    def __init__(self, count: int) -> None:
        self.count = count
        random = np.random.default_rng(0)
        self.pixels = random.integers(0, 256, (16, 96, 96, 3), dtype=np.uint8)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.fromarray(self.pixels[index % 16]), index % 7


def measure_extraction(arguments: list[str]) -> Row:
    """Images a second through EfficientNet-Lite0 at 96 pixels."""
    count, cache = int(arguments[0]), arguments[1]
    store = saln.extract_features(
        _Images(count), backbone="efficientnet-lite0", image_size=96, cache_dir=cache
    )
    size = store.features.nbytes + store.labels.nbytes
    return {"seconds": store.seconds, "rows": count, "peak": _peak(), "bytes": size}


MEASURES: dict[str, Callable[[list[str]], Row]] = {
    "flat": measure_flat,
    "select": measure_select,
    "neighbors": measure_neighbors,
    "batches": measure_batches,
    "extraction": measure_extraction,
}


def measured(name: str, *arguments: object) -> Row:
    """A measurement in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, "--measure", name, *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    row: Row = json.loads(done.stdout.splitlines()[-1])
    return row


def _row(question: str, n: int, value: float, unit: str, **more: Any) -> Row:
    baseline = more.pop("baseline", None)
    ratio = None if baseline is None else value / baseline
    return {
        "question": question, "n": n, "value": value, "unit": unit, "baseline": baseline,
        "ratio": ratio, **more,
    }  # fmt: skip


def rows_of(sizes: tuple[int, ...], scratch: Path, report: Callable[[Row], None]) -> None:
    """Measures everything, the cheap first."""
    for count in IMAGES if len(sizes) > 1 else IMAGES[:1]:
        found = measured("extraction", count, scratch / f"extracted-{count}")
        report(_row("extraction", count, found["rows"] / found["seconds"], "images/s"))
    report(_row("extraction on disk", count, found["bytes"] / count, "bytes an example"))
    stores = {}
    for n in sizes:
        stores[n] = scratch / f"store-{n}"
        make_store(stores[n], n, WIDTH)
        for name in CHOOSING:
            found = measured("batches", stores[n], name, NAMING_SECONDS)
            speed = found["candidates"] / found["seconds"]
            report(
                _row(
                    f"batches named by {name}", n, 1e6 / speed, "s a million candidates",
                    peak_bytes=found["peak"],
                )
            )  # fmt: skip
        for name in ("saln", "coherence-batch"):
            found = measured("select", stores[n], name, scratch / f"kept-{name}-{n}.parquet")
            report(
                _row(
                    f"saln select by {name}", n, 1e6 * found["seconds"] / n,
                    "s a million candidates", peak_bytes=found["peak"],
                    bytes_a_row=found["out_bytes"] / n,
                )
            )  # fmt: skip
    if len(sizes) > 1:
        small, large = sizes[-2:]
        for name in CHOOSING:
            found = measured("flat", stores[small], stores[large], name)
            before, after = (
                1e6 * seconds / rows
                for seconds, rows in zip(found["seconds"], found["rows"], strict=True)
            )
            report(
                _row(
                    f"cost of a candidate by {name}, {large:,} rows beside {small:,}", large,
                    after, "s a million candidates", baseline=before, parts=found["parts"],
                )
            )  # fmt: skip
    for n in sizes:
        path = scratch / f"narrow-{n}"
        make_store(path, n, NEIGHBOR_WIDTH)
        found = measured("neighbors", path)
        report(
            _row(
                "neighbor table", n, found["seconds"], "s", peak_bytes=found["peak"],
                recall=found["recall"], bytes_a_row=found["bytes"] / n,
            )
        )  # fmt: skip


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)))
    parser.add_argument("--data-root", type=Path, help="not needed: the features are generated")
    parser.add_argument("--out", type=Path, help="write the rows here as well")
    parser.add_argument("--measure", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(MEASURES[args.measure[0]](args.measure[1:])))
        return
    sizes = tuple(sorted(int(size) for size in args.sizes.split(",")))
    if sizes[0] < CANDIDATES:
        parser.error(f"--sizes must be {CANDIDATES} rows or more each, not {sizes[0]:,}")
    about = {"environment": environment(torch.device("cpu"))}
    about["environment"]["command"] = ["python", *sys.argv]
    if args.out is not None:
        args.out.write_text(json.dumps(about) + "\n")

    def report(row: Row) -> None:
        if args.out is not None:
            with args.out.open("a") as stream:
                stream.write(json.dumps(row) + "\n")
        ratio = "" if row["ratio"] is None else f"  ratio {row['ratio']:.3f}"
        peak = f"  peak {row['peak_bytes'] / 2**30:.2f} GiB" if "peak_bytes" in row else ""
        recall = f"  recall {row['recall']:.3f}" if "recall" in row else ""
        text = f"{row['question']:<60} n {row['n']:>9,}  {row['value']:>10,.2f} {row['unit']}"
        print(json.dumps(row) if args.json else f"{text}{ratio}{peak}{recall}", flush=True)

    with tempfile.TemporaryDirectory() as scratch:
        rows_of(sizes, Path(scratch), report)


if __name__ == "__main__":
    main()
