"""What do chosen batches cost beside random ones, and does a huge store stay out of memory?

    python benchmarks/loading.py --data-root ../data            a table
    python benchmarks/loading.py --data-root ../data --json     one JSON object a line

Three questions. An epoch of pets photos, decoded and augmented, in batches chosen by
``saln`` (64 of 320) and in as many random ones, in turns; the loader is PyTorch's own, in
this process and with two workers. How many photos were opened, as the interpreter itself
reports it, beside how many were kept. And a store of ImageNet's size, 1,281,167 x 2,048 in
float16: candidates a second and the most memory resident, in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from real_features import default_cache
from torch.utils.data import BatchSampler, DataLoader, SubsetRandomSampler

from saln.data import load_dataset
from saln.data.torch_datasets import TrainingView, collate, raise_broken
from saln.data.transforms import Normalization
from saln.features import FeatureStore, build_backbone, extract_features, write_store
from saln.loading import SelectedBatches
from saln.selection import SALN

KEPT, FILTER_RATIO = 64, 0.8
IMAGE_SIZE = 224  # as in the paper
IMAGENET = (1_281_167, 2048)
SECONDS = 20.0

Row = dict[str, Any]


class Pets:
    """The photos, their features, and loaders over both kinds of batches."""

    def __init__(self, data_root: Path, cache: Path) -> None:
        data = load_dataset("oxford-pet", data_root, validation_share=0.001)
        backbone = build_backbone("efficientnet-lite0", image_size=96)
        self.store = extract_features(data.train, backbone, name="pets", cache_dir=cache)
        normalization = Normalization((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
        self.view = TrainingView(data.train, data.augmentation(IMAGE_SIZE, normalization), 0)
        self.chosen = SelectedBatches(
            self.store, selector=SALN(), batch_size=KEPT, filter_ratio=FILTER_RATIO, seed=0
        )
        self.root = data_root.resolve()

    def random(self, seed: int) -> BatchSampler:
        """As many random batches as an epoch of chosen ones."""
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(self.store), generator=generator)[: KEPT * len(self.chosen)]
        sampler = SubsetRandomSampler(order.tolist(), generator=generator)
        return BatchSampler(sampler, KEPT, drop_last=True)

    def seconds(self, sampler: Any, workers: int) -> float:
        """Of an epoch, the start of the loader's processes included."""
        loader: DataLoader[Any] = DataLoader(
            self.view,
            batch_sampler=sampler,
            collate_fn=collate,
            num_workers=workers,
            generator=torch.Generator(),
        )
        batches = raise_broken(loader)
        count = 0
        started = time.perf_counter()
        for batch in batches:
            count += len(batch.images)
        seconds = time.perf_counter() - started
        if count != KEPT * len(self.chosen):
            raise AssertionError(f"{count} images came, {KEPT * len(self.chosen)} were named")
        return seconds


def epoch_row(pets: Pets, workers: int, rounds: int) -> Row:
    """Seconds of an epoch, chosen and random, in turns."""
    chosen: list[float] = []
    random: list[float] = []
    for number in range(rounds + 1):
        pets.chosen.set_epoch(number)
        pair = [(chosen, pets.chosen), (random, pets.random(number))]
        for seconds, sampler in pair if number % 2 else pair[::-1]:
            seconds.append(pets.seconds(sampler, workers))
    del chosen[0], random[0]  # the first turn warms up
    pairs = [a / b for a, b in zip(chosen, random, strict=True)]
    return {
        "question": f"an epoch of pets chosen by saln beside random ones, {workers} workers",
        "value": statistics.median(chosen),
        "unit": "s",
        "baseline": statistics.median(random),
        "ratio": statistics.median(pairs),  # of neighbors in time: the machine's pace cancels
        "pairs": pairs,
    }


def opened_row(pets: Pets) -> Row:
    """How many photos an epoch opens, counted by the interpreter's audit events."""
    opened: list[str] = []
    counting = True

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if counting and event == "open" and str(arguments[0]).endswith(".jpg"):
            opened.append(str(arguments[0]))

    sys.addaudithook(hook)
    pets.chosen.set_epoch(0)
    pets.seconds(pets.chosen, 0)
    counting = False
    kept = KEPT * len(pets.chosen)
    return {
        "question": "photos opened in an epoch beside examples kept",
        "value": len(opened),
        "unit": "files",
        "baseline": kept,
        "ratio": len(opened) / kept,
        "distinct": len(set(opened)),
    }


def make_imagenet(path: Path) -> None:
    """A store of ImageNet's size: non-negative rows of low rank with noise, as features are."""
    rows, width = IMAGENET
    random = np.random.default_rng(0)
    base = random.random((8192, 32), dtype=np.float32) @ random.random((32, width), np.float32)
    block = (base + random.exponential(size=base.shape).astype(np.float32)).astype(np.float16)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        raw = np.lib.format.open_memmap(
            Path(folder) / "raw.npy", "w+", dtype=np.float16, shape=(rows, width)
        )
        for start in range(0, rows, len(block)):
            count = min(len(block), rows - start)
            raw[start : start + count] = np.roll(block[:count], start // len(block), axis=1)
        write_store(path, raw, np.arange(rows) % 1000)


CHILD = """
import json, sys, time
from pathlib import Path
import torch
torch.set_num_threads({threads})
import saln
store = saln.FeatureStore.open(sys.argv[1])
batches = saln.SelectedBatches(
    store, selector=saln.SALN(), batch_size={kept}, filter_ratio={ratio}, seed=0
)
iterator = iter(batches)
for _ in range(20):
    next(iterator)
started, steps = time.perf_counter(), 0
while time.perf_counter() - started < {seconds}:
    assert len(next(iterator)) == {kept}
    steps += 1
seconds = time.perf_counter() - started
iterator.close()
peak = next(
    int(line.split()[1]) * 1024
    for line in Path("/proc/self/status").read_text().splitlines()
    if line.startswith("VmHWM")
)
print(json.dumps([steps * batches.n_candidates / seconds, peak]))
"""


def imagenet_rows(scratch: Path) -> list[Row]:
    """Candidates a second and peak resident memory of a sampler over the large store."""
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        path = Path(folder) / "imagenet"
        make_imagenet(path)
        code = CHILD.format(
            threads=torch.get_num_threads(), kept=KEPT, ratio=FILTER_RATIO, seconds=SECONDS
        )
        done = subprocess.run(
            [sys.executable, "-c", code, str(path)], check=True, capture_output=True, text=True
        )
        speed, peak = json.loads(done.stdout)
        size = FeatureStore.open(path).features.nbytes
    about = f"{IMAGENET[0]:,} x {IMAGENET[1]:,} float16"
    return [
        {
            "question": f"candidates a second, saln over {about}; asked are 20,000",
            "value": speed,
            "unit": "candidates/s",
            "baseline": 20_000,
            "ratio": speed / 20_000,
        },
        {
            "question": f"peak resident memory of the sampler's process, saln over {about}",
            "value": peak / 2**30,
            "unit": "GiB",
            "baseline": size / 2**30,
            "ratio": peak / size,
        },
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data-root", type=Path, help="folder with oxford-iiit-pet/")
    parser.add_argument("--cache", type=Path, default=default_cache())
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--no-imagenet", action="store_true", help="leave the large store out")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    args = parser.parse_args()

    def report(row: Row) -> None:
        if args.json:
            print(json.dumps(row), flush=True)
        else:
            print(
                f"{row['question']}: {row['value']:.4g} {row['unit']} "
                f"(beside {row['baseline']:.4g}: {row['ratio']:.3f})",
                flush=True,
            )

    if args.data_root is None and args.no_imagenet:
        parser.error("nothing to measure: give --data-root, or leave --no-imagenet out")
    if args.data_root is not None:
        pets = Pets(args.data_root, args.cache)
        for workers in (0, 2):
            report(epoch_row(pets, workers, args.rounds))
        report(opened_row(pets))
    if not args.no_imagenet:
        for row in imagenet_rows(args.scratch):
            report(row)


if __name__ == "__main__":
    main()
