"""Data sets by name, split once into train, reference, validation and test.

The data set's own test split is the test split where it has one; elsewhere a share
of the examples becomes it. Validation and the reference part are taken from the
training split. All splits are stratified and depend on ``split_seed`` alone.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from saln._torchvision import torchvision
from saln.data.augmentation import Augmentation, DigitAugmentation, PhotoAugmentation
from saln.data.label_noise import flip_labels
from saln.data.sources import ArrayImages, FileImages, ImageSource, TableImages
from saln.errors import DataError, InputError, MissingExtraError
from saln.randomness import derive_seed

__all__ = ["DATASETS", "DataSet", "Examples", "load_dataset", "stratified_part"]

Labels = npt.NDArray[np.int64]

# What `--dataset` takes -> what it is.
DATASETS = {
    "digits": "1,797 handwritten digits of 8 x 8 pixels, 10 classes; comes with scikit-learn",
    "cifar10": "CIFAR-10, 60,000 images of 32 x 32 pixels, 10 classes (--download to fetch)",
    "oxford-pet": "Oxford-IIIT Pet, 7,349 photos of 37 breeds (--download to fetch)",
    "folder:PATH": "a folder of images with one sub-folder a class",
    "hf:NAME-OR-PATH": "a Hugging Face data set, from the hub or a local folder (extra 'hf')",
}


@dataclass(frozen=True)
class Examples:
    """Some rows of an image source with their labels.

    Attributes:
        images: Where the images are.
        rows: int64, (n,): the examples' rows in ``images``, ascending.
        labels: int64, (n,): the labels to train on, wrong ones included.
        true_labels: int64, (n,): the labels before any were replaced.
    """

    images: ImageSource
    rows: Labels
    labels: Labels
    true_labels: Labels

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        """One example's image as RGB and its label.

        Raises:
            DataError: The image cannot be read; the message names it.
        """
        return self.images.load(int(self.rows[index])), int(self.labels[index])

    def fingerprint(self) -> str:
        """A hash that changes with the images' names and sizes, the rows and the labels."""
        digest = hashlib.blake2b(self.images.fingerprint().encode(), digest_size=16)
        digest.update(np.ascontiguousarray(self.rows).data)
        digest.update(np.ascontiguousarray(self.labels).data)
        return digest.hexdigest()

    def part(self, positions: npt.NDArray[Any]) -> Examples:
        """The examples at the given positions, in ascending order."""
        positions = np.sort(positions)
        return Examples(
            self.images, self.rows[positions], self.labels[positions], self.true_labels[positions]
        )


@dataclass(frozen=True)
class DataSet:
    """A data set that has been split.

    Attributes:
        name: The specification that it was loaded by.
        class_names: One name a class; a label is a position in it.
        train: What the arms train on.
        reference: The held-out part of the training data for reference models; may be empty.
        validation: Held out of the training data; its labels stay true.
        test: Never trained on; its labels stay true.
        fingerprint: Changes when the training images' names, sizes or order change.
        default_image_size: Pixels, where none are asked for.
        augmentation: The class of augmentation that suits the images.
    """

    name: str
    class_names: tuple[str, ...]
    train: Examples
    reference: Examples
    validation: Examples
    test: Examples
    fingerprint: str
    default_image_size: int
    augmentation: Callable[..., Augmentation]

    @property
    def train_and_reference(self) -> Examples:
        """The training examples before the reference part was taken out, by row."""
        both = [self.train, self.reference]
        rows, labels, true_labels = (
            np.concatenate([getattr(part, name) for part in both])
            for name in ("rows", "labels", "true_labels")
        )
        order = np.argsort(rows)
        return Examples(self.train.images, rows[order], labels[order], true_labels[order])

    def with_label_noise(self, share: float, seed: int) -> DataSet:
        """Replaces a share of the labels of ``train`` and ``reference`` by other classes.

        Validation and test keep their true labels: they are what is measured.
        """
        if share == 0:
            return self
        n_classes = len(self.class_names)

        def noisy(name: str, part: Examples) -> Examples:
            labels = flip_labels(part.labels, share, n_classes, derive_seed(seed, name))
            return dataclasses.replace(part, labels=labels)

        return dataclasses.replace(
            self,
            train=noisy("train", self.train),
            reference=noisy("reference", self.reference),
        )


def stratified_part(
    labels: Labels, count: int, random: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Draws ``count`` positions so that each class has its share, to within one example.

    Systematic sampling: the examples stand in a row, class by class, shuffled inside
    each class, and every (n / count)-th is taken from a random start.

    Args:
        labels: int64, (n,).
        count: How many to draw, 0 to n.
        random: The source of randomness.

    Returns:
        int64, (count,), distinct, ascending.
    """
    row = np.lexsort((random.random(len(labels)), labels))
    start = random.random()
    picks = np.floor((np.arange(count) + start) * (len(labels) / max(count, 1))).astype(np.int64)
    # The last pick can round up to n when start is next to 1.
    return np.sort(row[np.minimum(picks, len(labels) - 1)])


@dataclass(frozen=True)
class _Loaded:
    """A data set as found: one or two splits, not yet ours."""

    images: ImageSource
    labels: Labels
    class_names: tuple[str, ...]
    test_images: ImageSource | None = None
    test_labels: Labels | None = None
    image_size: int = 224
    augmentation: Callable[..., Augmentation] = PhotoAugmentation


def _digits() -> _Loaded:
    import sklearn.datasets  # takes a second, for one data set of five

    bunch = sklearn.datasets.load_digits()
    pixels = np.round(bunch.images * (255 / 16)).astype(np.uint8)
    labels = bunch.target.astype(np.int64)
    names = tuple(str(digit) for digit in range(10))
    return _Loaded(
        ArrayImages(pixels), labels, names, image_size=16, augmentation=DigitAugmentation
    )


def _torchvision_split(name: str, factory: Callable[..., Any], root: Path, download: bool) -> Any:
    try:
        return factory(download=download)
    except RuntimeError as error:
        raise InputError(
            f"--data-root {root} does not hold {name} ({str(error).splitlines()[0]}); "
            "add --download to fetch it from its own site, or give the folder that holds it "
            "in torchvision's layout"
        ) from error
    except OSError as error:
        raise DataError(
            f"{name} could not be downloaded to {root} ({error}); check the connection and "
            "the free space, or download it elsewhere and give its folder as --data-root"
        ) from error


def _cifar10(root: Path, download: bool) -> _Loaded:
    train, test = (
        _torchvision_split(
            "cifar10",
            lambda download, train=train: torchvision.datasets.CIFAR10(
                str(root), train=train, download=download
            ),
            root,
            download,
        )
        for train in (True, False)
    )
    return _Loaded(
        ArrayImages(train.data),
        np.asarray(train.targets, dtype=np.int64),
        tuple(train.classes),
        ArrayImages(test.data),
        np.asarray(test.targets, dtype=np.int64),
        image_size=32,
    )


def _oxford_pet(root: Path, download: bool) -> _Loaded:
    train, test = (
        _torchvision_split(
            "oxford-pet",
            lambda download, split=split: torchvision.datasets.OxfordIIITPet(
                str(root), split=split, download=download
            ),
            root,
            download,
        )
        for split in ("trainval", "test")
    )
    folder = root / "oxford-iiit-pet"
    # torchvision keeps paths and labels in private lists; its public way opens every image.
    return _Loaded(
        FileImages(folder, train._images),
        np.asarray(train._labels, dtype=np.int64),
        tuple(train.classes),
        FileImages(folder, test._images),
        np.asarray(test._labels, dtype=np.int64),
    )


def _folder(path: Path) -> _Loaded:
    if not path.is_dir():
        raise InputError(f"folder:{path} is not a folder; give one that has a sub-folder a class")
    try:
        found = torchvision.datasets.ImageFolder(str(path))
    except FileNotFoundError as error:
        raise InputError(
            f"folder:{path} holds no images in sub-folders ({error}); "
            "put each class's images into a sub-folder of its own"
        ) from error
    if len(found.classes) < 2:
        raise InputError(
            f"folder:{path} has one class ({found.classes[0]!r}); "
            "there is nothing to tell apart: add a second sub-folder"
        )
    paths = [Path(name) for name, _ in found.samples]
    labels = np.asarray(found.targets, dtype=np.int64)
    return _Loaded(FileImages(path, paths), labels, tuple(found.classes))


def _hugging_face(name: str, download: bool) -> _Loaded:
    is_path = name.startswith((".", "/", "~"))
    if is_path and not Path(name).expanduser().exists():
        raise InputError(f"hf:{name} does not exist; give a folder that does, or a hub name")
    if not download:  # the package asks the hub otherwise; it reads this when it is imported
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        import datasets
    except ImportError as error:
        raise MissingExtraError(
            f"hf:{name} needs the package 'datasets', which is not installed; "
            "run: pip install 'saln[hf]'"
        ) from error
    datasets.disable_progress_bars()
    config = datasets.DownloadConfig(local_files_only=not download and not is_path)
    try:
        splits = datasets.load_dataset(
            str(Path(name).expanduser()) if is_path else name, download_config=config
        )
    except Exception as error:  # the library raises many kinds; all mean the same here
        raise DataError(
            f"hf:{name} could not be loaded ({type(error).__name__}: "
            f"{str(error).splitlines()[0] if str(error) else 'no message'}); give a folder with "
            "Parquet files or images, or a hub name with --download"
        ) from error
    if "train" not in splits:
        raise InputError(f"hf:{name} has no split 'train', only {', '.join(splits)}")
    train, test = splits["train"], splits.get("test", splits.get("validation"))
    features = train.features
    images = [c for c, kind in features.items() if isinstance(kind, datasets.Image)]
    if len(images) != 1:
        raise InputError(
            f"hf:{name} has {len(images)} image columns, expected 1 among {', '.join(features)}"
        )
    labels = [c for c, kind in features.items() if isinstance(kind, datasets.ClassLabel)]
    labels = labels or [c for c in ("label", "labels", "class", "fine_label") if c in features]
    if not labels:
        raise InputError(
            f"hf:{name} has no label column among {', '.join(features)}; "
            "rename the one with the classes to 'label'"
        )
    image, label = images[0], labels[0]
    raw = train.data.column(label).to_pylist()
    kind = features[label]
    values = range(kind.num_classes) if hasattr(kind, "names") else sorted(set(raw))
    number = {value: i for i, value in enumerate(values)}
    names = tuple(kind.names) if hasattr(kind, "names") else tuple(map(str, values))

    def numbered(split: Any) -> Labels:
        column = split.data.column(label).to_pylist()
        strange = next((value for value in column if value not in number), None)
        if strange is not None or None in number:
            raise DataError(
                f"hf:{name} has the label {strange!r}, which is none of the {len(number)} "
                "classes of its training split; remove those rows"
            )
        return np.asarray([number[value] for value in column], dtype=np.int64)

    has_test = test is not None
    return _Loaded(
        TableImages(train, image, f"hf:{name} (train)"),
        numbered(train),
        names,
        TableImages(test, image, f"hf:{name} (test)") if has_test else None,
        numbered(test) if has_test else None,
        image_size=32 if "cifar" in name.lower() else 224,
    )


def _find(spec: str, data_root: Path, download: bool) -> _Loaded:
    kind, _, rest = spec.partition(":")
    if spec == "digits":
        return _digits()
    if spec == "cifar10":
        return _cifar10(data_root, download)
    if spec == "oxford-pet":
        return _oxford_pet(data_root, download)
    if kind == "folder" and rest:
        return _folder(Path(rest).expanduser())
    if kind == "hf" and rest:
        return _hugging_face(rest, download)
    raise InputError(f"unknown data set {spec!r}; choose one of {', '.join(DATASETS)}")


def load_dataset(
    spec: str,
    data_root: Path = Path("data"),
    *,
    limit: int | None = None,
    validation_share: float = 0.1,
    test_share: float = 0.2,
    reference_share: float = 0.0,
    split_seed: int = 0,
    download: bool = False,
) -> DataSet:
    """Finds a data set and splits it.

    Args:
        spec: A key of :data:`DATASETS`, with a path or name where it says so.
        data_root: Where torchvision's data sets are, or go when downloaded.
        limit: At most this many training images (validation and reference part
            included), and at most this many test images; stratified.
        validation_share: The share of the training split that becomes validation.
        test_share: The share of all examples that becomes the test split, where the
            data set has none of its own.
        reference_share: The share of what is then left of the training split that is
            held out for reference models.
        split_seed: Decides which example goes where.
        download: Whether a missing data set may be fetched.

    Raises:
        InputError: Unknown name, no data at ``data_root``, an empty folder, one class,
            or too few examples to split.
        DataError: The data is there but broken, or a download failed.
        MissingExtraError: ``hf:`` without the package ``datasets``.
    """
    found = _find(spec, data_root, download)
    random = np.random.Generator(np.random.PCG64(derive_seed(split_seed, "split")))

    def take(pool: Examples, count: int) -> tuple[Examples, Examples]:
        chosen = stratified_part(pool.labels, count, random)
        rest = np.setdiff1d(np.arange(len(pool)), chosen, assume_unique=True)
        return pool.part(rest), pool.part(chosen)

    def everything(images: ImageSource, labels: Labels) -> Examples:
        return Examples(images, np.arange(len(labels), dtype=np.int64), labels, labels)

    pool = everything(found.images, found.labels)
    if found.test_images is not None and found.test_labels is not None:
        test = everything(found.test_images, found.test_labels)
    else:
        pool, test = take(pool, round(test_share * len(pool)))
    if limit is not None:
        if limit < 1:
            raise InputError(f"--limit {limit} is not allowed; give a number of at least 1")
        pool = take(pool, min(limit, len(pool)))[1]
        test = take(test, min(limit, len(test)))[1]
    used = len(pool)
    pool, validation = take(pool, round(validation_share * used))
    pool, reference = take(pool, round(reference_share * len(pool)))
    parts = {"train": pool, "validation": validation, "test": test}
    empty = [name for name, part in parts.items() if len(part) == 0]
    if reference_share > 0 and len(reference) == 0:
        empty.append("reference")
    if empty:
        raise InputError(
            f"{spec} has {used} training and {len(test)} test images here, too few to split: "
            f"nothing is left for {' and '.join(empty)}; add images or raise --limit"
        )
    digest = hashlib.blake2b(found.images.fingerprint().encode(), digest_size=16)
    digest.update(found.labels.data)
    return DataSet(
        name=spec,
        class_names=found.class_names,
        train=pool,
        reference=reference,
        validation=validation,
        test=test,
        fingerprint=digest.hexdigest(),
        default_image_size=found.image_size,
        augmentation=found.augmentation,
    )
