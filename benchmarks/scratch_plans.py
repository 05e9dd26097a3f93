"""Everything that a study from scratch needs but a GPU: images, features, what to train on.

``python benchmarks/tuned_scratch.py FOLDER --prepare`` fills a folder with the first two, so that
it can be taken to another machine; the rest is made before the training, by several processes:

    images.npz                the images as they are coded, and their true labels
    features.npz              EfficientNet-Lite0's, of the training images
    beliefs-NOISE.npz         for each kind of noise and seed: labels, what features say of them
    plans-EPOCHS-NOISE.npz    for each selector: which examples each step trains on

The plans are what :class:`saln.SelectedBatches` names, epoch by epoch: these selectors choose
before loading and ask the network nothing, so when they are asked changes nothing.
"""

from __future__ import annotations

import io
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from label_finders import Features
from numpy.typing import NDArray
from PIL import Image
from probe_data import load_images, load_probe_data, noisy_labels

from saln.data.datasets import stratified_part
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
    "prepare",
    "write_images",
]

KEPT = 64
FILTER_RATIO = 0.8
TEST_IMAGES = 5_000
VALIDATION_IMAGES = 2_500
# Selectors that are none: all examples in random order, and only those whose label is right.
ALL, ORACLE = "all", "oracle"

Labels = NDArray[np.int64]


class Noise(NamedTuple):
    """A kind of wrong labels, the share that is asked for, and which of them."""

    kind: str
    rate: float
    seed: int

    @property
    def name(self) -> str:
        """For files."""
        return f"{self.kind}-{self.rate:g}-{self.seed}"


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

    def images(self) -> dict[str, Part]:
        """``train``, ``validation`` (for choosing learning rates) and ``test``; all disjoint."""
        with np.load(self.folder / "images.npz") as held:
            return {name: _decoded(held, name) for name in ("train", "validation", "test")}

    def beliefs(self, noise: Noise) -> Beliefs:
        """Of one kind of noise."""
        with np.load(self.folder / f"beliefs-{noise.name}.npz") as held:
            own, others = (held[name].astype(np.float32) for name in ("posterior", "others"))
            return Beliefs(held["labels"].astype(np.int64), own, others, float(held["seconds"]))

    def plan(self, noise: Noise, selector: str, epochs: int) -> Plan:
        """Of one selector, which may choose otherwise in a training of other epochs."""
        with np.load(self.folder / f"plans-{epochs}-{noise.name}.npz") as held:
            seconds = float(held[f"{selector} seconds"])
            return Plan(held[selector].astype(np.int64), seconds)


def _decoded(held: Any, name: str) -> Part:
    ends = np.cumsum(held[f"{name}-sizes"])
    codes = np.split(held[f"{name}-bytes"], ends[:-1])
    images = [np.asarray(Image.open(io.BytesIO(code.tobytes())).convert("RGB")) for code in codes]
    return Part(np.stack(images), held[f"{name}-labels"].astype(np.int64))


def write_images(folder: Path, parts: dict[str, tuple[list[bytes], Labels]]) -> None:
    """Writes coded images and labels."""
    arrays: dict[str, NDArray[Any]] = {}
    for name, (codes, labels) in parts.items():
        arrays[f"{name}-bytes"] = np.frombuffer(b"".join(codes), dtype=np.uint8)
        arrays[f"{name}-sizes"] = np.array([len(code) for code in codes], dtype=np.int32)
        arrays[f"{name}-labels"] = labels.astype(np.uint8)
    np.savez(folder / "images.npz", **arrays)  # type: ignore[arg-type]


def prepare(folder: Path, data_root: Path, cache: Path) -> None:
    """Writes images and features for a study of 10,240 images of CIFAR-10."""
    folder.mkdir(parents=True, exist_ok=True)
    write_images(folder, _cifar10(data_root))
    features = load_probe_data(data_root, "cifar10", cache).train
    np.savez_compressed(folder / "features.npz", features=features.astype(np.float16))


def make_plans(folder: Path, noise: Noise, selectors: list[str], epochs: int) -> Noise:
    """Writes beliefs and plans of one kind of noise; what is there is not made again."""
    plans = folder / f"plans-{epochs}-{noise.name}.npz"
    beliefs = folder / f"beliefs-{noise.name}.npz"
    held: dict[str, Any] = {}
    if plans.exists():
        with np.load(plans) as before:
            held = dict(before)
    missing = [name for name in selectors if name not in held]
    if missing or not beliefs.exists():
        torch.set_num_threads(1)  # there is a process a core
        known = _known(folder, noise)
        if not beliefs.exists():
            _write_beliefs(beliefs, known)
        for name in missing:
            plan = make_plan(name, noise.seed, epochs, known)
            held[name] = plan.rows.astype(np.uint16 if len(known.labels) < 2**16 else np.int32)
            held[f"{name} seconds"] = plan.seconds
        np.savez(plans, **held)
    return noise


def _known(folder: Path, noise: Noise) -> Known:
    with np.load(folder / "images.npz") as held:
        true = held["train-labels"].astype(np.int64)
    with np.load(folder / "features.npz") as held:
        features = held["features"].astype(np.float32)
    labels = noisy_labels(Features(features, true, int(true.max()) + 1), *noise)
    return Known(features, true, labels)


def _cifar10(data_root: Path) -> dict[str, tuple[list[bytes], Labels]]:
    """The part that the other benchmarks train and test on, and other test images besides."""
    import pyarrow.parquet as pq

    data, train = load_images(data_root, "cifar10")
    random = np.random.Generator(np.random.PCG64(0))
    tested = stratified_part(data.test.labels, TEST_IMAGES, random)
    others = np.setdiff1d(np.arange(len(data.test)), tested)
    validated = others[stratified_part(data.test.labels[others], VALIDATION_IMAGES, random)]
    parts = {}
    for name, examples, split in (
        ("train", train, "train"),
        ("validation", data.test.part(validated), "test"),
        ("test", data.test.part(tested), "test"),
    ):
        path = next((data_root / "cifar10" / "data").glob(f"{split}-*.parquet"))
        codes = pq.read_table(path).column(0).combine_chunks().field("bytes")
        rows = [codes[int(row)].as_py() for row in examples.rows]
        first = np.asarray(Image.open(io.BytesIO(rows[0])))
        if not np.array_equal(first, np.asarray(examples[0][0])):
            raise ValueError(f"{path} is in another order than its examples")
        parts[name] = (rows, examples.labels)
    return parts


def _write_beliefs(path: Path, known: Known) -> None:
    if path.exists():
        return
    teacher = known.teacher
    np.savez_compressed(
        path, labels=known.labels.astype(np.uint8), seconds=teacher.seconds,
        posterior=teacher.posterior.numpy().astype(np.float16),
        others=teacher.leave_one_out.numpy().astype(np.float16),
    )  # fmt: skip


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
