"""Data sets by name, split once into train, reference, validation and test.

The data set's own test split is the test split where it has one, or else its own
validation split; elsewhere a share of the examples becomes it. Validation, where the
data set has no split left for it, and the reference part are taken from the training
split. All splits are stratified and depend on ``split_seed`` alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from saln.data.arguments import as_array, as_path, as_share, as_whole, as_wholes
from saln.data.dataset_registry import DATASETS, DatasetRequest, ImageSplit, LoadedSplits
from saln.data.image_sources import ImageSource
from saln.data.label_noise import flip_labels
from saln.data.transforms import Augmentation
from saln.errors import DataError, InputError
from saln.messages import not_allowed, parameter
from saln.randomness import derive_seed

Labels = npt.NDArray[np.int64]

# Images whose size is read where a data set does not say it.
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
        # The same images with other rows or labels give other features or votes.
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
        # By row, so that it is the pool whether or not a reference part was taken out of it.
        order = np.argsort(rows)
        return Examples(self.train.images, rows[order], labels[order], true_labels[order])

    def with_label_noise(self, share: float, seed: int) -> DataSet:
        """Replaces a share of the labels of ``train`` and ``reference`` by other classes.

        Validation and test keep their true labels: they are what is measured.
        """
        if share == 0:
            return self
        noisy: dict[str, Any] = {}
        for name, part in (("train", self.train), ("reference", self.reference)):
            labels = flip_labels(part.labels, share, len(self.class_names), derive_seed(seed, name))
            noisy[name] = replace(part, labels=labels)
        return replace(self, **noisy)


def stratified_part(
    labels: Labels, count: int, random: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Draws ``count`` positions so that each class has its share, to within one example.

    Systematic sampling: the examples stand in a row, class by class, shuffled inside each
    class, and every (n / count)-th is taken from a random start. Gives int64, (count,),
    distinct, ascending; raises InputError for labels that are no whole numbers, or too few.
    """
    labels = as_wholes(labels, "labels")
    count = as_whole(count, "count", 0)
    if count > len(labels):
        raise InputError(f"count={count} is more than the {len(labels)} labels; give at most those")
    if not isinstance(random, np.random.Generator):
        raise not_allowed("random", random, "a numpy.random.Generator")
    # Sorted by class, at random inside each; every class is hit as often as its share says.
    row = np.lexsort((random.random(len(labels)), labels))
    start = random.random()
    picks = np.floor((np.arange(count) + start) * (len(labels) / max(count, 1))).astype(np.int64)
    # The last pick can round up to n when start is next to 1.
    return np.sort(row[np.minimum(picks, len(labels) - 1)])


def _usual_size(images: ImageSource) -> int:
    """32 pixels where all images are of 32 x 32, by some of their headers (CIFAR), else 224."""
    for row in np.unique(np.linspace(0, len(images) - 1, _LOOKED_AT).astype(np.int64)):
        try:
            if images.header(int(row)) != (32, 32):
                return 224
        except DataError:
            continue  # said where it is used; the others tell the size, too
    return 32


class _Shares(NamedTuple):
    """The shares of a data set that are held out."""

    validation: float
    test: float
    reference: float


def _take(pool: Examples, count: int, random: np.random.Generator) -> tuple[Examples, Examples]:
    """What is left of some examples, and the stratified part that was taken out."""
    taken = stratified_part(pool.labels, count, random)
    rest = np.setdiff1d(np.arange(len(pool)), taken, assume_unique=True)
    return pool.part(rest), pool.part(taken)


def _split(
    found: LoadedSplits, shares: _Shares, limit: int | None, random: np.random.Generator
) -> dict[str, Examples]:
    """Takes out what the data set has no split of its own for."""

    def everything(split: ImageSplit) -> Examples:
        rows = np.arange(len(split.labels), dtype=np.int64)
        return Examples(split.images, rows, split.labels, split.labels)

    def at_most(pool: Examples) -> Examples:
        return pool if limit is None else _take(pool, min(limit, len(pool)), random)[1]

    # The order of the draws below decides which example goes where: it must not change.
    pool = everything(found.train)
    if found.test is not None:
        test = everything(found.test)
    else:
        pool, test = _take(pool, round(shares.test * len(pool)), random)
    pool, test = at_most(pool), at_most(test)
    if found.validation is not None:
        validation = at_most(everything(found.validation))
    else:
        pool, validation = _take(pool, round(shares.validation * len(pool)), random)
    pool, reference = _take(pool, round(shares.reference * len(pool)), random)
    return {"train": pool, "reference": reference, "validation": validation, "test": test}


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
        spec: A name of :data:`~saln.data.dataset_registry.DATASETS`, with a path or name where
            it says so.
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
        raise InputError(f"spec={spec!r} is not allowed; give text, {DATASETS.choices()}")
    limit = None if limit is None else as_whole(limit, "limit")
    if limit is not None and limit < 1:
        raise not_allowed("limit", limit, "a number of at least 1")
    shares = _Shares(
        as_share(validation_share, "validation_share"),
        as_share(test_share, "test_share"),
        as_share(reference_share, "reference_share"),
    )
    seed = derive_seed(as_whole(split_seed, "split_seed"), "split")
    kind, argument = DATASETS.find(spec)
    found = kind.make(DatasetRequest(argument, as_path(data_root, "data_root"), download))
    if not isinstance(found, LoadedSplits):
        raise DataError(f"the loader of {spec} gives a {type(found).__name__}, not LoadedSplits")
    parts = _split(found, shares, limit, np.random.Generator(np.random.PCG64(seed)))
    _check_parts(spec, parts, shares, found.class_names)
    digest = hashlib.blake2b(found.train.images.fingerprint().encode(), digest_size=16)
    digest.update(found.train.labels.data)
    return DataSet(
        name=spec,
        class_names=found.class_names,
        **parts,
        fingerprint=digest.hexdigest(),
        default_image_size=kind.image_size or _usual_size(found.train.images),
        augmentation=found.augmentation,
    )


def _check_parts(
    spec: str, parts: dict[str, Examples], shares: _Shares, class_names: tuple[str, ...]
) -> None:
    empty = [name for name in ("train", "validation", "test") if len(parts[name]) == 0]
    if shares.reference > 0 and len(parts["reference"]) == 0:
        empty.append("reference")
    if empty:
        training = (parts[name] for name in ("train", "reference", "validation"))
        # A validation split of the data set's own has images of its own.
        used = sum(len(part) for part in training if part.images is parts["train"].images)
        raise InputError(
            f"{spec} has {used} training and {len(parts['test'])} test images here, too few to "
            f"split: nothing is left for {' and '.join(empty)}; add images or raise "
            f"{parameter('limit')}"
        )
    if len(class_names) < 2:
        raise InputError(
            f"{spec} has one class ({class_names[0]!r}); there is nothing to tell apart"
        )
