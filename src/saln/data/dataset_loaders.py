"""The data sets that SALN itself knows, a function each."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from saln._torchvision import torchvision
from saln.data.arguments import expanded
from saln.data.dataset_registry import DatasetRequest, ImageSplit, LoadedSplits, register_dataset
from saln.data.folders import find_splits
from saln.data.hugging_face import load_splits
from saln.data.image_sources import ArrayImages, FileImages
from saln.data.transforms import DigitAugmentation
from saln.errors import DataError, InputError
from saln.messages import parameter

_TO_FETCH = "--download to fetch"


@register_dataset(
    "digits",
    "1,797 handwritten digits of 8 x 8 pixels, 10 classes; comes with scikit-learn",
    image_size=16,
)
def _digits(request: DatasetRequest) -> LoadedSplits:
    images, targets = _digits_of_scikit_learn()
    # Stored as 0 to 16; images here have 0 to 255.
    pixels = np.round(images * (255 / 16)).astype(np.uint8)
    names = tuple(str(digit) for digit in range(10))
    return LoadedSplits(
        ImageSplit(ArrayImages(pixels), targets), names, augmentation=DigitAugmentation
    )


def _digits_of_scikit_learn() -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    # Its file alone: to import what reads it takes a second of every comparison.
    package = importlib.util.find_spec("sklearn")
    folder = Path((package and package.origin) or "").parent / "datasets" / "data"
    try:
        table = np.loadtxt(folder / "digits.csv.gz", delimiter=",")
        return table[:, :-1].reshape(-1, 8, 8), table[:, -1].astype(np.int64)
    except (OSError, ValueError):
        from sklearn.datasets import load_digits

        bunch = load_digits()
        return bunch.images, bunch.target


def _torchvision_splits(
    name: str, request: DatasetRequest, factory: Callable[..., Any], **splits: Any
) -> list[Any]:
    """A data set of torchvision's, split by split; ``splits`` is its argument for them."""
    root, ((argument, values),) = request.data_root, splits.items()
    try:
        return [factory(str(root), **{argument: v}, download=request.download) for v in values]
    # How torchvision says that the files are not there.
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


@register_dataset(
    "cifar10",
    "CIFAR-10, 60,000 images of 32 x 32 pixels, 10 classes",
    needs=_TO_FETCH,
    image_size=32,
)
def _cifar10(request: DatasetRequest) -> LoadedSplits:
    train, test = _torchvision_splits(
        "cifar10", request, torchvision.datasets.CIFAR10, train=(True, False)
    )
    splits = [ImageSplit(ArrayImages(part.data), part.targets) for part in (train, test)]
    return LoadedSplits(splits[0], tuple(train.classes), test=splits[1])


@register_dataset(
    "oxford-pet", "Oxford-IIIT Pet, 7,349 photos of 37 breeds", needs=_TO_FETCH, image_size=224
)
def _oxford_pet(request: DatasetRequest) -> LoadedSplits:
    train, test = _torchvision_splits(
        "oxford-pet", request, torchvision.datasets.OxfordIIITPet, split=("trainval", "test")
    )
    folder = request.data_root / "oxford-iiit-pet"
    # torchvision keeps paths and labels in private lists; its public way opens every image.
    splits = [ImageSplit(FileImages(folder, part._images), part._labels) for part in (train, test)]
    return LoadedSplits(splits[0], tuple(train.classes), test=splits[1])


@register_dataset(
    "folder:",
    "a folder of images, one sub-folder a class; or train/, val/, test/ of such",
    argument="PATH",
)
def _folder(request: DatasetRequest) -> LoadedSplits:
    return _published(request, *find_splits(expanded(request.argument), to_train=request.to_train))


@register_dataset(
    "hf:",
    "a Hugging Face data set, from the hub or a local folder",
    argument="NAME-OR-PATH",
    needs="extra 'hf'",
)
def _hugging_face(request: DatasetRequest) -> LoadedSplits:
    return _published(request, *load_splits(request.argument, request.download))


def _published(
    request: DatasetRequest, splits: dict[str, ImageSplit], names: tuple[str, ...]
) -> LoadedSplits:
    """What is published without a test split is measured on its validation split."""
    test, validation = splits.get("test"), splits.get("validation")
    # Chosen on and measured on the same images would be no honest test; so validation is then cut
    # from the training split.
    if test is None and request.to_train:
        test, validation = validation, None
    return LoadedSplits(splits["train"], names, validation, test)
