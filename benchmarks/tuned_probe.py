"""The last layer alone on frozen features: every arm at its own learning rate and weight decay.

    python benchmarks/tuned_probe.py --data-root ../data --rows rows.jsonl
    python benchmarks/tuned_probe.py --rows rows.jsonl --table          the tables alone

EfficientNet-Lite0's features, standardized: 20,480 images of CIFAR-10 at 96 px, and pets at 224 px.
64 are kept a step, SGD with momentum, cosine decay to zero. The points of an arm are tried on part
of the test images with a seed of its own; the best is trained with five others and tested once on
the rest of them. What chooses before loading is asked first, and then all points are trained at
once; what asks the learner trains by the library's own loop, point by point. ``jest`` has what the
features say of each example (``saln.features_as_teacher``) as its reference, so that no arm has to
do without the examples that would train another.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from evidence_tables.probe import every_arm, rule
from evidence_tables.tuned import TUNING
from numpy.typing import NDArray
from probe_data import load_images, load_probe_data, noisy_labels
from real_features import default_cache
from scratch_plans import KEPT, ORACLE, Known, Noise, Plan, make_plan
from torch import Tensor, nn
from tuned_study import Cell, Job, Point, Row, Study, StudyArm, as_seeds, store, stored

from saln.data.datasets import stratified_part
from saln.data.torch_datasets import Batch
from saln.experiments.environment import environment
from saln.features import build_backbone, extract_features, nearest_neighbors
from saln.features.neighbors import NeighborTable
from saln.loading import FilterSchedule, LearnerSelected
from saln.loading.epoch_batches import CandidateBatches, ScoredBatches
from saln.training import Ledger, TrainSettings, train
from saln.training.changes import objective_of
from saln.training.losses import Objective

__all__ = ["Inputs", "ProbeStudy", "split", "train_all", "train_points"]

MOMENTUM = 0.9
# What a row is of.
KEY = ("stage", "dataset", "noise", "asked_rate", "filter_ratio", "seed", "arm", *Point._fields)
EPOCHS = {"cifar10": 10, "pets": 30}
RATES, DECAYS = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03), (0.0, 0.01, 0.1, 0.3)
NOISES = (("symmetric", 0.4), ("pair-flips", 0.4), ("clean", 0.0), ("symmetric", 0.2))
SOFTER = "+targets(beliefs=0.3,features=0.3)"
CURRICULUM = "balanced-curriculum"
# At every filter ratio; the others at 0.8 alone.
MAIN = (
    *("standard", f"standard{SOFTER}", "uniform", f"uniform{SOFTER}", f"{CURRICULUM}{SOFTER}"),
    *(CURRICULUM, "coherence(judge=neighbors)"),
)
ARMS = (
    *MAIN,
    *("uniform+targets", f"{CURRICULUM}+targets", "coherence", ORACLE),
    *("standard+gce", "uniform+gce", "uniform+smoothing", "uniform+relabel", "standard+targets"),
)
# These take long: they come last, and but for the first with 40% of the labels random alone.
COSTLY = ("saln", "jest", "small-loss", "cleanlab-pruned")


class Part(NamedTuple):
    """Standardized features with a column of ones, float32 (n, d + 1), and true labels, (n,)."""

    rows: Tensor
    labels: Tensor

    def accuracy(self, weights: Tensor) -> float:
        """Of a layer, (C, d + 1)."""
        return float(((self.rows @ weights.T).argmax(dim=1) == self.labels).float().mean())


class Trained(NamedTuple):
    """A layer, (C, d + 1); int64 (steps, k): what it saw; CPU seconds of choosing and training."""

    layer: Tensor
    kept: NDArray[np.int64]
    choosing: float
    training: float


class _Source(NamedTuple):
    """What wrong labels are made from."""

    train: NDArray[np.float32]
    labels: NDArray[np.int64]
    n_classes: int


@dataclass(frozen=True)
class Inputs:
    """A data set: features as they are, float32 (n, d), and what the layers see of them."""

    features: NDArray[np.float32]
    neighbors: NeighborTable
    train: Part
    validation: Part
    test: Part
    n_classes: int

    @property
    def labels(self) -> NDArray[np.int64]:
        """The true labels of the training examples."""
        found: NDArray[np.int64] = self.train.labels.numpy()
        return found


def split(
    train: NDArray[np.float32],
    labels: NDArray[np.int64],
    test: NDArray[np.float32],
    test_labels: NDArray[np.int64],
) -> Inputs:
    """Keeps a third of the test examples, class by class, for the choice of points."""
    mean, spread = train.mean(axis=0), train.std(axis=0) + 1e-6

    def part(rows: NDArray[np.float32], of: NDArray[np.int64]) -> Part:
        seen = np.concatenate([(rows - mean) / spread, np.ones((len(rows), 1))], axis=1)
        return Part(torch.from_numpy(seen.astype(np.float32)), torch.from_numpy(of))

    random = np.random.Generator(np.random.PCG64(0))
    chosen = stratified_part(test_labels, len(test) // 3, random)
    others = np.setdiff1d(np.arange(len(test)), chosen)
    return Inputs(
        train, nearest_neighbors(train), part(train, labels),
        part(test[chosen], test_labels[chosen]), part(test[others], test_labels[others]),
        int(labels.max()) + 1,
    )  # fmt: skip


def load(dataset: str, data_root: Path, cache: Path) -> Inputs:
    """A data set's features, computed where they are not in the cache."""
    data = load_probe_data(data_root, dataset, cache)
    train, labels = data.train, data.labels
    if dataset == "cifar10":
        images = load_images(data_root, dataset)[0].train
        network = build_backbone("efficientnet-lite0", image_size=96)
        store = extract_features(images, network, name="cifar10-all", cache_dir=cache)
        random = np.random.Generator(np.random.PCG64(0))
        rows = stratified_part(images.labels, 20_480, random)
        train, labels = np.asarray(store.features)[rows].astype(np.float32), images.labels[rows]
    return split(train, labels, data.test, data.test_labels)


def train_points(
    inputs: Part,
    labels: Tensor,
    plan: NDArray[np.int64],
    objective: Objective,
    points: Sequence[Point],
    classes: int,
) -> Tensor:
    """Trains a layer with each point on the same batches: (points, C, d + 1).

    SGD as torch's, from zeros, with a cosine decay as the library's.

    Args:
        inputs: The training examples.
        labels: int64, (n,): as given.
        plan: int64, (steps, k): which examples each step trains on.
        objective: The loss.
        points: Learning rates and weight decays.
        classes: C.
    """
    count, (_, width) = len(points), inputs.rows.shape
    rates, decays = (torch.tensor(part)[:, None, None] for part in zip(*points, strict=True))
    weights = torch.zeros(count, classes, width)
    speeds = torch.zeros_like(weights)
    for step, rows in enumerate(torch.from_numpy(plan)):
        batch, k = inputs.rows[rows], len(rows)
        flat = batch @ weights.reshape(-1, width).T  # (k, points * C)
        outputs = flat.reshape(k, count, classes).transpose(0, 1).reshape(-1, classes)
        outputs.requires_grad_()
        losses = objective(outputs, labels[rows].repeat(count), rows.repeat(count))
        (slope,) = torch.autograd.grad(losses.sum() / k, outputs)
        flat = slope.reshape(count, k, classes).transpose(0, 1).reshape(k, -1)
        gradient = (flat.T @ batch).reshape_as(weights).addcmul_(weights, decays)
        speeds.mul_(MOMENTUM).add_(gradient)
        factor = 0.5 * (1 + math.cos(math.pi * step / len(plan)))
        weights.addcmul_(speeds, rates, value=-factor)
    return weights


class CandidateStream:
    """The candidates of each step, from memory; the same as all other arms choose among."""

    def __init__(self, inputs: Part, labels: Tensor, seed: int, filter_ratio: float) -> None:
        self.rows, self.labels = inputs.rows, labels
        self.batches = CandidateBatches(len(labels), KEPT, FilterSchedule(filter_ratio), seed)

    def set_epoch(self, epoch: int) -> None:
        """Makes the next iteration the given epoch's."""
        self.batches.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        for rows in map(torch.tensor, self.batches):
            yield Batch(self.rows[rows], self.labels[rows], rows)


class ProbeStudy(Study):
    """A study of last layers.

    Args:
        inputs: By data set.
        epochs: Passes over the candidates, by data set.
        **about: Of every study.
    """

    def __init__(self, inputs: dict[str, Inputs], epochs: dict[str, int], **about: Any) -> None:
        super().__init__(**about)
        self.inputs, self.epochs = inputs, epochs
        # Labels are judged once for all arms, points and filter ratios.
        self._known = lru_cache(maxsize=None)(self._judged)
        self._plan = lru_cache(maxsize=64)(self._chosen)

    def _judged(self, dataset: str, noise: Noise) -> tuple[Known, float]:
        of = self.inputs[dataset]
        labels = noisy_labels(_Source(of.features, of.labels, of.n_classes), *noise)
        known = Known(of.features, of.labels, labels, of.neighbors)
        started = time.process_time()
        _ = known.teacher
        return known, time.process_time() - started

    def known(self, job: Job) -> tuple[Known, float]:
        """What can be known of a run's labels, and the CPU seconds that the teacher took."""
        # Clean labels are the same with every seed.
        noise = job.noise if job.cell.rate else job.noise._replace(seed=0)
        return self._known(job.cell.dataset, noise)

    def _chosen(self, dataset: str, noise: Noise, selector: str, filter_ratio: float) -> Plan:
        job = Job("", "", Cell(dataset, noise.kind, noise.rate), noise.seed, Point(0, 0))
        known, epochs = self.known(job)[0], self.epochs[dataset]
        return make_plan(selector, noise.seed, epochs, known, filter_ratio)

    def objective(self, arm: StudyArm, known: Known) -> Objective:
        """An arm's loss, with its targets looked up."""
        objective = objective_of(arm.arm.changes, known.teacher)
        if objective.targets is None:
            return objective
        labels = torch.from_numpy(known.labels)
        everywhere = objective.targets(labels, torch.arange(len(labels)))
        return dataclasses.replace(objective, targets=lambda _, rows: everywhere[rows])

    def rows_of(self, jobs: Sequence[Job]) -> Iterator[Row]:
        """Trains runs that differ in their points alone."""
        job, inputs = jobs[0], self.inputs[jobs[0].cell.dataset]
        known, teacher_seconds = self.known(job)
        wrong = known.labels != known.true
        if self.arms[job.arm].needs_learner:
            trained = [self._online(each, known) for each in jobs]
        else:
            trained = self._at_once(jobs, known)
        for each, (layer, kept, choosing, training) in zip(jobs, trained, strict=True):
            about = self.about(each)
            found = {"validation_accuracy": round(inputs.validation.accuracy(layer), 5)}
            if job.stage == TUNING:  # there are many: what is said of the tested runs holds of them
                yield {name: about[name] for name in KEY} | found
                continue
            yield {
                **about,
                "train_images": len(wrong),
                "noise_rate": float(wrong.mean()),
                "epochs": self.epochs[job.cell.dataset],
                "steps": len(kept),
                **found,
                "test_accuracy": round(inputs.test.accuracy(layer), 5),
                "wrong_label_share_kept": round(float(wrong[kept].mean()), 5),
                "choosing_ms_per_step": round(1000 * choosing / len(kept), 3),
                "training_ms_per_step": round(1000 * training / len(kept), 3),
                "teacher_seconds": round(teacher_seconds, 2),
            }

    def _at_once(self, jobs: Sequence[Job], known: Known) -> list[Trained]:
        """What chooses before loading has one plan for all points."""
        job, inputs = jobs[0], self.inputs[jobs[0].cell.dataset]
        arm = self.arms[job.arm]
        plan = self._plan(job.cell.dataset, job.noise, arm.selector, job.cell.filter_ratio)
        objective, labels = self.objective(arm, known), torch.from_numpy(known.labels)
        started = time.process_time()
        points = [each.point for each in jobs]
        layers = train_points(inputs.train, labels, plan.rows, objective, points, inputs.n_classes)
        seconds = (time.process_time() - started) / len(jobs)
        return [Trained(layer, plan.rows, plan.seconds, seconds) for layer in layers]

    def _online(self, job: Job, known: Known) -> Trained:
        """What asks the learner chooses otherwise with every point."""
        inputs, arm = self.inputs[job.cell.dataset], self.arms[job.arm]
        epochs = self.epochs[job.cell.dataset]
        width = inputs.train.rows.shape[1]
        learner = nn.utils.skip_init(nn.Linear, width, inputs.n_classes, bias=False)
        nn.init.zeros_(learner.weight)
        ledger = Ledger(torch.device("cpu"), clock=time.process_time)
        selected = LearnerSelected(
            CandidateStream(
                inputs.train, torch.from_numpy(known.labels), job.seed, job.cell.filter_ratio
            ),
            selector=arm.arm.selector(epochs=epochs),
            batch_size=KEPT,
            learner=learner,
            seed=job.seed,
            inputs="images",
            labels="labels",
            indices="indices",
            reference_outputs=known.teacher.leave_one_out.log()
            if arm.arm.needs_reference
            else None,
            phase=ledger.phase,
        )
        settings = TrainSettings(
            epochs, momentum=MOMENTUM, schedule="cosine", seed=job.seed,
            objective=self.objective(arm, known), evaluate_every=epochs, **job.point._asdict(),
        )  # fmt: skip
        kept = [
            result.indices.reshape(-1, KEPT)
            for result in train(learner, ScoredBatches(selected), settings, ledger=ledger)
        ]
        choosing = ledger.seconds["score"] + ledger.seconds["select"]
        return Trained(
            learner.weight.detach(), torch.cat(kept).numpy(), choosing, ledger.seconds["train"]
        )


def train_all(study: ProbeStudy, path: Path, until: float = math.inf) -> None:
    """Trains what has no row yet; rows are written as they are made."""
    started = time.perf_counter()
    while (jobs := study.jobs()) and time.perf_counter() < until:
        # What takes long comes last, so that all else is there should the time be over.
        first = min(jobs, key=lambda job: COSTLY.index(job.arm) if job.arm in COSTLY else -1)
        together = [job for job in jobs if job._replace(point=first.point) == first]
        rows = list(study.rows_of(together))
        for row in rows:
            study.add(row)
            store(path, row)
        best = max(row["validation_accuracy"] for row in rows)
        where = f"{first.stage} {first.arm} {first.cell.dataset} {first.noise.name}"
        took = f"{time.perf_counter() - started:.0f} s"
        print(
            f"{took}, {len(jobs)} left: {where} f={first.cell.filter_ratio:g}: {best:.4f}",
            flush=True,
        )


def cells(datasets: Sequence[str]) -> dict[Cell, tuple[str, ...]]:
    """The arms of each cell; the most looked at first."""
    found: dict[Cell, tuple[str, ...]] = {}
    for (noise, rate), dataset in itertools.product(NOISES, datasets):
        many = {("symmetric", 0.4): 4, ("symmetric", 0.2): 0}.get((noise, rate), 1)
        found[Cell(dataset, noise, rate, 0.8)] = ARMS + COSTLY[:many]
    for (noise, rate), dataset, ratio in itertools.product(NOISES[:3], datasets, (0.5, 0.9)):
        found[Cell(dataset, noise, rate, ratio)] = MAIN
    return found


def main() -> None:
    """Trains, and prints the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=Path, default=Path("tuned-probe.jsonl"))
    parser.add_argument("--table", action="store_true", help="train nothing")
    parser.add_argument("--datasets", default="cifar10,pets")
    parser.add_argument("--tuning-seeds", type=as_seeds, default=[100])
    parser.add_argument("--seeds", type=as_seeds, default=[0, 1, 2, 3, 4])
    parser.add_argument("--minutes", type=float, default=math.inf)
    parser.add_argument("--data-root", type=Path, default=Path("../data"))
    parser.add_argument("--cache", type=Path, default=default_cache())
    args = parser.parse_args()
    if not args.table:
        until = time.perf_counter() + 60 * args.minutes
        datasets = args.datasets.split(",")
        study = ProbeStudy(
            {dataset: load(dataset, args.data_root, args.cache) for dataset in datasets},
            EPOCHS,
            cells=cells(datasets),
            grid=[Point(*pair) for pair in itertools.product(RATES, DECAYS)],
            tuning_seeds=args.tuning_seeds,
            seeds=args.seeds,
            rows=stored(args.rows),
        )
        store(args.rows, {"environment": environment(torch.device("cpu"))})
        train_all(study, args.rows, until)
    print(every_arm(args.rows), rule(args.rows), sep="\n\n")


if __name__ == "__main__":
    main()
