"""Everything that a study of whole networks needs but a GPU: images, features, what to train on.

``python benchmarks/tuned_scratch.py FOLDER --prepare`` fills a folder with the first four, so that
it can be taken to another machine; the rest is made before the training, by several processes:

    setting.json                 which setting it is
    images.npz                   the images as they are coded, or decoded, and their true labels
    features.npz                 EfficientNet-Lite0's, of the training images
    start.npz                    a pretrained network's weights, where one is fine-tuned
    beliefs-NOISE.npz            for each kind of noise and seed: labels, what features say of them
    plans-EPOCHS-RATIO-NOISE.npz    for each selector: which examples each step trains on

The plans are what :class:`saln.SelectedBatches` names, epoch by epoch: these selectors choose
before loading and ask the network nothing, so when they are asked changes nothing.
"""

from __future__ import annotations

import io
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from label_finders import Features
from numpy.typing import NDArray
from PIL import Image
from probe_data import noisy_labels

from saln.experiments.arm import read_arm
from saln.features.neighbors import NeighborTable
from saln.labels import FeatureTeacher, features_as_teacher
from saln.loading import SelectedBatches
from saln.loading.candidate_fields import as_selector
from saln.selection import Selector
from saln.selection.cleanlab_pruned import beliefs_by_cleanlab
from saln.selection.coherence import judge_of
from saln.selection.contract import TAUGHT
from saln.selection.neighbor_beliefs import label_beliefs

__all__ = [
    "KEPT",
    "Beliefs",
    "Noise",
    "Part",
    "Plan",
    "Setup",
    "make_plans",
    "write_arrays",
    "write_images",
]

KEPT = 64
FILTER_RATIO = 0.8
# Selectors that are none: all examples in random order, and only those whose label is right.
ALL, ORACLE = "all", "oracle"

Labels = NDArray[np.int64]
Selectors = Mapping[float, Sequence[str]]


class Noise(NamedTuple):
    """A kind of wrong labels, the share that is asked for, and which of them."""

    kind: str
    rate: float
    seed: int

    @property
    def name(self) -> str:
        """For files."""
        return f"{self.kind}-{self.rate:g}-{self.seed}"

    @property
    def labels(self) -> str:
        """For files of labels alone: clean ones are the same whatever the seed."""
        return self.name if self.rate or self.kind == "weak-model" else self.kind


class Part(NamedTuple):
    """Images, uint8 (n, h, w, 3), with their true labels, int64 (n,)."""

    images: NDArray[np.uint8]
    labels: Labels


class Plan(NamedTuple):
    """int64 (steps, k): what each step trains on; and the CPU seconds that choosing it took."""

    rows: NDArray[np.int64]
    seconds: float


@dataclass(frozen=True)
class Beliefs:
    """What the features say of noisy labels.

    Attributes:
        labels: int64, (n,): as given.
        posterior: float32, (n, C): class probabilities by the label and all others.
        leave_one_out: float32, (n, C): by the others alone.
        seconds: For both.
    """

    labels: Labels
    posterior: NDArray[np.float32]
    leave_one_out: NDArray[np.float32]
    seconds: float


@dataclass(frozen=True)
class Known:
    """What a choice may look at: features, float32 (n, d); true and given labels, int64 (n,).

    ``neighbors`` are those of the features, where they were sought before.
    """

    features: NDArray[np.float32]
    true: Labels
    labels: Labels
    neighbors: NeighborTable | None = None

    @cached_property
    def teacher(self) -> FeatureTeacher:
        """What the features say of the labels."""
        return features_as_teacher(self.features, self.labels, classes=self.classes)

    @property
    def classes(self) -> int:
        """Their number."""
        return int(self.true.max()) + 1

    @cached_property
    def by_neighbors(self) -> Any:
        """How likely labels are right, by the neighbors."""
        if self.neighbors is None:
            return "neighbors"
        near = (self.neighbors.indices, self.neighbors.similarities)
        return label_beliefs(*near, self.labels, self.classes)

    @cached_property
    def by_cleanlab(self) -> Any:
        """What cleanlab doubts."""
        return beliefs_by_cleanlab(self.features, self.labels, self.classes)

    def confidence(self, selector: Selector) -> Any:
        """What a selector gets as label confidence; None where it needs none."""
        judge = judge_of(selector)
        if judge == "labels":
            return self.teacher.beliefs
        if judge == "cleanlab":
            return self.by_cleanlab
        return self.by_neighbors if judge else None


@dataclass(frozen=True)
class Setup:
    """A prepared folder."""

    folder: Path

    def setting(self) -> str:
        """Its name; a folder without a word of it is of the first setting there was."""
        path = self.folder / "setting.json"
        if not path.exists():
            return "cifar10"
        return str(json.loads(path.read_text(encoding="utf-8"))["setting"])

    def images(self, pixels: int) -> dict[str, Part]:
        """``train``, ``validation`` (for choosing learning rates) and ``test``; all disjoint.

        Stored ones of another height and width are resized.
        """
        with np.load(self.folder / "images.npz") as held:
            parts = ("train", "validation", "test")
            return {name: _decoded(held, name, pixels) for name in parts}

    def true_labels(self) -> Labels:
        """Of the training images."""
        with np.load(self.folder / "images.npz") as held:
            found: Labels = held["train-labels"].astype(np.int64)
        return found

    def beliefs(self, noise: Noise) -> Beliefs:
        """Of one kind of noise."""
        with np.load(self.folder / f"beliefs-{noise.labels}.npz") as held:
            own, others = (held[name].astype(np.float32) for name in ("posterior", "others"))
            return Beliefs(held["labels"].astype(np.int64), own, others, float(held["seconds"]))

    def plan(self, noise: Noise, selector: str, epochs: int, filter_ratio: float) -> Plan:
        """Of one selector, which may choose otherwise in a training of other epochs."""
        with np.load(self.plans(noise, epochs, filter_ratio)) as held:
            seconds = float(held[f"{selector} seconds"])
            return Plan(held[selector].astype(np.int64), seconds)

    def plans(self, noise: Noise, epochs: int, filter_ratio: float) -> Path:
        """The file of one kind of noise and filter ratio."""
        return self.folder / f"plans-{epochs}-{filter_ratio:g}-{noise.name}.npz"


def _decoded(held: Any, name: str, pixels: int) -> Part:
    labels = held[f"{name}-labels"].astype(np.int64)
    if f"{name}-images" in held:
        return Part(held[f"{name}-images"], labels)
    ends = np.cumsum(held[f"{name}-sizes"])
    codes = np.split(held[f"{name}-bytes"], ends[:-1])
    images = (Image.open(io.BytesIO(code.tobytes())).convert("RGB") for code in codes)
    size = (pixels, pixels)
    same = [image if image.size == size else image.resize(size) for image in images]
    return Part(np.stack([np.asarray(image) for image in same]), labels)


def write_images(folder: Path, parts: dict[str, tuple[list[bytes], Labels]]) -> None:
    """Writes coded images and labels."""
    arrays: dict[str, NDArray[Any]] = {}
    for name, (codes, labels) in parts.items():
        arrays[f"{name}-bytes"] = np.frombuffer(b"".join(codes), dtype=np.uint8)
        arrays[f"{name}-sizes"] = np.array([len(code) for code in codes], dtype=np.int32)
        arrays[f"{name}-labels"] = labels.astype(np.uint8)
    np.savez(folder / "images.npz", **arrays)  # type: ignore[arg-type]


def write_arrays(path: Path, arrays: dict[str, Any]) -> None:
    """Writes beside and renames: another process may want to read the same file now."""
    beside = path.with_name(f"{path.stem}.{os.getpid()}.part.npz")
    np.savez_compressed(beside, **arrays)
    beside.replace(path)


def make_plans(folder: Path, noise: Noise, epochs: int, selectors: Selectors) -> Noise:
    """Writes beliefs and plans of one kind of noise; what is there is not made again.

    Args:
        folder: The prepared one.
        noise: Which labels.
        epochs: Passes over the candidates.
        selectors: For each filter ratio, which ones.
    """
    setup = Setup(folder)
    beliefs = folder / f"beliefs-{noise.labels}.npz"
    held: dict[float, dict[str, Any]] = {}
    for ratio in selectors:
        path = setup.plans(noise, epochs, ratio)
        held[ratio] = {}
        if path.exists():
            with np.load(path) as before:
                held[ratio] = dict(before)
    missing = [
        (ratio, name)
        for ratio, names in selectors.items()
        for name in names
        if name not in held[ratio]
    ]
    if missing or not beliefs.exists():
        torch.set_num_threads(1)  # there is a process a core
        known = _known(setup, noise)
        if not beliefs.exists():
            _write_beliefs(beliefs, known)
        for ratio, name in missing:
            plan = make_plan(name, noise.seed, epochs, known, ratio)
            kind = np.uint16 if len(known.labels) < 2**16 else np.int32
            held[ratio] |= {name: plan.rows.astype(kind), f"{name} seconds": plan.seconds}
        for ratio in dict(missing):
            write_arrays(setup.plans(noise, epochs, ratio), held[ratio])
    return noise


def _known(setup: Setup, noise: Noise) -> Known:
    true = setup.true_labels()
    with np.load(setup.folder / "features.npz") as held:
        features = held["features"].astype(np.float32)
    labels = noisy_labels(Features(features, true, int(true.max()) + 1), *noise)
    return Known(features, true, labels)


def _write_beliefs(path: Path, known: Known) -> None:
    teacher = known.teacher
    beliefs = {
        "labels": known.labels.astype(np.uint8),
        "seconds": teacher.seconds,
        "posterior": teacher.posterior.numpy().astype(np.float16),
        "others": teacher.leave_one_out.numpy().astype(np.float16),
    }
    write_arrays(path, beliefs)


def make_plan(
    name: str, seed: int, epochs: int, known: Known, filter_ratio: float = FILTER_RATIO
) -> Plan:
    """Asks :class:`saln.SelectedBatches` for all epochs.

    Args:
        name: A selector as on the command line, ``all`` or ``oracle``.
        seed: Decides the order of the candidates and every choice.
        epochs: Passes over the candidates.
        known: What the choice may look at.
        filter_ratio: Of all but ``all``.
    """
    more: dict[str, Any] = {}
    if name == ALL:
        selector = as_selector("uniform")
    elif name == ORACLE:
        selector = as_selector("coherence")
        more["label_confidence"] = (known.labels == known.true).astype(np.float64)
    else:
        # Some must know how many epochs there are.
        selector = read_arm(name).selector(epochs=epochs)
        more["label_confidence"] = known.confidence(selector)
        if selector.requires & TAUGHT:
            more["teacher"] = known.teacher
    batches = SelectedBatches(
        known.features,
        selector=selector,
        batch_size=KEPT,
        filter_ratio=0.0 if name == ALL else filter_ratio,
        seed=seed,
        labels=known.labels,
        ahead=0,
        **more,
    )
    started = time.process_time()
    rows = []
    for epoch in range(1, epochs + 1):
        batches.set_epoch(epoch)
        rows += [torch.as_tensor(batch) for batch in batches]
    return Plan(torch.stack(rows).numpy(), time.process_time() - started)
