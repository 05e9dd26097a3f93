"""Data sets by name, split once into train, reference, validation and test.

The data set's own test split is the test split where it has one, or else its own
validation split; elsewhere a share of the examples becomes it. Validation, where the
data set has no split left for it, and the reference part are taken from the training
split. All splits are stratified and depend on ``split_seed`` alone.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from saln._torchvision import torchvision
from saln.data.arguments import as_array, as_path, as_share, as_whole, as_wholes, expanded
from saln.data.folders import find_splits
from saln.data.hugging_face import load_splits
from saln.data.image_sources import ArrayImages, FileImages, ImageSource
from saln.data.label_noise import flip_labels
from saln.data.transforms import Augmentation, DigitAugmentation, PhotoAugmentation
from saln.errors import DataError, InputError
from saln.messages import parameter
from saln.randomness import derive_seed

Labels = npt.NDArray[np.int64]

# What the parameter dataset takes -> what it is.
DATASETS = {
    "digits": "1,797 handwritten digits of 8 x 8 pixels, 10 classes; comes with scikit-learn",
    "cifar10": "CIFAR-10, 60,000 images of 32 x 32 pixels, 10 classes (--download to fetch)",
    "oxford-pet": "Oxford-IIIT Pet, 7,349 photos of 37 breeds (--download to fetch)",
    "folder:PATH": "a folder of images, one sub-folder a class; or train/, val/, test/ of such",
    "hf:NAME-OR-PATH": "a Hugging Face data set, from the hub or a local folder (extra 'hf')",
}
# Of so many images the size is looked at, where a data set does not say it.
_LOOKED_AT = 8


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
        """The examples at the given positions, in ascending order.

        Args:
            positions: (m,): from 0, distinct; or booleans, (n,): True for those wanted.

        Raises:
            InputError: They are no positions of examples.
        """
        positions = as_array(positions, "positions")
        if positions.dtype == np.bool_ and positions.shape == self.rows.shape:
            positions = np.flatnonzero(positions)
        positions = np.sort(as_wholes(positions, "positions"))
        if len(positions) and not 0 <= positions[0] <= positions[-1] < len(self):
            raise InputError(
                f"positions go from {positions[0]} to {positions[-1]}; give those of the "
                f"{len(self)} examples, from 0"
            )
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

    Raises:
        InputError: Labels that are no whole numbers, or more to draw than there are.
    """
    labels = as_wholes(labels, "labels")
    count = as_whole(count, "count", 0)
    if count > len(labels):
        raise InputError(f"count={count} is more than the {len(labels)} labels; give at most those")
    if not isinstance(random, np.random.Generator):
        raise InputError(f"random={random!r} is not allowed; give a numpy.random.Generator")
    row = np.lexsort((random.random(len(labels)), labels))
    start = random.random()
    picks = np.floor((np.arange(count) + start) * (len(labels) / max(count, 1))).astype(np.int64)
    # The last pick can round up to n when start is next to 1.
    return np.sort(row[np.minimum(picks, len(labels) - 1)])


class _Split(NamedTuple):
    """A split as found, not yet ours."""

    images: ImageSource
    labels: Labels


@dataclass(frozen=True)
class _Loaded:
    """A data set as found: the split to train on, and what it has beside."""

    train: _Split
    class_names: tuple[str, ...]
    validation: _Split | None = None
    test: _Split | None = None
    image_size: int | None = None
    augmentation: Callable[..., Augmentation] = PhotoAugmentation


def _digits() -> _Loaded:
    import sklearn.datasets  # takes a second, for one data set of five

    bunch = sklearn.datasets.load_digits()
    pixels = np.round(bunch.images * (255 / 16)).astype(np.uint8)
    labels = bunch.target.astype(np.int64)
    names = tuple(str(digit) for digit in range(10))
    return _Loaded(
        _Split(ArrayImages(pixels), labels), names, image_size=16, augmentation=DigitAugmentation
    )


def _torchvision_split(name: str, factory: Callable[..., Any], root: Path, download: bool) -> Any:
    try:
        return factory(download=download)
    except RuntimeError as error:
        raise InputError(
            f"{parameter('data_root', root)} does not hold {name} ({str(error).splitlines()[0]}); "
            f"add {parameter('download', True)} to fetch it from its own site, or give the folder "
            "that holds it in torchvision's layout"
        ) from error
    except OSError as error:
        raise DataError(
            f"{name} could not be downloaded to {root} ({error}); check the connection and "
            "the free space, or download it elsewhere and give its folder as "
            f"{parameter('data_root')}"
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
        _Split(ArrayImages(train.data), np.asarray(train.targets, dtype=np.int64)),
        tuple(train.classes),
        test=_Split(ArrayImages(test.data), np.asarray(test.targets, dtype=np.int64)),
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
        _Split(FileImages(folder, train._images), np.asarray(train._labels, dtype=np.int64)),
        tuple(train.classes),
        test=_Split(FileImages(folder, test._images), np.asarray(test._labels, dtype=np.int64)),
        image_size=224,
    )


def _folder(path: Path) -> _Loaded:
    splits, names = find_splits(path)
    return _of_splits(
        {name: _Split(FileImages(path, part.paths), part.labels) for name, part in splits.items()},
        names,
    )


def _hugging_face(name: str, download: bool) -> _Loaded:
    splits, names = load_splits(name, download)
    return _of_splits({kind: _Split(*part) for kind, part in splits.items()}, names)


def _of_splits(splits: dict[str, _Split], names: tuple[str, ...]) -> _Loaded:
    """What is published without a test split is measured on its validation split."""
    test, validation = splits.get("test"), splits.get("validation")
    if test is None:
        test, validation = validation, None
    return _Loaded(splits["train"], names, validation, test)


def _usual_size(images: ImageSource) -> int:
    """32 pixels where all images are of 32 x 32, as CIFAR's are, else 224.

    Known by some images' headers, spread over the split.
    """
    for row in np.unique(np.linspace(0, len(images) - 1, _LOOKED_AT).astype(np.int64)):
        try:
            if images.header(int(row)) != (32, 32):
                return 224
        except DataError:
            continue  # said where it is used; the others tell the size, too
    return 32


def _find(spec: str, data_root: Path, download: bool) -> _Loaded:
    kind, _, rest = spec.partition(":")
    if spec == "digits":
        return _digits()
    if spec == "cifar10":
        return _cifar10(data_root, download)
    if spec == "oxford-pet":
        return _oxford_pet(data_root, download)
    if kind == "folder" and rest:
        return _folder(expanded(rest))
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
            included), and at most this many test images; stratified. At most this many of a
            validation split of the data set's own, too.
        validation_share: The share of the training split that becomes validation, where the data
            set has no validation split beside its test split.
        test_share: The share of all examples that becomes the test split, where the
            data set has neither a test nor a validation split of its own.
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
    if not isinstance(spec, str):
        raise InputError(f"spec={spec!r} is not allowed; give text, one of {', '.join(DATASETS)}")
    limit = None if limit is None else as_whole(limit, "limit")
    if limit is not None and limit < 1:
        raise InputError(f"{parameter('limit', limit)} is not allowed; give a number of at least 1")
    validation_share = as_share(validation_share, "validation_share")
    test_share = as_share(test_share, "test_share")
    reference_share = as_share(reference_share, "reference_share")
    split_seed = as_whole(split_seed, "split_seed")
    found = _find(spec, as_path(data_root, "data_root"), download)
    random = np.random.Generator(np.random.PCG64(derive_seed(split_seed, "split")))

    def take(pool: Examples, count: int) -> tuple[Examples, Examples]:
        chosen = stratified_part(pool.labels, count, random)
        rest = np.setdiff1d(np.arange(len(pool)), chosen, assume_unique=True)
        return pool.part(rest), pool.part(chosen)

    def everything(split: _Split) -> Examples:
        rows = np.arange(len(split.labels), dtype=np.int64)
        return Examples(split.images, rows, split.labels, split.labels)

    def at_most(pool: Examples) -> Examples:
        return pool if limit is None else take(pool, min(limit, len(pool)))[1]

    pool = everything(found.train)
    if found.test is not None:
        test = everything(found.test)
    else:
        pool, test = take(pool, round(test_share * len(pool)))
    pool, test = at_most(pool), at_most(test)
    used = len(pool)
    if found.validation is not None:
        validation = at_most(everything(found.validation))
    else:
        pool, validation = take(pool, round(validation_share * used))
    pool, reference = take(pool, round(reference_share * len(pool)))
    parts = {"train": pool, "validation": validation, "test": test}
    empty = [name for name, part in parts.items() if len(part) == 0]
    if reference_share > 0 and len(reference) == 0:
        empty.append("reference")
    if empty:
        raise InputError(
            f"{spec} has {used} training and {len(test)} test images here, too few to split: "
            f"nothing is left for {' and '.join(empty)}; add images or raise "
            f"{parameter('limit')}"
        )
    if len(found.class_names) < 2:
        raise InputError(
            f"{spec} has one class ({found.class_names[0]!r}); there is nothing to tell apart"
        )
    digest = hashlib.blake2b(found.train.images.fingerprint().encode(), digest_size=16)
    digest.update(found.train.labels.data)
    return DataSet(
        name=spec,
        class_names=found.class_names,
        train=pool,
        reference=reference,
        validation=validation,
        test=test,
        fingerprint=digest.hexdigest(),
        default_image_size=found.image_size or _usual_size(found.train.images),
        augmentation=found.augmentation,
    )
