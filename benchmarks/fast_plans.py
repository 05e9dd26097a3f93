"""What the fast runs on CIFAR-10 need but a GPU: images, what features say of labels, plans.

cifar10.npz        train_images, uint8 (n, 32, 32, 3), train_labels; test_images, test_labels
beliefs-NOISE.npz  labels with one kind of noise, and what the features say of them
"""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from evidence_tables.fast import LONGER, PROXY, RANDOM
from evidence_tables.tuned import FINAL, RULE, TUNING
from label_finders import Features
from numpy.typing import NDArray
from PIL import Image
from probe_data import load_images, noisy_labels
from scratch_plans import ALL, Beliefs, Noise, Plan
from torch import Tensor
from tuned_scratch import SOFTER
from tuned_study import Row, StudyArm

from saln.experiments.arm import read_arm
from saln.labels import features_as_teacher
from saln.labels.teacher import HARDEST
from saln.loading import SelectedBatches
from saln.randomness import derive_generator
from saln.selection import Candidates

__all__ = [
    "ARMS",
    "LONGEST",
    "FastJob",
    "FastStudy",
    "Planner",
    "Settings",
    "candidates_of",
    "decode",
    "judge",
    "make_plan",
    "read_beliefs",
]

# What each arm is in the library's words.
ARMS = {
    RANDOM: StudyArm("uniform"),
    PROXY: StudyArm("uniform"),
    "rule": StudyArm(RULE),
    "targets": StudyArm(f"uniform{SOFTER}"),
    "balanced": StudyArm("balanced-curriculum"),
    "all": StudyArm("standard"),
    LONGER: StudyArm("uniform"),
}
FIRST_ARMS = 4  # Of all kinds of labels before the others of any
LONGEST = 2  # Times the steps of the others


class Settings(NamedTuple):
    """What all runs have in common.

    Attributes:
        batch: ``k``, how many each step trains on.
        filter_ratio: The share of the candidates that is dropped.
        passes: Over the candidates.
        width: Of the network; the paper's is 64.
    """

    batch: int = 1024
    filter_ratio: float = 0.5
    passes: int = 20
    width: int = 64


def decode(folder: Path, data: Path) -> None:
    """Writes all images and labels: train_images, uint8 (n, 32, 32, 3), train_labels, test_..."""
    import pyarrow.parquet as pq

    arrays: dict[str, NDArray[Any]] = {}
    for split in ("train", "test"):
        table = pq.read_table(next(data.glob(f"{split}-*.parquet")))
        codes = table.column(0).combine_chunks().field("bytes").to_pylist()
        images = (Image.open(io.BytesIO(code)).convert("RGB") for code in codes)
        arrays[f"{split}_images"] = np.stack([np.asarray(image) for image in images])
        arrays[f"{split}_labels"] = table.column(1).to_numpy().astype(np.int64)
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "cifar10.npz", **arrays)  # type: ignore[arg-type]


def judge(folder: Path, features: Path, data_root: Path, noise: Noise) -> None:
    """Writes what features say of labels, in the order of the images.

    Args:
        folder: Gets ``beliefs-NOISE.npz``.
        features: Of what the library trains on and then of what it validates on.
        data_root: Holds ``cifar10/``.
        noise: Of the labels.
    """
    data, _ = load_images(data_root, "cifar10")
    order = np.concatenate([data.train.rows, data.validation.rows])
    known = np.load(features).astype(np.float32)[np.argsort(order)]
    true = np.concatenate([data.train.labels, data.validation.labels])[np.argsort(order)]
    labels = noisy_labels(Features(known, true, int(true.max()) + 1), *noise)
    teacher = features_as_teacher(known, labels)
    np.savez_compressed(
        folder / f"beliefs-{noise.name}.npz",
        labels=labels.astype(np.uint8), seconds=teacher.seconds,
        posterior=_short(teacher.posterior), others=_short(teacher.leave_one_out),
    )  # fmt: skip


def _short(shares: Tensor) -> NDArray[np.float16]:
    """In half precision without its last three bits: a third fewer bytes to take along."""
    bits = shares.numpy().astype(np.float16).view(np.uint16)
    return ((bits + 4) & 0xFFF8).astype(np.uint16).view(np.float16)


@cache
def read_beliefs(folder: Path, noise: Noise) -> Beliefs:
    """What :func:`judge` wrote."""
    with np.load(folder / f"beliefs-{noise.name}.npz") as held:
        own, others = (held[name].astype(np.float32) for name in ("posterior", "others"))
        return Beliefs(held["labels"].astype(np.int64), own, others, float(held["seconds"]))


def candidates_of(n: int, settings: Settings, seed: int, keeps_all: bool = False) -> Tensor:
    """The candidates of every step of every pass: int64, (passes, steps, candidates)."""
    ratio = 0.0 if keeps_all else settings.filter_ratio
    batches = SelectedBatches(
        n, selector="uniform", batch_size=settings.batch, filter_ratio=ratio, seed=seed
    )
    steps, width = len(batches), batches.n_candidates
    orders = [batches.order(number)[: steps * width] for number in range(1, settings.passes + 1)]
    return torch.stack(orders).reshape(settings.passes, steps, width)


def make_plan(folder: Path, noise: Noise, selector: str, settings: Settings, seed: int) -> Plan:
    """What :class:`saln.SelectedBatches` names, of stored beliefs instead of features.

    Args:
        folder: Holds the beliefs.
        noise: Of the labels.
        selector: As on the command line, of those that need a teacher or nothing; or ``all``.
        settings: Which examples are candidates, how many are kept, and for how many passes.
        seed: Decides order and choice.

    Returns:
        int32, (passes, steps, k), and the CPU seconds of choosing.
    """
    known = read_beliefs(folder, noise)
    places = np.arange(len(known.labels))
    candidates = candidates_of(len(places), settings, seed, selector == ALL)
    if selector == ALL:
        return Plan(candidates.int().numpy(), 0.0)
    believed = known.posterior.argmax(axis=1)
    losses = -np.log(known.leave_one_out[places, believed].astype(np.float64) + 1e-9)
    fields = {
        "believed": torch.from_numpy(believed),
        "difficulty": torch.from_numpy(losses).clamp_max(HARDEST),
        "label_confidence": torch.from_numpy(known.posterior[places, known.labels]).double(),
    }
    chosen = read_arm(selector).selector(epochs=settings.passes)
    fields = {name: values for name, values in fields.items() if name in chosen.requires}
    kept = torch.empty(*candidates.shape[:2], settings.batch, dtype=torch.int32)
    torch.set_num_threads(1)  # there is a process a core
    started = time.process_time()
    for epoch, steps in enumerate(candidates, start=1):
        chosen.begin_epoch(epoch)
        for step, rows in enumerate(steps):
            about: dict[str, Any] = {name: values[rows] for name, values in fields.items()}
            # As there: what a choice draws depends on what it is for alone.
            generator = derive_generator(seed, "select", epoch, step)
            found = chosen(Candidates(indices=rows, **about), settings.batch, generator=generator)
            kept[epoch - 1, step] = rows[found.positions]
    return Plan(kept.numpy(), time.process_time() - started)


class FastJob(NamedTuple):
    """One run."""

    stage: str
    arm: str
    noise: Noise
    seed: int
    rate: float


@dataclass
class FastStudy:
    """Which runs there are to make.

    Attributes:
        settings: Of all runs.
        cells: Kinds of labels, each with its number of runs.
        arms: Some of :data:`ARMS`.
        rates: Multiples of the paper's learning rate, for every arm.
        tuning_seeds: That they are chosen on; of one rate nothing is chosen.
        rows: Of the runs that have ended.
    """

    settings: Settings
    cells: dict[Noise, int]
    arms: list[str]
    rates: list[float]
    tuning_seeds: list[int]
    rows: list[Row]

    def found(self, noise: Noise, arm: str, stage: str) -> list[Row]:
        """The rows of an arm in these settings."""
        wanted = (noise.kind, noise.rate, arm, stage, *self.settings)
        keys = ("noise", "asked_rate", "arm", "stage", *Settings._fields)
        return [row for row in self.rows if tuple(row[key] for key in keys) == wanted]

    def jobs(self) -> Iterator[FastJob]:
        """What can be trained next: the first arms first, of each one seed after the other."""
        for arms in (self.arms[:FIRST_ARMS], self.arms[FIRST_ARMS:]):
            for noise, runs in self.cells.items():
                for job in self._of(noise, runs, arms):
                    rows = self.found(noise, job.arm, job.stage)
                    if (job.seed, job.rate) not in [(r["seed"], r["learning_rate"]) for r in rows]:
                        yield job

    def _of(self, noise: Noise, runs: int, arms: list[str]) -> Iterator[FastJob]:
        # How long it takes is read from the proxy's rows.
        arms = [arm for arm in arms if arm != LONGER or self.found(noise, PROXY, FINAL)]
        if len(self.rates) > 1:
            for seed in self.tuning_seeds:
                for arm in arms:
                    yield from (FastJob(TUNING, arm, noise, seed, rate) for rate in self.rates)
        best = {arm: self.best(noise, arm) for arm in arms}
        for seed in range(runs):
            for arm, rate in best.items():
                if rate is not None:
                    yield FastJob(FINAL, arm, noise, seed, rate)

    def best(self, noise: Noise, arm: str) -> float | None:
        """The rate with the best mean validation accuracy; None while trials miss."""
        if len(self.rates) == 1:
            return self.rates[0]
        tried: dict[float, list[float]] = {rate: [] for rate in self.rates}
        for row in self.found(noise, arm, TUNING):
            tried.setdefault(row["learning_rate"], []).append(row["validation_accuracy"])
        if any(len(tried[rate]) < len(self.tuning_seeds) for rate in self.rates):
            return None
        return max(self.rates, key=lambda rate: float(np.mean(tried[rate])))

    def share_of_longer(self, noise: Noise) -> float:
        """How many times the seconds of a training ``proxy-loss`` takes."""
        rows = self.found(noise, PROXY, FINAL)
        whole = sum(row["seconds"] + row["seconds_before"] for row in rows)
        return min(LONGEST, float(whole / sum(row["seconds"] for row in rows)))


class Planner:
    """Plans by what they are for, made beside the training where there are processes for it."""

    def __init__(self, folder: Path, settings: Settings, pool: ProcessPoolExecutor | None) -> None:
        self.folder, self.settings, self.pool = folder, settings, pool
        self._begun: dict[tuple[Noise, str, int], Future[Plan]] = {}

    def begin(self, study: FastStudy) -> None:
        """Begins all plans of a study that take time."""
        if self.pool is None:
            return
        selectors = dict.fromkeys(ARMS[arm].selector for arm in study.arms if arm != ALL)
        tuning = study.tuning_seeds if len(study.rates) > 1 else []
        for noise, runs in study.cells.items():
            for seed in (*tuning, *range(runs)):
                for selector in selectors:
                    asked = (self.folder, noise, selector, self.settings, seed)
                    self._begun[noise, selector, seed] = self.pool.submit(make_plan, *asked)

    def plan(self, noise: Noise, selector: str, seed: int, passes: int) -> Plan:
        """int32, (passes, steps, k), and seconds."""
        begun = self._begun.get((noise, selector, seed))
        if begun is not None and passes == self.settings.passes:
            return begun.result()
        return make_plan(self.folder, noise, selector, self.settings._replace(passes=passes), seed)
