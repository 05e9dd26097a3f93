"""How much slower than a bare forward loop is ``saln.extract_features``?

    python benchmarks/extraction.py --data-root ../data            a table
    python benchmarks/extraction.py --data-root ../data --json     one JSON object a line

Both sides open, resize and normalize the same photos with the same loader and put them
through the same EfficientNet-Lite0 at 96 pixels in the same batches. The bare loop drops the
features; ``extract_features`` checks them, writes them in durable shards, makes the
data set's fingerprint and opens the finished store, all inside its clock. The two take turns,
and the order of each turn is the other one's of the turn before; what counts is the median.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from saln.data import Examples, load_dataset
from saln.data.torch_datasets import EvaluationView, collate, inference_batch_size, raise_broken
from saln.data.transforms import EvaluationTransform
from saln.features import build_backbone, extract_features
from saln.features.backbones import Network

IMAGE_SIZE = 96
SHARD_ROWS = 256  # a quarter of the default, so that a short run too ends several shards


def bare_seconds(examples: Examples, network: Network, device: torch.device, workers: int) -> float:
    """Seconds of the loop that anybody would write."""
    transform = EvaluationTransform(network.image_size, network.normalization)
    loader = DataLoader(
        EvaluationView(examples, transform),
        batch_size=inference_batch_size(device),
        collate_fn=collate,
        num_workers=workers,
        pin_memory=device.type == "cuda",
        generator=torch.Generator(),
    )
    body = network.body.to(device)
    started = time.perf_counter()
    with torch.inference_mode():
        for batch in raise_broken(loader):
            body(batch.images.to(device)).cpu()
    return time.perf_counter() - started


def extract_seconds(
    examples: Examples, network: Network, device: torch.device, workers: int
) -> float:
    """Seconds of ``extract_features`` into an empty folder."""
    with tempfile.TemporaryDirectory(prefix="saln-extraction-") as folder:
        started = time.perf_counter()
        extract_features(
            examples,
            network,
            cache_dir=folder,
            device=device,
            workers=workers,
            mixed_precision=False,
            shard_rows=SHARD_ROWS,
        )
        return time.perf_counter() - started


def measure(
    dataset: str, data_root: Path, n: int, workers: int, rounds: int, device: torch.device
) -> Any:
    """Both sides, in turn; gives the row."""
    data = load_dataset(dataset, data_root, validation_share=0.001)
    examples = data.train.part(np.arange(min(n, len(data.train))))
    network = build_backbone("efficientnet-lite0", image_size=IMAGE_SIZE)
    sides = [("bare", bare_seconds), ("saln", extract_seconds)]
    warm = examples.part(np.arange(min(128, len(examples))))
    for _, side in sides:
        side(warm, network, device, workers)
    took: dict[str, list[float]] = {"bare": [], "saln": []}
    for number in range(rounds):
        for name, side in sides if number % 2 == 0 else sides[::-1]:
            took[name].append(side(examples, network, device, workers))
    speed = {name: len(examples) / statistics.median(values) for name, values in took.items()}
    return {
        "question": f"extract_features against the bare forward loop, {len(examples)} of "
        f"{dataset} at {IMAGE_SIZE} px, {workers} workers, {device.type}",
        "value": round(speed["saln"], 2),
        "unit": "images/s",
        "baseline": round(speed["bare"], 2),
        "ratio": round(speed["saln"] / speed["bare"], 4),
        "seconds": {name: [round(value, 3) for value in values] for name, values in took.items()},
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-root", type=Path, required=True, help="holds oxford-iiit-pet/")
    parser.add_argument("--dataset", default="oxford-pet", help="digits needs no data")
    parser.add_argument("-n", type=int, default=1000, help="how many photos")
    parser.add_argument("--workers", default="0,2", help="loader processes, with commas between")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    args = parser.parse_args()
    for workers in map(int, args.workers.split(",")):
        device = torch.device(args.device)
        row = measure(args.dataset, args.data_root, args.n, workers, args.rounds, device)
        if args.json:
            print(json.dumps(row), flush=True)
        else:
            sys.stdout.write(
                f"{row['question']}\n  {row['value']:,.1f} {row['unit']}, bare "
                f"{row['baseline']:,.1f}: ratio {row['ratio']:.3f}\n"
            )


if __name__ == "__main__":
    main()
