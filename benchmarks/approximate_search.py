"""How well is an approximate search done, and how quickly, on the same rows?

    python benchmarks/approximate_search.py            a table
    python benchmarks/approximate_search.py --json     one JSON object a line

Rows are generated as in `scale.py`, 256 wide. SALN's search, by a graph of FAISS, takes turns with
FAISS's inverted lists, of which as many are searched as hold 97% of a sample's exact neighbors;
both on one thread. Seconds are of the processor, since the machine may be busy. Recall is the share
of the exact neighbors that 512 other rows have in the table. The stored rows have a third, SALN's
own inverted lists, which these figures replaced by the graph.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import faiss
import numpy as np
import numpy.typing as npt
import torch
from scale import NEIGHBOR_WIDTH, generate

from saln.experiments.environment import environment
from saln.features.approximate_neighbors import RECALL, SAMPLE, approximate_neighbors
from saln.features.unit_rows import UnitRows, nearest_rows
from saln.randomness import derive_generator

Row = dict[str, Any]
SIZES = (20_000, 100_000)
NEIGHBORS, ROUNDS = 20, 2
Indices = npt.NDArray[np.int64]


class Searched(NamedTuple):
    """Neighbors, and how widely they were sought.

    Attributes:
        indices: int64, (n, k).
        width: Lists searched for a row, or candidates of the graph.
    """

    indices: Indices
    width: int


def recall_of(found: Indices, exact: Indices) -> float:
    """The share of the exact neighbors that are among those found."""
    pairs = zip(found, exact, strict=True)
    return sum(len(np.intersect1d(*pair, assume_unique=True)) for pair in pairs) / exact.size


def by_saln(rows: UnitRows, k: int) -> Searched:
    """SALN's search."""
    found = approximate_neighbors(rows, k)
    return Searched(found.indices, found.width)


def _without_oneself(found: Indices, queries: Indices) -> Indices:
    """The k others of k + 1 found; of a row that did not find itself the first k."""
    keep = found != queries[:, None]
    keep[keep.all(axis=1), -1] = False
    others: Indices = found[keep].reshape(len(found), -1)
    return others


def _search(index: Any, rows: UnitRows, k: int, set_width: Callable[[int], None]) -> Searched:
    """The narrowest search that finds the wanted share for a sample; then that for all rows."""
    data = np.ascontiguousarray(rows.take(slice(rows.n)).numpy())
    sample = torch.randperm(rows.n, generator=derive_generator(0, "width"))[:SAMPLE]
    exact = nearest_rows(rows, sample, k)[1].numpy()
    queries = sample.numpy()
    low, high = 0, 1
    while True:
        set_width(high)
        found = _without_oneself(index.search(data[queries], k + 1)[1], queries)
        if recall_of(found, exact) >= RECALL:
            break
        low, high = high, 2 * high
    while high - low > 1:
        width = (low + high) // 2
        set_width(width)
        found = _without_oneself(index.search(data[queries], k + 1)[1], queries)
        low, high = (low, width) if recall_of(found, exact) >= RECALL else (width, high)
    set_width(high)
    found = index.search(data, k + 1)[1]
    return Searched(_without_oneself(found, np.arange(rows.n)), high)


def by_faiss_lists(rows: UnitRows, k: int) -> Searched:
    """FAISS's inverted lists (IndexIVFFlat), as many as SALN's."""
    data = np.ascontiguousarray(rows.take(slice(rows.n)).numpy())
    lists = round(math.sqrt(rows.n))
    quantizer = faiss.IndexFlatIP(rows.d)
    index = faiss.IndexIVFFlat(quantizer, rows.d, lists, faiss.METRIC_INNER_PRODUCT)
    index.train(data)
    index.add(data)
    return _search(index, rows, k, lambda width: setattr(index, "nprobe", min(width, lists)))


ENGINES = {"saln, graph": by_saln, "faiss, lists": by_faiss_lists}


def measure(n: int, engines: list[str], rounds: int) -> list[Row]:
    """Each engine on the same rows, in turn."""
    features = np.empty((n, NEIGHBOR_WIDTH), dtype=np.float16)
    generate(n, NEIGHBOR_WIDTH, features)
    rows = UnitRows(features)
    sample = torch.randperm(n, generator=derive_generator(0, "measured"))[:SAMPLE]
    exact = nearest_rows(rows, sample, NEIGHBORS)[1].numpy()
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    results: dict[str, Searched] = {}
    for turn in range(rounds):
        for name in engines if turn % 2 == 0 else engines[::-1]:
            started = time.process_time()
            results[name] = ENGINES[name](rows, NEIGHBORS)
            seconds[name].append(time.process_time() - started)
    baseline = min(seconds[engines[0]])
    return [
        {
            "question": f"approximate neighbors by {name}",
            "n": n,
            "value": min(seconds[name]),
            "unit": "s of one core",
            "baseline": baseline,
            "ratio": min(seconds[name]) / baseline,
            "recall": recall_of(results[name].indices[sample.numpy()], exact),
            "width": results[name].width,
            "seconds": seconds[name],
        }
        for name in engines
    ]


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)))
    parser.add_argument("--engines", default="; ".join(ENGINES), help="with semicolons between")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="the quickest counts")
    parser.add_argument("--data-root", type=Path, help="not needed: the features are generated")
    parser.add_argument("--out", type=Path, help="write the rows here as well")
    args = parser.parse_args()
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)  # of the lists; SALN goes by torch's
    about = {"environment": environment(torch.device("cpu"))}
    about["environment"]["command"] = ["python", *sys.argv]
    about["environment"]["faiss"] = faiss.__version__
    lines = [json.dumps(about)]
    for n in map(int, args.sizes.split(",")):
        for row in measure(n, [name.strip() for name in args.engines.split(";")], args.rounds):
            lines.append(json.dumps(row))
            text = f"{row['question']:<40} n {n:>9,}  {row['value']:>8.2f} {row['unit']}"
            text += f"  ratio {row['ratio']:.2f}  recall {row['recall']:.3f}  width {row['width']}"
            print(lines[-1] if args.json else text, flush=True)
    if args.out is not None:
        args.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
