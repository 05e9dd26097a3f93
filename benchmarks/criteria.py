"""What a criterion keeps and costs, and a quick look at how it trains, at equal steps.

    python benchmarks/criteria.py --probe --data-root ../data            a table of means
    python benchmarks/criteria.py --probe --data-root ../data --json     one JSON object a line
    python benchmarks/criteria.py --cost --data-root ../data --json

``--probe``: a linear layer on EfficientNet-Lite0's features, standardized; every step keeps
64 of the candidates; SGD with momentum 0.9. ``standard`` goes through everything, so it takes
1 / (1 - f) times the steps. All have one learning rate, which was chosen for none: which criterion
is better, ``tuned_probe.py`` says. ``--cost``: a training step's seconds with each criterion that
chooses before loading, beside uniform's.

Rows go to ``--out`` as they come; a run that was stopped goes on from there.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from label_finders import beliefs_about
from probe_data import NOISES, ProbeData, load_images, load_probe_data, noisy_labels
from real_features import DATASETS, default_cache
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from saln.data.torch_datasets import Batch
from saln.experiments.environment import environment
from saln.loading.epoch_batches import EpochBatches
from saln.selection import SELECTORS, Candidates, Selector, candidates_needed
from saln.training import derive_generator

KEPT = 64
STEPS = 400
LEARNING_RATES = {"cifar10": 0.01, "pets": 0.005}
MOMENTUM = 0.9
REFERENCE_SHARE = 0.1
DEFAULT_SELECTORS = "standard,uniform,saln,coherence,coherence-batch"
COST_SELECTORS = "coherence,coherence-batch,saln,balanced-curriculum"
DEFAULT_NOISES = "clean,symmetric:0.2,symmetric:0.4,pair-flips:0.2,pair-flips:0.4,weak-model"
KEY = ("question", "dataset", "noise", "selector", "filter_ratio", "seed", "asked_rate")

Row = dict[str, Any]


class Rows:
    """Rows on disk, each written once; those of a later run follow a line about that run."""

    def __init__(self, path: Path | None, as_json: bool) -> None:
        self.path = path
        self.as_json = as_json
        self.rows: list[Row] = []
        self.begun = False
        if path is not None and path.exists():
            lines = path.read_text(encoding="utf-8").splitlines()
            self.rows = [row for row in map(json.loads, lines) if "environment" not in row]

    def has(self, **key: Any) -> bool:
        """Whether there is a row with this key."""
        return any(all(row.get(k) == key.get(k) for k in KEY) for row in self.rows)

    def add(self, row: Row) -> None:
        """Keeps a row, on disk and on the screen."""
        self.rows.append(row)
        line = json.dumps(row)
        if self.path is not None:
            if not self.begun:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                command = {"command": ["python", "benchmarks/criteria.py", *sys.argv[1:]]}
                about = {"environment": environment(torch.device("cpu")) | command}
                line = f"{json.dumps(about)}\n{line}"
                self.begun = True
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(line + "\n")
        if self.as_json:
            print(json.dumps(row), flush=True)


def build(name: str) -> Selector:
    """A selector by name."""
    return SELECTORS[name]()


class Probe:
    """A linear layer in training on part of a data set's features.

    Args:
        data: Features and true labels.
        labels: The labels to train on.
        pool: int64: the examples that may be trained on.
        learning_rate: Of SGD.
    """

    def __init__(
        self, data: ProbeData, labels: np.ndarray[Any, Any], pool: Tensor, learning_rate: float
    ) -> None:
        mean, spread = data.train.mean(axis=0), data.train.std(axis=0) + 1e-6
        self.data = data
        self.inputs = torch.from_numpy((data.train - mean) / spread)
        self.test = torch.from_numpy((data.test - mean) / spread)
        self.labels = torch.from_numpy(labels)
        self.wrong = torch.from_numpy(labels != data.labels)
        self.pool = pool
        self.layer = nn.utils.skip_init(nn.Linear, data.train.shape[1], data.n_classes)
        nn.init.zeros_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)
        self.optimizer = torch.optim.SGD(self.layer.parameters(), learning_rate, MOMENTUM)
        self.kept = self.kept_wrong = 0

    def batches(self, size: int, steps: int, seed: int) -> Iterator[Tensor]:
        """Examples in the shuffled order of each epoch, the same for all arms."""
        epoch = done = 0
        while done < steps:
            order = torch.randperm(len(self.pool), generator=derive_generator(seed, "order", epoch))
            for start in range(0, len(order) - size + 1, size):
                if done == steps:
                    return
                yield self.pool[order[start : start + size]]
                done += 1
            epoch += 1

    def step(self, rows: Tensor, weights: Tensor | None = None) -> None:
        """A gradient step on some examples."""
        losses = cross_entropy(self.layer(self.inputs[rows]), self.labels[rows], reduction="none")
        loss = (losses if weights is None else losses * weights).mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.kept += len(rows)
        self.kept_wrong += int(self.wrong[rows].sum())

    @torch.inference_mode()
    def outputs(self, rows: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.layer(self.inputs[rows])
        return logits

    @torch.inference_mode()
    def accuracy(self) -> float:
        """On the test images."""
        hits = self.layer(self.test).argmax(dim=1).numpy() == self.data.test_labels
        return float(hits.mean())


def run_probe(
    data: ProbeData,
    labels: np.ndarray[Any, Any],
    name: str,
    about: Row,
    held_out: bool,
    rate: float,
) -> Row:
    """Trains one probe and gives its row."""
    seed, f = about["seed"], about["filter_ratio"]
    order = torch.randperm(len(labels), generator=derive_generator(seed, "reference part"))
    cut = round(REFERENCE_SHARE * len(labels)) if held_out else 0
    pool, reference_pool = order[cut:].sort().values, order[:cut].sort().values
    started = time.perf_counter()
    probe = Probe(data, labels, pool, rate)
    n, steps = candidates_needed(KEPT, f), STEPS
    if name == "standard":
        steps = round(STEPS / (1 - f))
        for rows in probe.batches(KEPT, steps, seed):
            probe.step(rows)
    else:
        selector = build(name)
        reference = None
        if any(field.startswith("reference_") for field in selector.requires):
            reference = Probe(data, labels, reference_pool, rate)
            for rows in reference.batches(KEPT, STEPS, seed):
                reference.step(rows)
        confidence: Tensor | None = None
        if "label_confidence" in selector.requires:
            beliefs, extra = beliefs_about(data, labels)
            confidence = beliefs.confidence
            # The neighbor table's seconds count as when it was made.
            started = time.perf_counter() - extra
        features = torch.from_numpy(data.train)
        for number, rows in enumerate(probe.batches(n, steps, seed)):
            candidates = known(probe, reference, features, confidence, rows, selector)
            generator = derive_generator(seed, "select", number)
            chosen = selector(candidates, KEPT, generator=generator)
            probe.step(rows[chosen.positions], chosen.weights)
    seconds = time.perf_counter() - started
    return {
        **about,
        "selector": name,
        "steps": steps,
        "test_accuracy": probe.accuracy(),
        "wrong_label_share_kept": probe.kept_wrong / probe.kept,
        "seconds": round(seconds, 3),
    }


def known(
    probe: Probe,
    reference: Probe | None,
    features: Tensor,
    confidence: Tensor | None,
    rows: Tensor,
    selector: Selector,
) -> Candidates:
    """The candidates with what the selector requires."""
    labels = probe.labels[rows]

    def losses(of: Probe) -> Tensor:
        return cross_entropy(of.outputs(rows), labels, reduction="none")

    makers: dict[str, Callable[[], Tensor]] = {
        "features": lambda: features[rows],
        "labels": lambda: labels,
        "learner_outputs": lambda: probe.outputs(rows),
        "learner_losses": lambda: losses(probe),
    }
    if confidence is not None:
        makers["label_confidence"] = lambda: confidence[rows]
    if reference is not None:
        makers["reference_outputs"] = lambda: reference.outputs(rows)
        makers["reference_losses"] = lambda: losses(reference)
    fields: dict[str, Any] = {name: makers[name]() for name in selector.requires}
    return Candidates(indices=rows, **fields)


def probe(args: argparse.Namespace, rows: Rows) -> None:
    """Linear probes: every data set, noise, filter ratio, seed and selector."""
    needs = (build(name).requires for name in args.selectors if name != "standard")
    held_out = any(field.startswith("reference_") for fields in needs for field in fields)
    for dataset in args.datasets:
        data = load_probe_data(args.data_root, dataset, args.cache)
        for noise, rate in args.noises:
            for seed in args.seeds:
                labels = noisy_labels(data, noise, rate, seed)
                about: Row = {
                    "dataset": dataset,
                    "noise": noise,
                    "noise_rate": float((labels != data.labels).mean()),
                    "asked_rate": rate,
                    "seed": seed,
                }
                for f in args.filter_ratios:
                    for name in args.selectors:
                        key = {**about, "filter_ratio": f}
                        if rows.has(**key, selector=name):
                            continue
                        rate_of_learning = LEARNING_RATES[dataset]
                        rows.add(run_probe(data, labels, name, key, held_out, rate_of_learning))


def endless(batches: EpochBatches) -> Iterator[Batch]:
    """Epoch after epoch."""
    for epoch in itertools.count(1):
        batches.set_epoch(epoch)
        yield from batches


def median_interval(values: list[float]) -> tuple[float, float]:
    """95% interval of the median, by the order of the values alone (sign test)."""
    ordered, n = sorted(values), len(values)
    # The most of n that fall on the wrong side of the median, in 97.5% of cases.
    outside = next(k for k in range(n) if sum(math.comb(n, i) for i in range(k + 1)) > 0.025 * 2**n)
    return ordered[max(outside - 1, 0)], ordered[min(n - outside, n - 1)]


def cost(args: argparse.Namespace, rows: Rows) -> None:
    """Seconds of a step of fine-tuning, loading included, with each criterion in turn."""
    from saln.data.torch_datasets import TrainingView
    from saln.loading import SelectedBatches
    from saln.loading.epoch_batches import LoadedBatches
    from saln.training import build_learner

    features = load_probe_data(args.data_root, "cifar10", args.cache)
    data, examples = load_images(args.data_root, "cifar10")
    learner, normalization = build_learner(
        "efficientnet-lite0",
        len(data.class_names),
        image_size=96,
        pretrained=True,
        weights=None,
        seed=0,
    )
    learner.train()
    optimizer = torch.optim.SGD(learner.parameters(), 0.001, MOMENTUM)
    beliefs, _ = beliefs_about(features, features.labels)
    names = [name for name in args.selectors if name not in ("standard", "uniform")]
    names = ["uniform", *(name for name in names if build(name).chooses_before_loading())]
    batches = {}
    for name in names:
        view = TrainingView(examples, data.augmentation(96, normalization), 0)
        sampler = SelectedBatches(
            features.store.features,
            labels=features.labels,
            label_confidence=beliefs.confidence.numpy(),
            selector=build(name),
            batch_size=KEPT,
            filter_ratio=0.8,
            seed=0,
        )
        batches[name] = endless(LoadedBatches(view, sampler))
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(1 + args.cost_steps):
        for name in names:
            started = time.perf_counter()
            batch = next(batches[name])
            loss = cross_entropy(learner(batch.images), batch.labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            seconds[name].append(time.perf_counter() - started)
    # The first of each warms up. The others are compared in pairs: the machine's speed drifts.
    for name in names[1:]:
        pairs = zip(seconds[name][1:], seconds["uniform"][1:], strict=True)
        ratios = [own / base for own, base in pairs]
        rows.add(
            {
                "question": f"a training step with {name} beside uniform, 64 of 320 at 96 px",
                "value": statistics.median(seconds[name][1:]),
                "unit": "seconds",
                "baseline": statistics.median(seconds["uniform"][1:]),
                "ratio": statistics.median(ratios),
                "ratio_ci95": median_interval(ratios),
                "pairs": len(ratios),
            }
        )


def table(rows: list[Row]) -> str:
    """Means over the seeds."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        keys = ("dataset", "noise", "asked_rate", "filter_ratio", "selector", "question")
        groups.setdefault(tuple(row.get(key) for key in keys), []).append(row)
    lines = []
    for (dataset, noise, _, f, selector, question), found in groups.items():

        def mean(key: str, found: list[Row] = found) -> float:
            values = [row[key] for row in found if row[key] is not None]
            return statistics.fmean(values) if values else float("nan")

        what = f"{dataset:<8} {noise:<10} {mean('noise_rate'):.2f}" if dataset else ""
        if question is not None:
            lines.append(f"{question}: {mean('ratio'):.3f}")
        else:
            lines.append(
                f"{what}  f {f:g}  {selector:<20} {len(found)} seeds  accuracy "
                f"{100 * mean('test_accuracy'):.2f}  wrong kept "
                f"{mean('wrong_label_share_kept'):.3f}  {mean('seconds'):.1f} s"
            )
    return "\n".join(lines)


def _noise(text: str) -> tuple[str, float]:
    name, _, rate = text.partition(":")
    if name not in NOISES:
        raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(NOISES)}")
    return name, float(rate or 0.0)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    what = parser.add_mutually_exclusive_group(required=True)
    for run in (probe, cost):
        what.add_argument(f"--{run.__name__}", dest="run", action="store_const", const=run)
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--cache", type=Path, default=default_cache())
    parser.add_argument("--datasets", default=",".join(DATASETS))
    parser.add_argument(
        "--selectors", help=f"default {DEFAULT_SELECTORS}; of --cost {COST_SELECTORS}"
    )
    parser.add_argument("--noises", default=DEFAULT_NOISES)
    parser.add_argument("--filter-ratios", default="0.8")
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--cost-steps", type=int, default=12, help="of --cost")
    parser.add_argument("--out", type=Path, help="append rows here; go on where it ends")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    args = parser.parse_args()
    args.datasets = args.datasets.split(",")
    usual = COST_SELECTORS if args.run is cost else DEFAULT_SELECTORS
    args.selectors = (args.selectors or usual).split(",")
    for name in args.selectors:
        if name != "standard" and name not in SELECTORS:
            parser.error(
                f"unknown selector {name!r}; choose some of {', '.join(('standard', *SELECTORS))}"
            )
    args.noises = [_noise(text) for text in args.noises.split(",")]
    args.filter_ratios = [float(text) for text in args.filter_ratios.split(",")]
    args.seeds = [int(text) for text in args.seeds.split(",")]
    rows = Rows(args.out, args.json)
    args.run(args, rows)
    if not args.json:
        sys.stdout.write(table(rows.rows) + "\n")


if __name__ == "__main__":
    main()
