"""What is wrong with an example itself: unreadable, tiny or blank images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageStat

from saln.data.image_sources import ImageSource
from saln.files import write_with

# Below this shorter side, in pixels, hardly a class is recognized; unless all images of the data
# set are about as small (CIFAR-10: 32, scans of digits: 8), then below a quarter of the usual.
TINY_PIXELS = 32
# Standard deviation of the most varied color channel, of 255. An empty page as JPEG or a covered
# lens stays below 2; of CIFAR-10's 50,000 training images the flattest has 8.8, of pets 18.
BLANK_DEVIATION = 2.0
# A data set is judged by its own median: less than this part of it is unusual.
UNUSUAL = 0.25
# Pixels a side of the sample that the deviation is taken from: 0.3 ms an image of any size.
SAMPLE_PIXELS = 64

Facts = npt.NDArray[np.float32]


class CheckedImages:
    """Images, of which each one's facts are kept when it is loaded: no second decoding.

    Facts are width, height and deviation, kept in a file that is mapped into memory: worker
    processes write to the same one, and what a killed run has seen is still there. A file of as
    many images is gone on with, so give another path to other images.

    Args:
        images: The images.
        path: The file, ``.npy``.

    Raises:
        DataError: The file cannot be written.
    """

    def __init__(self, images: ImageSource, path: Path) -> None:
        self.images, self.path = images, path
        self._mapped: Any = None
        if not _holds_facts(path, len(images)):
            # Written in full, not as a hole: on a full disk a mapped hole would end the process.
            unseen = np.full((len(images), 3), np.nan, dtype=np.float32)
            write_with(path, lambda at: _save(at, unseen))

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_mapped": None}  # each process maps the file itself

    def __len__(self) -> int:
        return len(self.images)

    def load(self, row: int) -> Image.Image:
        """Opens one image as RGB and keeps its facts.

        Raises:
            DataError: The image cannot be read; its facts stay NaN.
        """
        image = self.images.load(row)
        if self._mapped is None:
            self._mapped = np.load(self.path, mmap_mode="r+")
        self._mapped[row] = image_facts(image)
        return image

    def header(self, row: int) -> tuple[int, int]:
        """Width and height as stored."""
        return self.images.header(row)

    def name_of(self, row: int) -> str:
        """What a person finds the image by."""
        return self.images.name_of(row)

    def fingerprint(self) -> str:
        """That of the images."""
        return self.images.fingerprint()

    @property
    def facts(self) -> Facts:
        """float32, (n, 3): width, height, deviation; NaN where the image was never loaded."""
        found: Facts = np.load(self.path)
        return found


def image_facts(image: Image.Image) -> tuple[int, int, float]:
    """Width, height, and the standard deviation of the color channel that varies most."""
    # Single pixels, not means of many: those would make fine texture look flat.
    sides = (min(image.width, SAMPLE_PIXELS), min(image.height, SAMPLE_PIXELS))
    sample = image.resize(sides, Image.Resampling.NEAREST)
    return image.width, image.height, max(ImageStat.Stat(sample).stddev)


def problems(facts: Facts, unreadable: Mapping[int, str]) -> list[str]:
    """What is wrong with each image: the column ``problem`` of the table.

    Args:
        facts: float32, (n, 3): of :attr:`CheckedImages.facts`; NaN is not judged.
        unreadable: Rows of images that cannot be read, with the reason.

    Returns:
        (n,): ``"unreadable: REASON"``, ``"tiny: 12 x 9 pixels"``, ``"blank"``, or empty.
    """
    found = [""] * len(facts)
    sides = facts[:, :2].min(axis=1)
    for row in np.flatnonzero(facts[:, 2] < _limit(facts[:, 2], BLANK_DEVIATION)).tolist():
        found[row] = "blank"
    for row in np.flatnonzero(sides < _limit(sides, TINY_PIXELS)).tolist():
        found[row] = f"tiny: {facts[row, 0]:.0f} x {facts[row, 1]:.0f} pixels"
    for row, reason in unreadable.items():
        found[row] = f"unreadable: {reason}"
    return found


def _limit(values: Facts, most: float) -> float:
    known = values[~np.isnan(values)]
    return min(most, UNUSUAL * float(np.median(known))) if len(known) else 0.0


def _save(path: Path, facts: Facts) -> None:
    with path.open("wb") as stream:  # given a name, numpy would add .npy to it
        np.save(stream, facts)


def _holds_facts(path: Path, n: int) -> bool:
    try:
        found = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError):  # none yet, or not whole: made anew
        return False
    return bool(found.shape == (n, 3) and found.dtype == np.float32)
