"""What the benchmarks of criteria train and test on: real features, true labels, wrong labels.

EfficientNet-Lite0 with ImageNet weights, 1,280 wide, computed once. CIFAR-10 at 96 pixels: a
fixed stratified part of 10,240 of its 50,000 training images, and its 10,000 test images.
Pets at 224 pixels: the 3,680 images of trainval but one (a split must leave one for
validation), and the 3,669 of test.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from saln.data import DataSet, Examples, load_dataset
from saln.data.datasets import stratified_part
from saln.data.label_noise import flip_labels
from saln.errors import InputError
from saln.features import FeatureStore, build_backbone, extract_features
from saln.randomness import derive_seed

__all__ = ["NOISES", "ProbeData", "load_images", "load_probe_data", "noisy_labels"]

CIFAR10_TRAIN = 10_240
IMAGE_SIZES = {"cifar10": 96, "pets": 224}
NOISES = ("clean", "symmetric", "pair-flips", "weak-model")


@dataclass(frozen=True)
class ProbeData:
    """Features with true labels.

    Attributes:
        store: The training examples' feature store; its labels are the true ones.
        train: float32, (n, d).
        labels: int64, (n,): true labels of ``train``.
        test: float32, (m, d).
        test_labels: int64, (m,).
        n_classes: The number of classes.
    """

    store: FeatureStore
    train: NDArray[np.float32]
    labels: NDArray[np.int64]
    test: NDArray[np.float32]
    test_labels: NDArray[np.int64]
    n_classes: int


class TrueLabels(Protocol):
    """Features with true labels, as wrong labels are made from."""

    @property
    def train(self) -> NDArray[np.float32]:
        """Features, (n, d)."""

    @property
    def labels(self) -> NDArray[np.int64]:
        """The true labels, (n,)."""

    @property
    def n_classes(self) -> int:
        """The number of classes."""


def load_images(data_root: Path, dataset: str) -> tuple[DataSet, Examples]:
    """A data set and the part of its training images that the benchmarks train on.

    Args:
        data_root: Folder that holds ``cifar10/data/*.parquet`` and ``oxford-iiit-pet/``.
        dataset: ``"cifar10"`` or ``"pets"``.

    Raises:
        SalnError: The images are not below ``data_root``, or cannot be read.
    """
    specs = {"cifar10": f"hf:{data_root.resolve() / 'cifar10'}", "pets": "oxford-pet"}
    share = {"cifar10": 0.001, "pets": 0.0003}[dataset]
    data = load_dataset(specs[dataset], data_root, validation_share=share)
    train = data.train
    if dataset == "cifar10":
        random = np.random.Generator(np.random.PCG64(0))
        train = train.part(stratified_part(train.labels, CIFAR10_TRAIN, random))
    return data, train


def load_probe_data(data_root: Path, dataset: str, cache: Path) -> ProbeData:
    """Features of a data set's training and test images, from the cache where they are there.

    Args:
        data_root: As :func:`load_images`.
        dataset: ``"cifar10"`` or ``"pets"``.
        cache: Folder for the computed features, made when missing.

    Raises:
        SalnError: The images are not below ``data_root``, or cannot be read.
    """
    data, train = load_images(data_root, dataset)
    backbone = build_backbone("efficientnet-lite0", image_size=IMAGE_SIZES[dataset])
    stores = [
        extract_features(part, backbone, name=name, cache_dir=cache)
        for name, part in ((f"{dataset}-train", train), (f"{dataset}-test", data.test))
    ]
    train_features, test_features = (np.asarray(s.features, dtype=np.float32) for s in stores)
    return ProbeData(
        stores[0],
        train_features,
        train.labels,
        test_features,
        data.test.labels,
        len(data.class_names),
    )


def noisy_labels(data: TrueLabels, noise: str, rate: float, seed: int) -> NDArray[np.int64]:
    """The training labels with noise of a kind.

    Args:
        data: Features and true labels.
        noise: ``clean``; ``symmetric``: every other class equally likely; ``pair-flips``:
            the next class always, for ``rate`` of each class's examples in expectation;
            ``weak-model``: the labels that a weak model gives, whose mistakes depend on
            the image (its share of wrong labels is its own).
        rate: The share of labels that change; ignored by ``clean`` and ``weak-model``.
        seed: Which labels change.

    Raises:
        InputError: An unknown kind of noise.
    """
    if noise == "clean":
        return data.labels.copy()
    if noise == "symmetric":
        return flip_labels(data.labels, rate, data.n_classes, seed)
    random = np.random.Generator(np.random.PCG64(derive_seed(seed, noise)))
    if noise == "pair-flips":
        rows = random.permutation(len(data.labels))[: round(rate * len(data.labels))]
        noisy = data.labels.copy()
        noisy[rows] = (noisy[rows] + 1) % data.n_classes
        return noisy
    if noise == "weak-model":
        return weak_labels(data, random)
    raise InputError(f"unknown noise {noise!r}; choose one of {', '.join(NOISES)}")


def weak_labels(data: TrueLabels, random: np.random.Generator) -> NDArray[np.int64]:
    """What a linear model says that saw about 200 true examples and 64 of the features.

    At least five examples a class, by a random 64 of the 1,280 features: its mistakes depend
    on the image, but are no function of all that the selectors see.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    per_class = max(5, 200 // data.n_classes)
    members = [np.flatnonzero(data.labels == c) for c in range(data.n_classes)]
    shown = np.concatenate([random.permutation(rows)[:per_class] for rows in members])
    columns = random.permutation(data.train.shape[1])[:64]
    rows = data.train[:, columns]
    rows = (rows - rows.mean(axis=0)) / (rows.std(axis=0) + 1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = LogisticRegression(max_iter=200).fit(rows[shown], data.labels[shown])
    labels: NDArray[np.int64] = model.predict(rows).astype(np.int64)
    return labels
