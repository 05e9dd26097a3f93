"""Real features for the benchmarks: EfficientNet-Lite0, ImageNet weights, 96 px, 1,280 wide."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from saln.data import load_dataset
from saln.features import build_backbone, extract_features

__all__ = ["DATASETS", "FEATURE_WIDTH", "default_cache", "real_features"]

DATASETS = ("cifar10", "pets")
FEATURE_WIDTH = 1280
IMAGE_SIZE = 96


def default_cache() -> Path:
    """The folder for computed features: one of our own in the system's temporary folder."""
    return Path(tempfile.gettempdir()) / "saln-benchmark-features"


def real_features(data_root: Path, dataset: str, n: int, cache: Path) -> NDArray[np.float16]:
    """Features of ``n`` training images of a data set, classes mixed, the same each time.

    Args:
        data_root: Folder that holds ``cifar10/data/*.parquet`` and ``oxford-iiit-pet/``.
        dataset: ``"cifar10"`` or ``"pets"``.
        n: How many images; fewer are returned where the data set has fewer.
        cache: Folder for the computed features, made when missing.

    Returns:
        Float16 features, shape (at most n, 1280), all of them non-negative.

    Raises:
        SalnError: The images are not below ``data_root``, or cannot be read.
    """
    spec = {"cifar10": f"hf:{data_root.resolve() / 'cifar10'}", "pets": "oxford-pet"}[dataset]
    data = load_dataset(spec, data_root, validation_share=0.001)
    # Both data sets are sorted in parts; a fixed shuffle makes every prefix a mixture.
    order = np.random.default_rng(0).permutation(len(data.train))[:n]
    store = extract_features(
        data.train.part(order),
        build_backbone("efficientnet-lite0", image_size=IMAGE_SIZE),
        name=dataset,
        cache_dir=cache,
    )
    # Rows of a store are in the data set's order.
    return np.asarray(store.features)[np.argsort(np.argsort(order))]
