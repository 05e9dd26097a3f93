"""ResNet-18 from random weights on part of CIFAR-10, with labels that may be wrong.

``python benchmarks/criteria.py --scratch`` drives it. It puts the library's own parts
together as ``saln compare`` does, but looks at the test images once, after the last epoch:
on a CPU a look after every epoch would cost several times the training.

    python benchmarks/scratch_training.py results/criteria-scratch.jsonl    a table of the rows
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from label_finders import beliefs_about
from numpy.typing import NDArray
from probe_data import ProbeData, load_images, load_probe_data

from saln.data.datasets import DataSet, Examples, stratified_part
from saln.data.image_sources import ArrayImages
from saln.data.torch_datasets import EvaluationView, TrainingView
from saln.data.transforms import EvaluationTransform
from saln.experiments.statistics import Interval, mean_interval, paired_difference
from saln.loading.epoch_batches import LoadedBatches, evaluation_batches
from saln.loading.selected_batches import SelectedBatches
from saln.selection import SELECTORS, Uniform
from saln.training.cost_ledger import Ledger
from saln.training.learner_networks import build_learner
from saln.training.loop import TrainSettings, evaluate, train

__all__ = ["ScratchData", "load_scratch_data", "scratch_table", "train_from_scratch"]

IMAGE_SIZE = 32
KEPT = 64
LEARNING_RATE = 0.05
TEST_IMAGES = 5_000

Row = dict[str, Any]


@dataclass(frozen=True)
class ScratchData:
    """Decoded images beside the features that judge their labels.

    Attributes:
        data: The data set that the images are from.
        train: 10,240 training images, in memory, with their true labels.
        test: A stratified part of the test images, in memory.
        features: EfficientNet-Lite0's features of ``train``, row by row.
    """

    data: DataSet
    train: Examples
    test: Examples
    features: ProbeData


def load_scratch_data(data_root: Path, cache: Path) -> ScratchData:
    """Loads CIFAR-10's images and features.

    Args:
        data_root: Folder that holds ``cifar10/data/*.parquet``.
        cache: Folder for the computed features, made when missing.

    Raises:
        SalnError: The images are not below ``data_root``, or cannot be read.
    """
    data, train = load_images(data_root, "cifar10")
    random = np.random.Generator(np.random.PCG64(0))
    test = data.test.part(stratified_part(data.test.labels, TEST_IMAGES, random))
    features = load_probe_data(data_root, "cifar10", cache)
    return ScratchData(data, _decoded(train), _decoded(test), features)


def _decoded(examples: Examples) -> Examples:
    """The same examples with their pixels in memory: decoding is paid once, not each epoch."""
    pixels = np.stack([np.asarray(examples[i][0]) for i in range(len(examples))])
    rows = np.arange(len(examples), dtype=np.int64)
    return Examples(ArrayImages(pixels), rows, examples.labels, examples.true_labels)


def train_from_scratch(
    loaded: ScratchData, labels: NDArray[np.int64], name: str, about: Row, epochs: int
) -> Row:
    """Trains one network and gives its row.

    All selectors of a seed see the same initial weights, candidates and augmentation.

    Args:
        loaded: Images and features.
        labels: int64, (n,): the labels to train on.
        name: ``standard``, which keeps all, or a selector that chooses before loading.
        about: What the row is about; its ``seed`` and ``filter_ratio`` count.
        epochs: Passes over the candidates.

    Raises:
        InputError: A selector that needs the learner.
        TrainingError: A loss that is not finite.
    """
    seed = about["seed"]
    device = torch.device("cpu")
    selector = Uniform() if name == "standard" else SELECTORS[name]()
    confidence, once = None, 0.0
    if "label_confidence" in selector.requires:
        beliefs, once = beliefs_about(loaded.features, labels)
        confidence = beliefs.confidence.numpy()
    learner, normalization = build_learner(
        "resnet18",
        len(loaded.data.class_names),
        image_size=IMAGE_SIZE,
        pretrained=False,
        seed=seed,
    )
    # The same network; on a CPU the convolutions are a little faster in this order.
    learner.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    examples = Examples(loaded.train.images, loaded.train.rows, labels, loaded.train.true_labels)
    ledger = Ledger(device)
    sampler = SelectedBatches(
        loaded.features.train,
        selector=selector,
        batch_size=KEPT,
        filter_ratio=0.0 if name == "standard" else about["filter_ratio"],
        seed=seed,
        labels=labels,
        label_confidence=confidence,
        phase=ledger.phase,
    )
    view = TrainingView(examples, loaded.data.augmentation(IMAGE_SIZE, normalization), seed)
    settings = TrainSettings(epochs, LEARNING_RATE, schedule="onecycle", seed=seed)
    batches = LoadedBatches(view, sampler)
    wrong = labels != loaded.train.true_labels
    steps = kept = kept_wrong = 0
    started = time.perf_counter()
    for result in train(learner, batches, settings, device=device, ledger=ledger):
        steps += result.steps
        kept += len(result.indices)
        kept_wrong += int(wrong[result.indices.numpy()].sum())
    trained = time.perf_counter() - started
    test = EvaluationView(loaded.test, EvaluationTransform(IMAGE_SIZE, normalization))
    measured = evaluate(learner, evaluation_batches(test, device), device)
    return {
        **about,
        "selector": name,
        "learner": f"resnet18 from scratch, {IMAGE_SIZE} px, channels_last",
        "steps": steps,
        "test_accuracy": measured.accuracy,
        "test_loss": measured.loss,
        "test_images": len(loaded.test),
        "wrong_label_share_kept": kept_wrong / kept,
        "images_per_second": round(kept / trained, 1),
        "seconds": round(trained + once, 3),
    }


def _points(found: Interval) -> str:
    text = f"{100 * found.mean:.1f}"
    if found.ci95 is not None:
        text += f" ± {100 * (found.ci95[1] - found.mean):.1f}"
    return text


def scratch_table(rows: list[Row]) -> str:
    """Markdown: mean accuracies and paired differences to uniform, each with its 95% interval."""
    groups: dict[tuple[str, float, str], dict[int, Row]] = {}
    for row in rows:
        groups.setdefault((row["noise"], row["asked_rate"], row["selector"]), {})[row["seed"]] = row
    lines = [
        "| labels | selector | seeds | test accuracy (%) | against uniform (points) "
        "| wrong labels kept (%) |",
        "| --- | --- | --- | ---: | ---: | ---: |",
    ]
    for (noise, rate, name), own in groups.items():
        base = groups.get((noise, rate, "uniform"), {})
        both = [seed for seed in own if seed in base]
        against = "–"
        if name != "uniform" and both:
            accuracies = [[of[seed]["test_accuracy"] for seed in both] for of in (own, base)]
            difference = paired_difference(*accuracies)
            seen = "one seed" if difference.ci95 is None else difference.verdict
            against = f"{_points(Interval(difference.difference, difference.ci95))} ({seen})"
        cells = (
            noise if rate == 0 else f"{noise} {rate:g}",
            name,
            ", ".join(map(str, own)),
            _points(mean_interval([row["test_accuracy"] for row in own.values()])),
            against,
            f"{100 * np.mean([row['wrong_label_share_kept'] for row in own.values()]):.1f}",
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    stored = Path(sys.argv[1]).read_text(encoding="utf-8").splitlines()
    found = [row for row in map(json.loads, stored) if "environment" not in row]
    sys.stdout.write(scratch_table(found) + "\n")
