"""How well are wrong labels found? Rivals at their best, and ours, on the same features.

    python benchmarks/label_finders.py --data-root ../data --out rows.jsonl      and a table
    python benchmarks/label_finders.py --data-root ../data --datasets pets --seeds 0 --json
    python benchmarks/label_finders.py --device cuda --processes 16 --out rows.jsonl

EfficientNet-Lite0's features of all 50,000 training images of CIFAR-10 at 96 pixels and all 7,349
pets at 224. The rivals: ``cleanlab`` with a logistic regression, five folds, whose regularization
is chosen by the likelihood of held-out given labels; ``simifeat-vote`` and ``simifeat-rank``, the
two forms of that paper with 20 neighbors, the second with the true share of wrong labels of each
class; ``neighbors``: their votes alone, with a noise model; ``filter``: ours without neighbors;
``ours-rate-given``: ours with the true share of wrong labels of all classes together. No other
finder knows anything about the noise. AUROC: how the wrong are ranked; F1: of those that
are called wrong. Rows go to ``--out`` as they are made; a run that was stopped is resumed there.
Seconds are measured in one process alone: several on one machine slow each other down.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from probe_data import ProbeData, noisy_labels
from sklearn.metrics import f1_score, roc_auc_score

import saln
from saln.data import load_dataset
from saln.experiments import mean_interval
from saln.experiments.environment import environment
from saln.features import build_backbone, extract_features, nearest_neighbors
from saln.features.neighbors import NeighborTable, neighbor_table
from saln.labels.logistic_regression import LogisticRegression
from saln.selection.neighbor_beliefs import NEIGHBORS, NeighborBeliefs, label_beliefs

__all__ = ["CELLS", "FINDERS", "Findings", "beliefs_about", "finder_row"]

Row = dict[str, Any]
Labels = NDArray[np.int64]
CELLS = (
    ("symmetric", 0.4), ("pair-flips", 0.4), ("clean", 0.0), ("weak-model", 0.0),
    ("symmetric", 0.2), ("pair-flips", 0.2), ("symmetric", 0.6), ("symmetric", 0.1),
)  # fmt: skip
FILES = {"cifar10": "cifar10-96", "pets": "pets-224"}
SIZES = {"cifar10": 96, "pets": 224}
# Of the logistic regression on standardized features; and iterations.
STRENGTHS = (3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
ITERATIONS = 150
FOLDS = 5
KEY = ("dataset", "noise", "asked_rate", "seed", "finder")


def beliefs_about(data: ProbeData, labels: Labels) -> tuple[NeighborBeliefs, float]:
    """Coherence's beliefs about labels, and the seconds that they took, neighbors included."""
    table = neighbor_table(data.store, NEIGHBORS)
    started = time.perf_counter()
    beliefs = label_beliefs(
        torch.from_numpy(np.array(table.indices)),
        torch.from_numpy(np.array(table.similarities)),
        torch.from_numpy(labels),
        data.n_classes,
    )
    return beliefs, table.seconds + time.perf_counter() - started


@dataclass(frozen=True)
class Features:
    """Features with true labels.

    Attributes:
        train: float32, (n, d).
        labels: int64, (n,): the true ones.
        n_classes: C.
        kept: Where the neighbors are kept once they are known; None to keep none.
        device: Where logistic regressions are fitted.
        strengths: Their inverse regularizations, of which the likeliest is taken.
    """

    train: NDArray[np.float32]
    labels: Labels
    n_classes: int
    kept: Path | None = None
    device: str = "cpu"
    strengths: tuple[float, ...] = STRENGTHS

    @cached_property
    def table(self) -> NeighborTable:
        """The neighbors that SimiFeat and Coherence ask."""
        if self.kept is not None and self.kept.exists():
            with np.load(self.kept) as held:
                seconds = float(held["seconds"])
                return NeighborTable(held["indices"], held["similarities"], seconds)
        table = nearest_neighbors(self.train, NEIGHBORS, engine="exact")
        if self.kept is not None:
            np.savez(
                self.kept, indices=table.indices, similarities=table.similarities,
                seconds=table.seconds,
            )  # fmt: skip
        return table

    @cached_property
    def standardized(self) -> torch.Tensor:
        """As a logistic regression wants them, where it is fitted: float32."""
        rows = self.train
        standard = (rows - rows.mean(axis=0)) / (rows.std(axis=0) + 1e-6)
        return torch.from_numpy(standard).to(self.device)


@dataclass(frozen=True)
class Findings:
    """What a finder says.

    Attributes:
        quality: (n,): the higher, the likelier right.
        wrong: bool, (n,): called wrong.
        rate: The share of wrong labels as it estimates it; None where it does not.
        seconds: Neighbors and probabilities included.
        strength: The inverse regularization that was chosen, where there is one.
    """

    quality: NDArray[np.float64]
    wrong: NDArray[np.bool_]
    rate: float | None
    seconds: float
    strength: float | None = None


def _ours(
    data: Features, labels: Labels, neighbors: bool = True, noise_rate: float | None = None
) -> Findings:
    beliefs = saln.judge_labels(data.train, labels, neighbors=neighbors, noise_rate=noise_rate)
    return Findings(
        beliefs.confidence.numpy(), beliefs.suspicious.numpy(), beliefs.noise_rate,
        beliefs.seconds["total"],
    )  # fmt: skip


def _neighbors(data: Features, labels: Labels) -> Findings:
    table = data.table
    started = time.perf_counter()
    beliefs = label_beliefs(
        torch.from_numpy(table.indices),
        torch.from_numpy(table.similarities),
        torch.from_numpy(labels),
        data.n_classes,
    )
    seconds = table.seconds + time.perf_counter() - started
    quality = beliefs.confidence.numpy()
    return Findings(quality, quality < 0.5, beliefs.noise_rate, seconds)


def _votes(data: Features, labels: Labels) -> tuple[NDArray[np.float64], float]:
    started = time.perf_counter()
    votes = np.zeros((len(labels), data.n_classes))
    for column in data.table.indices.T:
        votes[np.arange(len(labels)), labels[column]] += 1
    return votes, data.table.seconds + time.perf_counter() - started


def _simifeat_vote(data: Features, labels: Labels) -> Findings:
    votes, seconds = _votes(data, labels)
    quality = votes[np.arange(len(labels)), labels] / votes.sum(axis=1)
    return Findings(quality, votes.argmax(axis=1) != labels, None, seconds)


def _simifeat_rank(data: Features, labels: Labels) -> Findings:
    votes, seconds = _votes(data, labels)
    quality = votes[np.arange(len(labels)), labels] / np.linalg.norm(votes, axis=1)
    wrong = np.zeros(len(labels), dtype=bool)
    for c in range(data.n_classes):
        members = np.flatnonzero(labels == c)
        count = int((data.labels[members] != c).sum())  # what its paper estimates, exactly
        wrong[members[np.argsort(quality[members], kind="stable")[:count]]] = True
    return Findings(quality, wrong, None, seconds)


def _cleanlab(data: Features, labels: Labels) -> Findings:
    from cleanlab.count import estimate_joint
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores
    from sklearn.model_selection import StratifiedKFold

    rows = data.standardized
    started = time.perf_counter()
    splitter = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    folds = list(splitter.split(np.zeros(len(labels)), labels))
    given = torch.from_numpy(labels).to(rows.device)

    def held_out(strength: float, fold: int) -> NDArray[np.float64]:
        seen, unseen = (torch.from_numpy(part).to(rows.device) for part in folds[fold])
        model = LogisticRegression(strength, ITERATIONS)
        model.fit(rows[seen], given[seen], data.n_classes)
        probabilities: NDArray[np.float64] = model.predict_proba(rows[unseen]).cpu().numpy()
        return probabilities

    def likelihood(probabilities: NDArray[np.float64]) -> float:
        unseen = folds[0][1]
        own = probabilities[np.arange(len(unseen)), labels[unseen]]
        return float(np.log(own.clip(1e-12)).mean())

    firsts = {strength: held_out(strength, 0) for strength in data.strengths}
    best = max(data.strengths, key=lambda strength: likelihood(firsts[strength]))
    probabilities = np.empty((len(labels), data.n_classes))
    for fold, (_, unseen) in enumerate(folds):
        probabilities[unseen] = firsts[best] if fold == 0 else held_out(best, fold)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    quality = np.asarray(get_label_quality_scores(labels, probabilities), dtype=np.float64)
    wrong = np.asarray(find_label_issues(labels, probabilities, n_jobs=1), dtype=bool)
    rate = 1.0 - float(np.trace(estimate_joint(labels, probabilities)))
    return Findings(quality, wrong, rate, time.perf_counter() - started, best)


FINDERS: dict[str, Callable[[Features, Labels], Findings]] = {
    "ours": _ours,
    "ours-rate-given": lambda data, labels: _ours(
        data, labels, noise_rate=float((labels != data.labels).mean())
    ),
    "filter": lambda data, labels: _ours(data, labels, neighbors=False),
    "neighbors": _neighbors,
    "simifeat-vote": _simifeat_vote,
    "simifeat-rank": _simifeat_rank,
    "cleanlab": _cleanlab,
}


def finder_row(data: Features, labels: Labels, about: Row, finder: str) -> Row:
    """How well a finder does; no AUROC and no F1 where none is wrong.

    Args:
        data: Features and true labels.
        labels: The labels to judge.
        about: What the row is about.
        finder: One of :data:`FINDERS`.
    """
    wrong = labels != data.labels
    findings = FINDERS[finder](data, labels)
    sure = findings.quality < 0.01
    return {
        **about,
        "finder": finder,
        "auroc": float(roc_auc_score(wrong, -findings.quality)) if wrong.any() else None,
        "f1": float(f1_score(wrong, findings.wrong)) if wrong.any() else None,
        "called_wrong": float(findings.wrong.mean()),
        "noise_rate": float(wrong.mean()),
        "estimated_noise_rate": findings.rate,
        "right_of_below_1_percent": float((~wrong[sure]).mean()) if sure.any() else None,
        "seconds": round(findings.seconds, 3),
        **({} if findings.strength is None else {"strength": findings.strength}),
    }


def load_features(
    data_root: Path, dataset: str, cache: Path, device: str = "cpu", limit: int | None = None
) -> Features:
    """All labeled training images' features; those in ``cache`` as .npy files, where there are.

    Args:
        data_root: Where the images are.
        dataset: One of :data:`FILES`.
        cache: Folder for features and neighbors.
        device: Where logistic regressions are fitted.
        limit: Only the first rows, to try a run; None for all.

    Raises:
        SalnError: The images are not below ``data_root``, or cannot be read.
    """
    stem = cache / FILES[dataset]
    if not stem.with_suffix(".npy").exists():
        specs = {"cifar10": f"hf:{data_root.resolve() / 'cifar10'}", "pets": "oxford-pet"}
        data = load_dataset(specs[dataset], data_root, validation_share=0.001)
        parts = [data.train, data.validation, *([data.test] if dataset == "pets" else [])]
        backbone = build_backbone("efficientnet-lite0", image_size=SIZES[dataset])
        stores = [
            extract_features(part, backbone, name=f"{dataset}-{number}", cache_dir=cache)
            for number, part in enumerate(parts)
        ]
        cache.mkdir(parents=True, exist_ok=True)
        np.save(stem.with_suffix(".npy"), np.concatenate([s.features for s in stores]))
        np.save(Path(f"{stem}-labels.npy"), np.concatenate([s.labels for s in stores]))
    labels = np.load(f"{stem}-labels.npy").astype(np.int64)
    train = np.load(stem.with_suffix(".npy"), mmap_mode="r")[:limit].astype(np.float32)
    kept = Path(f"{stem}-neighbors{'' if limit is None else f'-{limit}'}.npz")
    return Features(train, labels[:limit], int(labels.max()) + 1, kept, device)


def table_of(rows: list[Row]) -> str:
    """Means over the seeds, with 95% intervals where there are several."""
    lines = [
        "| data | noise | finder | seeds | AUROC | F1 | called (%) | estimated (%) | seconds |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        key = tuple(row[name] for name in ("dataset", "noise", "asked_rate", "finder"))
        groups.setdefault(key, []).append(row)
    for (dataset, noise, rate, finder), group in sorted(
        groups.items(), key=lambda item: (item[0][0], CELLS.index(item[0][1:3]), item[0][3])
    ):

        def cell(name: str, factor: float = 1.0, digits: int = 4, of: list[Row] = group) -> str:
            values = [row[name] * factor for row in of if row[name] is not None]
            if not values:
                return "-"
            mean, between = mean_interval(values)
            if between is None:
                return f"{mean:.{digits}f}"
            return f"{mean:.{digits}f} [{between[0]:.{digits}f}, {between[1]:.{digits}f}]"

        asked = f" {rate:g}" if rate else ""
        lines.append(
            f"| {dataset} | {noise}{asked} | {finder} | {len(group)} | {cell('auroc')} | "
            f"{cell('f1')} | {cell('called_wrong', 100, 1)} | "
            f"{cell('estimated_noise_rate', 100, 1)} | {cell('seconds', 1, 1)} |"
        )
    return "\n".join(lines)


@dataclass(frozen=True)
class Source:
    """Where features are read, in each process for itself."""

    data_root: Path
    cache: Path
    device: str
    limit: int | None


@lru_cache(maxsize=1)
def _features_of(source: Source, dataset: str) -> Features:
    return load_features(source.data_root, dataset, source.cache, source.device, source.limit)


@lru_cache(maxsize=1)
def _labels_of(source: Source, dataset: str, noise: str, rate: float, seed: int) -> Labels:
    return noisy_labels(_features_of(source, dataset), noise, rate, seed)


def made_row(source: Source, key: Row) -> Row:
    """The row of a key, whose names are those of :data:`KEY`."""
    about = {name: key[name] for name in KEY[:-1]}
    labels = _labels_of(source, *about.values())
    data = _features_of(source, key["dataset"])
    return finder_row(data, labels, {"question": "finders", **about}, key["finder"])


def _missing(args: argparse.Namespace, rows: list[Row]) -> list[Row]:
    """The keys that have no row yet."""
    done = {tuple(row[name] for name in KEY) for row in rows}
    keys = [
        (dataset, noise, rate, seed, finder)
        for dataset in args.datasets.split(",")
        for seed in map(int, args.seeds.split(","))
        for noise, rate in CELLS[: args.cells]
        if noise != "clean" or seed == 0  # the same for every seed
        for finder in args.finders.split(",")
    ]
    return [dict(zip(KEY, key, strict=True)) for key in keys if key not in done]


def _rows_of(source: Source, keys: list[Row], processes: int) -> Iterator[Row]:
    """The rows as they are made."""
    if processes == 1:
        yield from (made_row(source, key) for key in keys)
        return
    for dataset in {key["dataset"] for key in keys}:
        _ = _features_of(source, dataset).table  # searched once, not in every process
    _features_of.cache_clear()
    # A process that forks after CUDA was used cannot use it.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        for done in as_completed([pool.submit(made_row, source, key) for key in keys]):
            yield done.result() | {"seconds": None}


def main() -> None:
    """Runs what is asked for, and prints rows or the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-root", type=Path, default=Path("../data"))
    parser.add_argument("--cache", type=Path, default=Path("features"))
    parser.add_argument("--datasets", default="pets,cifar10")
    parser.add_argument("--finders", default=",".join(FINDERS))
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--cells", type=int, default=len(CELLS), help="only the first ones")
    parser.add_argument("--device", default="cpu", help="of cleanlab's logistic regressions")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--limit", type=int, help="only the first rows of each, to try a run")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    rows: list[Row] = []
    if args.out is not None and args.out.exists():
        lines = args.out.read_text(encoding="utf-8").splitlines()
        rows = [row for row in map(json.loads, lines) if "environment" not in row]
    elif args.out is not None:
        command = {"command": ["python", "benchmarks/label_finders.py", *sys.argv[1:]]}
        session = {"environment": environment(torch.device(args.device)) | command}
        args.out.write_text(json.dumps(session) + "\n", encoding="utf-8")
    source = Source(args.data_root, args.cache, args.device, args.limit)
    for row in _rows_of(source, _missing(args, rows), args.processes):
        rows.append(row)
        if args.out is not None:
            with args.out.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(row) + "\n")
        if args.json:
            print(json.dumps(row), flush=True)
    if not args.json:
        print(table_of(rows))


if __name__ == "__main__":
    main()
