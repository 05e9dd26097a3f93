"""The images of every split of a data set, one after the other, as they are reviewed."""

from __future__ import annotations

import functools
import hashlib
import itertools
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from PIL import Image

from saln.data.arguments import expanded, is_folder
from saln.data.dataset_registry import DATASETS, DatasetRequest, ImageSplit, LoadedSplits
from saln.data.image_sources import FileImages, ImageSource
from saln.errors import DataError, InputError
from saln.messages import parameter
from saln.review.review_items import ReviewItems

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class JoinedImages:
    """Several image sources as one, in order."""

    parts: Sequence[ImageSource]

    @functools.cached_property
    def _starts(self) -> list[int]:
        return list(itertools.accumulate(map(len, self.parts), initial=0))

    def __len__(self) -> int:
        return self._starts[-1]

    def _place(self, row: int) -> tuple[ImageSource, int]:
        part = bisect_right(self._starts, row) - 1
        return self.parts[part], row - self._starts[part]

    def load(self, row: int) -> Image.Image:
        """Opens one image."""
        part, place = self._place(row)
        return part.load(place)

    def header(self, row: int) -> tuple[int, int]:
        """Width and height as stored."""
        part, place = self._place(row)
        return part.header(place)

    def content(self, row: int) -> Any:
        """What is stored of one image; of sources that cannot say that, its pixels."""
        part, place = self._place(row)
        stored = getattr(part, "content", None)
        return stored(place) if stored is not None else part.load(place).tobytes()

    def name_of(self, row: int) -> str:
        """What a person finds the image by."""
        part, place = self._place(row)
        return part.name_of(place)

    def fingerprint(self) -> str:
        """A hash of those of all parts."""
        digest = hashlib.blake2b(digest_size=16)
        for part in self.parts:
            digest.update(part.fingerprint().encode())
        return digest.hexdigest()


def image_files(images: ImageSource) -> list[tuple[Path, Path] | None]:
    """Of each image the data set's folder and the file; None where it is in none of its own."""
    if isinstance(images, JoinedImages):
        return [file for part in images.parts for file in image_files(part)]
    if isinstance(images, FileImages):
        return [(images.root, Path(path)) for path in images.paths]
    return [None] * len(images)


def absolute_spec(spec: str) -> str:
    """A data set's specification with absolute paths; a folder's plain path becomes one.

    InputError where it is neither a registered data set nor a folder.
    """
    path = expanded(spec)
    if spec not in DATASETS:
        if not is_folder(path):
            # No guess that it is a folder or a table: those are taken as they are.
            known = DATASETS.choices("" if "/" in spec and ":" not in spec else spec)
            raise InputError(
                f"{parameter('dataset', spec)} is neither a folder nor a data set; give "
                f"a folder of images, a table such as texts.csv, or {known}"
            )
        return f"folder:{path.absolute()}"
    kind, argument = DATASETS.find(spec)
    path = expanded(argument)
    if kind.argument and _exists(path):
        return f"{kind.name}{path.absolute()}"
    return spec


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name that no system allows
        return False


def open_items(spec: str, data_root: Path = Path("data"), *, download: bool = False) -> ReviewItems:
    """Opens a data set of images for review, by a name of ``saln list`` or a path: all splits.

    InputError where there is no such data set, or it holds nothing; DataError where it is broken;
    MissingExtraError where it needs a package that is not installed.
    """
    dataset = absolute_spec(spec)
    kind, argument = DATASETS.find(dataset)
    found = kind.make(DatasetRequest(argument, data_root, download, to_train=False))
    if not isinstance(found, LoadedSplits):
        raise DataError(f"the loader of {spec} gives a {type(found).__name__}, not LoadedSplits")
    return items_of(dataset, found)


def items_of(dataset: str, found: LoadedSplits) -> ReviewItems:
    """The examples of loaded splits; InputError where there are none."""
    every = {name: getattr(found, name) for name in SPLITS}
    splits: dict[str, ImageSplit] = {
        name: split for name, split in every.items() if split is not None and len(split.labels)
    }
    if not splits:
        raise InputError(f"{dataset} holds no images; give a data set with some")
    images = JoinedImages([split.images for split in splits.values()])
    alone = list(splits) == ["train"]  # then it has no splits
    names = [("" if alone else name) for name, split in splits.items() for _ in split.labels]
    return ReviewItems(
        dataset=dataset,
        class_names=found.class_names,
        ids=_ids(splits),
        splits=names,
        given=np.concatenate([split.labels for split in splits.values()]),
        keys=content_keys(images),
        images=images,
    )


def _ids(splits: dict[str, ImageSplit]) -> list[str]:
    """Paths below the data set's folder; where there are no files, split and row."""
    ids = [
        split.images.name_of(row) if isinstance(split.images, FileImages) else f"{name}/{row}"
        for name, split in splits.items()
        for row in range(len(split.labels))
    ]
    if len(set(ids)) < len(ids):  # files of several folders that are named alike
        ids = [
            f"{name}/{split.images.name_of(row)}"
            for name, split in splits.items()
            for row in range(len(split.labels))
        ]
    return ids


def content_keys(images: ImageSource) -> list[str]:
    """A hash of what is stored of each image; empty where nothing of it can be read."""
    return [_key(images, row) for row in range(len(images))]


def _key(images: Any, row: int) -> str:
    try:
        return xxhash.xxh3_128_hexdigest(images.content(row))
    except Exception:  # as decoders, sources raise anything; opening the image says what it is
        return ""
