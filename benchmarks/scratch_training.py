"""ResNet-18 from random weights on part of CIFAR-10, with labels that may be wrong.

It puts the library's own parts together as ``saln compare`` does, but looks at the test images
once, after the last epoch: on a CPU a look after every epoch would cost several times the training.

    python benchmarks/scratch_training.py rows.jsonl --train uniform,coherence,neighbors,oracle
                                          --device cuda --processes 6       trains, then the table
    python benchmarks/scratch_training.py rows.jsonl                        the table alone

``coherence`` chooses by the fourth power of what ``saln.judge_labels`` says, ``coherence-1`` by the
first (or another power), ``neighbors`` by the neighbors' votes, and ``oracle`` among right labels
alone, which takes true labels.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from label_finders import FINDERS, Features
from numpy.typing import NDArray
from probe_data import load_images, load_probe_data, noisy_labels

from saln.data import ArrayImages, Examples
from saln.data.datasets import stratified_part
from saln.data.torch_datasets import EvaluationView, TrainingView
from saln.data.transforms import EvaluationTransform, PhotoAugmentation
from saln.experiments import mean_interval, paired_difference
from saln.experiments.environment import environment
from saln.experiments.statistics import Interval
from saln.loading import SelectedBatches
from saln.loading.epoch_batches import LoadedBatches, evaluation_batches
from saln.report.number_text import interval_text
from saln.selection import SELECTORS, Coherence, Uniform
from saln.training import Ledger, TrainSettings, build_learner, evaluate, train

__all__ = ["ScratchData", "load_scratch_data", "scratch_table", "train_from_scratch"]

IMAGE_SIZE = 32
KEPT = 64
FILTER_RATIO = 0.8
LEARNING_RATE = 0.05
TEST_IMAGES = 5_000
# Arms that choose by how likely a label is right, and which finder says so.
FINDER_OF = {"neighbors": ("neighbors", 1), "coherence": ("ours", 4)}
KEY = ("noise", "asked_rate", "seed", "epochs", "selector")

Row = dict[str, Any]


@dataclass(frozen=True)
class ScratchData:
    """Decoded images beside the features that judge their labels.

    Attributes:
        train: 10,240 training images, in memory, with their true labels.
        test: A stratified part of the test images, in memory.
        features: EfficientNet-Lite0's features of ``train``, row by row.
    """

    train: Examples
    test: Examples
    features: Features


def load_scratch_data(data_root: Path, cache: Path) -> ScratchData:
    """Loads CIFAR-10's images and features; from one file in the cache, once it is there.

    Args:
        data_root: Folder that holds ``cifar10/data/*.parquet``.
        cache: Folder for the file and the computed features, made when missing.

    Raises:
        SalnError: The images are not below ``data_root``, or cannot be read.
    """
    path = cache / "cifar10-scratch.npz"
    if not path.exists():
        data, train = load_images(data_root, "cifar10")
        random = np.random.Generator(np.random.PCG64(0))
        test = data.test.part(stratified_part(data.test.labels, TEST_IMAGES, random))
        features = load_probe_data(data_root, "cifar10", cache).train
        np.savez_compressed(
            path, train=_pixels(train), labels=train.labels, test=_pixels(test),
            test_labels=test.labels, features=features.astype(np.float16),
        )  # fmt: skip
    with np.load(path) as held:
        labels = held["labels"]
        features = held["features"].astype(np.float32)
        return ScratchData(
            _examples(held["train"], labels),
            _examples(held["test"], held["test_labels"]),
            Features(features, labels, int(labels.max()) + 1, cache / "cifar10-scratch-near.npz"),
        )


def _pixels(examples: Examples) -> NDArray[np.uint8]:
    """In memory: decoding is paid once, not each epoch."""
    return np.stack([np.asarray(examples[i][0]) for i in range(len(examples))])


def _examples(pixels: NDArray[np.uint8], labels: NDArray[np.int64]) -> Examples:
    rows = np.arange(len(labels), dtype=np.int64)
    return Examples(ArrayImages(pixels), rows, labels, labels)


def _confidence(
    loaded: ScratchData, labels: NDArray[np.int64], name: str
) -> tuple[NDArray[np.float64] | None, float]:
    """What an arm chooses by, and the seconds that it took."""
    if name == "oracle":
        return (labels == loaded.train.true_labels).astype(np.float64), 0.0
    judge, _, power = name.partition("-")
    if judge not in FINDER_OF or not (power or "1").isdigit():
        return None, 0.0
    finder, usual = FINDER_OF[judge]
    findings = FINDERS[finder](loaded.features, labels)
    return findings.quality ** int(power or usual), findings.seconds


def train_from_scratch(
    loaded: ScratchData,
    labels: NDArray[np.int64],
    name: str,
    about: Row,
    epochs: int,
    device: str = "cpu",
) -> Row:
    """Trains one network and gives its row.

    All arms of a seed see the same initial weights, candidates and augmentation.

    Args:
        loaded: Images and features.
        labels: int64, (n,): the labels to train on.
        name: ``standard``, which keeps all; ``neighbors``, ``oracle``; or a selector that
            chooses before loading.
        about: What the row is about; its ``seed`` and ``filter_ratio`` count.
        epochs: Passes over the candidates.
        device: Where to train.

    Raises:
        InputError: A selector that needs the learner.
        TrainingError: A loss that is not finite.
    """
    seed = about["seed"]
    where = torch.device(device)
    confidence, once = _confidence(loaded, labels, name)
    if confidence is not None:
        selector: Any = Coherence(power=1.0)
    else:
        selector = Uniform() if name == "standard" else SELECTORS[name]()
    learner, normalization = build_learner(
        "resnet18", loaded.features.n_classes, image_size=IMAGE_SIZE, pretrained=False, seed=seed
    )
    # The same network; on a CPU the convolutions are a little faster in this order.
    learner.to(where, memory_format=torch.channels_last)  # type: ignore[call-overload]
    examples = Examples(loaded.train.images, loaded.train.rows, labels, loaded.train.true_labels)
    ledger = Ledger(where)
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
    view = TrainingView(examples, PhotoAugmentation(IMAGE_SIZE, normalization), seed)
    settings = TrainSettings(epochs, LEARNING_RATE, schedule="onecycle", seed=seed)
    batches = LoadedBatches(view, sampler)
    wrong = labels != loaded.train.true_labels
    steps = kept = kept_wrong = 0
    started = time.perf_counter()
    for result in train(learner, batches, settings, ledger=ledger):
        steps += result.steps
        kept += len(result.indices)
        kept_wrong += int(wrong[result.indices.numpy()].sum())
    trained = time.perf_counter() - started
    test = EvaluationView(loaded.test, EvaluationTransform(IMAGE_SIZE, normalization))
    measured = evaluate(learner, evaluation_batches(test, where), where)
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
    return interval_text(100 * found.mean, found.ci95 and [100 * end for end in found.ci95])


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


@lru_cache(maxsize=1)
def _loaded(data_root: Path, cache: Path) -> ScratchData:
    return load_scratch_data(data_root, cache)


def _row(args: argparse.Namespace, noise: str, rate: float, seed: int, name: str) -> Row:
    """One run, in a process of its own where there are several."""
    loaded = _loaded(args.data_root, args.cache)
    labels = noisy_labels(loaded.features, noise, rate, seed)
    about: Row = {
        "dataset": "cifar10",
        "noise": noise,
        "noise_rate": float((labels != loaded.train.true_labels).mean()),
        "asked_rate": rate,
        "seed": seed,
        "filter_ratio": FILTER_RATIO,
        "epochs": args.epochs,
    }
    return train_from_scratch(loaded, labels, name, about, args.epochs, args.device)


def _train_all(args: argparse.Namespace) -> None:
    """Trains what has no row yet; rows are written as they are made."""
    if not args.rows.exists():
        session = {"environment": environment(torch.device(args.device))}
        args.rows.write_text(json.dumps(session) + "\n", encoding="utf-8")
    done = {tuple(row[name] for name in KEY) for row in _stored(args.rows)}
    runs = []
    for seed in map(int, args.seeds.split(",")):
        for asked in args.noises.split(","):
            noise, _, rate = asked.partition(":")
            for name in args.train.split(","):
                run = (noise, float(rate or 0), seed, name)
                if (*run[:3], args.epochs, name) not in done:
                    runs.append(run)
    _ = _loaded(args.data_root, args.cache).features.table  # searched once, not by each process
    # A process that forks after CUDA was used cannot use it.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(args.processes, mp_context=context) as pool:
        for row in as_completed([pool.submit(_row, args, *run) for run in runs]):
            with args.rows.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(row.result()) + "\n")


def _stored(path: Path) -> list[Row]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return [row for row in map(json.loads, lines) if "environment" not in row]


def main() -> None:
    """Trains, where that is asked for, and prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("rows", type=Path)
    parser.add_argument("--train", help="the arms, with commas between")
    parser.add_argument("--noises", default="symmetric:0.4")
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--data-root", type=Path, default=Path("../data"))
    parser.add_argument("--cache", type=Path, default=Path("features"))
    args = parser.parse_args()
    if args.train:
        _train_all(args)
    sys.stdout.write(scratch_table(_stored(args.rows)) + "\n")


if __name__ == "__main__":
    main()
