"""The settings of the tuned studies: which images, which network, and how a folder is prepared."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from probe_data import IMAGE_SIZES, load_images, load_probe_data
from scratch_plans import Labels, write_arrays, write_images
from study_networks import LITE0, write_pretrained

from saln.data import DataSet, Examples
from saln.data.datasets import stratified_part
from saln.features import build_backbone, extract_features

__all__ = ["SETTINGS", "Setting", "prepare", "prepare_decoded", "split_cifar10"]

TEST_IMAGES = 5_000
VALIDATION_IMAGES = 2_500
PETS_PIXELS = 96
RATES, BEYOND = (0.05, 0.1, 0.2, 0.4), (0.02, 0.8)

Parts = dict[str, tuple[list[bytes], Labels]]


class Setting(NamedTuple):
    """What is trained on which images.

    Attributes:
        data: ``cifar10``, ``cifar10-all`` or ``pets``.
        network: ``small-resnet``, from scratch, or ``efficientnet-lite0``, from ImageNet.
        pixels: Height and width that the network sees.
        epochs: Passes over the candidates.
        rates: The grid of learning rates.
        beyond: Tried too by an arm whose best rate of these is the lowest, or the highest.
        normalization: Mean and deviation of values 0 to 255; None: those of the training images.
    """

    data: str
    network: str
    pixels: int
    epochs: int
    rates: tuple[float, ...]
    beyond: tuple[float, ...] = ()
    normalization: tuple[float, float] | None = None


SETTINGS = {
    "cifar10": Setting("cifar10", "small-resnet", 32, 30, (0.02, *RATES)),
    "cifar10-all": Setting("cifar10-all", "small-resnet", 32, 10, RATES, BEYOND),
    "pets-64": Setting("pets", "small-resnet", 64, 100, RATES, BEYOND),
    "pets-fine-tune": Setting(
        "pets", LITE0, 96, 20, (0.003, 0.01, 0.03, 0.1), (0.001, 0.3), (127.0, 128.0)
    ),
}


def prepare(folder: Path, name: str, data_root: Path, cache: Path) -> None:
    """Writes images, features and first weights of a setting."""
    setting = SETTINGS[name]
    folder.mkdir(parents=True, exist_ok=True)
    make = {"cifar10": _cifar10, "cifar10-all": _cifar10_all, "pets": _pets}[setting.data]
    parts, features = make(data_root, cache)
    write_images(folder, parts)
    write_arrays(folder / "features.npz", {"features": features.astype(np.float16)})
    if setting.network == LITE0:
        write_pretrained(folder / "start.npz")
    (folder / "setting.json").write_text(json.dumps({"setting": name}), encoding="utf-8")


def prepare_decoded(folder: Path, name: str, decoded: Path, rows: dict[str, Labels]) -> None:
    """Writes a folder of some images of CIFAR-10 that are decoded already, without features.

    Args:
        folder: The one to write.
        name: Of the setting.
        decoded: ``train_images``, ``train_labels``, ``test_images`` and ``test_labels``.
        rows: Which of them each part has; ``train`` is of the first two.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with np.load(decoded) as held:
        of = {"train": "train", "validation": "test", "test": "test"}
        arrays = {
            f"{part}-{kind}": held[f"{of[part]}_{kind}"][rows[part]]
            for part in of
            for kind in ("images", "labels")
        }
    np.savez(folder / "images.npz", **arrays)
    (folder / "setting.json").write_text(json.dumps({"setting": name}), encoding="utf-8")


def split_cifar10(labels: Labels) -> tuple[Labels, Labels]:
    """Test rows for tests and for the choice of learning rates, (5,000,) and (2,500,)."""
    random = np.random.Generator(np.random.PCG64(0))
    tested = stratified_part(labels, TEST_IMAGES, random)
    others = np.setdiff1d(np.arange(len(labels)), tested)
    return tested, others[stratified_part(labels[others], VALIDATION_IMAGES, random)]


def _cifar10(data_root: Path, cache: Path) -> tuple[Parts, NDArray[Any]]:
    """The part that the other benchmarks train and test on, and other test images besides."""
    data, train = load_images(data_root, "cifar10")
    tested, validated = split_cifar10(data.test.labels)
    read = _parquet(data_root)
    parts = {
        "train": read(train, "train"),
        "validation": read(data.test.part(validated), "test"),
        "test": read(data.test.part(tested), "test"),
    }
    return parts, load_probe_data(data_root, "cifar10", cache).train


def _cifar10_all(data_root: Path, cache: Path) -> tuple[Parts, NDArray[Any]]:
    """All training images; of the test images all are tested on but those for validation."""
    data, _ = load_images(data_root, "cifar10")
    validated = split_cifar10(data.test.labels)[1]
    network = build_backbone("efficientnet-lite0", image_size=IMAGE_SIZES["cifar10"])
    examples = {"cifar10-all": data.train, "cifar10-validation": data.validation}
    stores = [
        extract_features(part, network, name=name, cache_dir=cache)
        for name, part in examples.items()
    ]
    order = np.argsort(np.concatenate([part.rows for part in examples.values()]))
    features = np.concatenate([np.asarray(store.features) for store in stores])[order]
    read = _parquet(data_root)
    both = [read(part, "train") for part in examples.values()]
    codes = [code for part, _ in both for code in part]
    labels = np.concatenate([labels for _, labels in both])[order]
    rest = np.setdiff1d(np.arange(len(data.test)), validated)
    parts = {
        "train": ([codes[place] for place in order], labels),
        "validation": read(data.test.part(validated), "test"),
        "test": read(data.test.part(rest), "test"),
    }
    return parts, features


def _parquet(data_root: Path) -> Callable[[Examples, str], tuple[list[bytes], Labels]]:
    import pyarrow.parquet as pq

    def read(examples: Examples, split: str) -> tuple[list[bytes], Labels]:
        """The images as they are coded."""
        path = next((data_root / "cifar10" / "data").glob(f"{split}-*.parquet"))
        codes = pq.read_table(path).column(0).combine_chunks().field("bytes")
        rows = [codes[int(row)].as_py() for row in examples.rows]
        first = np.asarray(Image.open(io.BytesIO(rows[0])))
        if not np.array_equal(first, np.asarray(examples[0][0])):
            raise ValueError(f"{path} is in another order than its examples")
        return rows, examples.labels

    return read


def _pets(data_root: Path, cache: Path) -> tuple[Parts, NDArray[Any]]:
    """Photos cut to squares and coded anew; a third of the test images, by class, validates."""
    data, train = load_images(data_root, "pets")
    parts = {name: _squares(part) for name, part in _pets_parts(data, train).items()}
    return parts, load_probe_data(data_root, "pets", cache).train


def _pets_parts(data: DataSet, train: Examples) -> dict[str, Examples]:
    random = np.random.Generator(np.random.PCG64(0))
    validated = stratified_part(data.test.labels, len(data.test) // 3, random)
    others = np.setdiff1d(np.arange(len(data.test)), validated)
    return {"train": train, "validation": data.test.part(validated), "test": data.test.part(others)}


def _squares(examples: Examples) -> tuple[list[bytes], Labels]:
    codes = []
    for place in range(len(examples)):
        stream = io.BytesIO()
        size = (PETS_PIXELS, PETS_PIXELS)
        ImageOps.fit(examples[place][0], size, Image.Resampling.BICUBIC).save(
            stream, "JPEG", quality=90
        )
        codes.append(stream.getvalue())
    return codes, examples.labels
