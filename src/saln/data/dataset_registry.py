"""Data sets by name: what loads each, and its help text.

A data set is one function, which finds the images and labels::

    @register_dataset("my-photos", "12,000 photos of 40 kinds of bread", image_size=224)
    def my_photos(request: DatasetRequest) -> LoadedSplits:
        pixels, labels = ...
        return LoadedSplits(ImageSplit(ArrayImages(pixels), labels), CLASS_NAMES)

Splitting, label noise, features, training and the report are the same for all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from saln.data.arguments import as_labels, expanded, is_folder
from saln.data.image_sources import ImageSource
from saln.data.name_registry import NameRegistry, RegisteredName
from saln.data.transforms import Augmentation, PhotoAugmentation
from saln.errors import DataError, InputError


class DatasetRequest(NamedTuple):
    """What a loader is called with.

    Attributes:
        argument: What stands behind the prefix, such as the path of ``folder:PATH``.
        data_root: Where data sets are kept that somebody has downloaded.
        download: Whether a data set that is not there may be fetched.
        to_train: Whether it is to be trained on. Else it is looked at as it is: splits keep
            their names, ``train`` may be empty, and a class may be in one split alone.
    """

    argument: str
    data_root: Path
    download: bool
    to_train: bool = True


@dataclass(frozen=True)
class ImageSplit:
    """Images with their labels, as a data set has them.

    Attributes:
        images: Such as :class:`~saln.data.image_sources.ArrayImages` or ``FileImages``.
        labels: int64, (n,): positions in the class names; other whole numbers become int64.

    Raises:
        DataError: Not one label an image, or labels that are no whole numbers from 0.
    """

    images: ImageSource
    labels: npt.NDArray[np.int64]

    def __post_init__(self) -> None:
        try:
            labels, names = as_labels(self.labels, (len(self.images), 0))
        except InputError as error:
            raise DataError(f"a split of {len(self.images)} images cannot be: {error}") from error
        if names is not None:
            raise DataError("the labels of a split are texts; give positions in the class names")
        object.__setattr__(self, "labels", labels)  # frozen from here on


@dataclass(frozen=True)
class LoadedSplits:
    """A data set as it was found: the split to train on, and what it has beside.

    Attributes:
        train: What is trained on; validation and test are taken out of it where they are None.
        class_names: One a class.
        validation: Of the data set's own.
        test: Of the data set's own.
        augmentation: The class of augmentation that suits the images.

    Raises:
        DataError: A label that no class name stands for.
    """

    train: ImageSplit
    class_names: tuple[str, ...]
    validation: ImageSplit | None = None
    test: ImageSplit | None = None
    augmentation: Callable[..., Augmentation] = PhotoAugmentation

    def __post_init__(self) -> None:
        object.__setattr__(self, "class_names", tuple(map(str, self.class_names)))
        for name in ("train", "validation", "test"):
            split = getattr(self, name)
            # Checked here, with the split's name: later it would be an index out of range in a
            # loss.
            top = -1 if split is None or not len(split.labels) else int(split.labels.max())
            if top >= len(self.class_names):
                raise DataError(
                    f"the {name} split has label {top}, but there are {len(self.class_names)} "
                    "class names; number the classes from 0 and name each"
                )


@dataclass(frozen=True)
class DatasetKind(RegisteredName):
    """A registered data set, or a prefix; its fields are those of :func:`register_dataset`."""

    image_size: int | None = None


# Of files that hf: reads.
_TABLES = (".parquet", ".csv", ".json", ".jsonl", ".arrow")


def _meant(spec: str) -> str:
    """The data set that a plain path, or the name of one on the hub, may stand for."""
    path = expanded(spec)
    if path.suffix.lower() in _TABLES:
        return f"hf:{spec}"
    if is_folder(path) or spec.startswith((".", "/", "~", "\\")):
        return f"folder:{spec}"
    # Two words with a slash between are a path as well as a name on the hub: nobody can tell.
    return f"hf:{spec} or folder:{spec}" if "/" in spec and ":" not in spec else ""


Loader = Callable[[DatasetRequest], LoadedSplits]
DATASETS: NameRegistry[DatasetKind] = NameRegistry(
    "data set", "saln.data.dataset_loaders", "saln.datasets", DatasetKind, _meant
)


def register_dataset(
    name: str, summary: str, *, argument: str = "", needs: str = "", image_size: int | None = None
) -> Callable[[Loader], Loader]:
    """Registers a function as the loader of a data set, as a decorator.

    A package that is installed can register one by an entry point of the group
    ``saln.datasets`` that leads to the function.

    Args:
        name: What ``--dataset`` and :func:`saln.data.datasets.load_dataset` take; a prefix ends
            in a colon, such as ``zip:``.
        summary: What it is, in a line of ``saln list`` and ``--help``.
        argument: What stands behind a prefix, such as ``PATH``.
        needs: What must be there first, e.g. ``--download to fetch``.
        image_size: Pixels, where none are asked for; when not given, found by the images.

    Raises:
        InputError: Another function has the name already, or it is no name.
    """
    return DATASETS.register(name, summary, argument=argument, needs=needs, image_size=image_size)
