"""What the eigenvector of the published criterion sits on, on real features.

    python benchmarks/participation.py --data-root ../data --out results/participation.jsonl

For batches of 320 candidates: the participation ratio (about how many examples the vector sits
on), whether its largest entry is the example least like the others (by the mean of its cosines),
how many of the 64 that are kept are among the 64 least like the others, and how many would be kept
if the vector were that one example, less its mean, put into ``(d_i - value) v_i = (S v)_i``. Of the
first batch all entries are kept, for the picture.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from probe_data import load_probe_data
from real_features import DATASETS, default_cache
from torch import Tensor
from torch.nn.functional import normalize

import saln
from saln.experiments.environment import environment
from saln.files import write_text
from saln.training import derive_generator

CANDIDATES, KEPT, BATCHES = 320, 64, 40

Row = dict[str, Any]


def look_at(features: Tensor) -> tuple[Row, Row]:
    """One batch's facts, and its entries for the picture.

    Args:
        features: (n, d).
    """
    found = saln.fiedler(features)
    weight = found.vector.abs()
    unit = normalize(features.double(), dim=1)
    n = len(unit)
    degrees = unit @ unit.sum(dim=0)  # with itself, as in the listing
    alike = (degrees - 1) / (n - 1)
    outlier = int(weight.argmax())
    to_outlier = unit @ unit[outlier]
    # Were the vector the outlier alone, less its mean, the others' entries would be these.
    to_the_rest = (degrees - 1 - to_outlier) / (n - 2)
    first_order = ((to_outlier - to_the_rest) / (degrees - found.value)).abs()
    first_order[outlier] = torch.inf

    def shared(order: Tensor) -> float:
        best = set(order.argsort(descending=True, stable=True)[:KEPT].tolist())
        return len(kept & best) / KEPT

    kept = set(weight.argsort(descending=True, stable=True)[:KEPT].tolist())
    facts = {
        "participation_ratio": float(found.participation_ratio),
        "largest_entry_squared": float(weight.max() ** 2),
        "largest_is_least_alike": outlier == int(alike.argmin()),
        "kept_among_least_alike": shared(-alike),
        "kept_by_the_outlier_alone": shared(first_order),
        "value_over_smallest_degree": float(found.value / (degrees.min() - 1)),
    }
    entries = {
        "alike": [round(value, 5) for value in alike.tolist()],
        "entries": [float(f"{value:.4g}") for value in weight.tolist()],
        "kept": KEPT,
    }
    return facts, entries


def rows(data_root: Path, cache: Path, seed: int = 0) -> Iterator[Row]:
    """Every data set's batches."""
    for dataset in DATASETS:
        features = torch.from_numpy(load_probe_data(data_root, dataset, cache).train)
        for batch in range(BATCHES):
            order = torch.randperm(len(features), generator=derive_generator(seed, "batch", batch))
            facts, entries = look_at(features[order[:CANDIDATES]])
            about: Row = {"dataset": dataset, "n": CANDIDATES, "k": KEPT, "batch": batch}
            yield about | facts
            if batch == 0:
                yield {"picture": dataset, **entries}


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--cache", type=Path, default=default_cache())
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    command = {"command": ["python", "benchmarks/participation.py", *sys.argv[1:]]}
    first = {"environment": environment(torch.device("cpu")) | command}
    found = [first, *rows(args.data_root, args.cache)]
    write_text(args.out, "".join(json.dumps(row) + "\n" for row in found))
    print(f"{len(found) - 1} rows in {args.out}")


if __name__ == "__main__":
    main()
