"""What is wrong with an example itself: unreadable, tiny or blank images."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import xxhash
from PIL import Image, ImageStat

from saln.data.image_sources import ImageSource

# Below this shorter side, in pixels, hardly a class is recognized; unless all images of the data
# set are about as small (CIFAR-10: 32, scans of digits: 8), then below a quarter of the usual.
TINY_PIXELS = 32
# Standard deviation of the most varied color channel, of 255. An empty page as JPEG or a covered
# lens stays below 2; of CIFAR-10's 50,000 training images the flattest has 8.8, of pets 18.
BLANK_DEVIATION = 2.0
# A data set is judged by its own median: less than this part of it is unusual.
UNUSUAL = 0.25
# Side of the gray thumbnails by which near duplicates are recognized.
THUMBNAIL_PIXELS = 16
# Enough of any image for both, and its size no longer matters to the cost: 0.6 ms.
SAMPLE_PIXELS = 256
# One image's facts, with a checksum of what stands before it.
_RECORD = np.dtype(
    [
        ("key", "V16"),
        ("facts", "<f4", 3),
        ("thumbnail", "u1", (THUMBNAIL_PIXELS, THUMBNAIL_PIXELS)),
        ("checksum", "<u8"),
    ]
)


class ImageFacts(NamedTuple):
    """What is known of images from when they were loaded, in this run or an earlier one."""

    sizes: npt.NDArray[np.float32]  # (n, 3): width, height, deviation; NaN where never loaded
    thumbnails: npt.NDArray[np.uint8]  # (n, 16, 16): gray; zeros likewise


class CheckedImages:
    """Images, of which each one's facts are kept when it is loaded: no second decoding.

    Facts are appended to a file by what the image holds, so they are found again as features
    are: when a file has moved, from worker processes, and after a killed run. Many data sets may
    share the file, which is made when the first fact comes. ``keys`` are hashes of what the n
    images hold; nothing is kept of images with an empty one.
    """

    def __init__(self, images: ImageSource, keys: Sequence[str], path: Path) -> None:
        self.images, self.path = images, path
        self._keys = [_digest(key) if key else b"" for key in keys]
        # A full disk may have cut the last record: what follows must begin where one does.
        with contextlib.suppress(OSError):
            os.truncate(path, path.stat().st_size // _RECORD.itemsize * _RECORD.itemsize)
        self._known = frozenset(_read_records(path)[0])

    def load(self, row: int) -> Image.Image:
        """Opens one image as RGB and keeps its facts; DataError where it cannot be read."""
        image = self.images.load(row)
        key = self._keys[row]
        if key and key not in self._known:
            record = _record(key, image)
            # A full disk is said by whoever writes the features: it does not make this image bad.
            with contextlib.suppress(OSError):
                self.path.parent.mkdir(parents=True, exist_ok=True)
                # Unbuffered and appended: records of several processes do not mix.
                with self.path.open("ab", buffering=0) as stream:
                    stream.write(record)
        return image

    def name_of(self, row: int) -> str:
        """What a person finds the image by."""
        return self.images.name_of(row)

    def facts(self) -> ImageFacts:
        """What is known of the images by now; damaged records count as never written."""
        places, records = _read_records(self.path)
        n = len(self._keys)
        sizes = np.full((n, 3), np.nan, dtype=np.float32)
        thumbnails = np.zeros((n, THUMBNAIL_PIXELS, THUMBNAIL_PIXELS), dtype=np.uint8)
        at = np.array([places.get(key, -1) for key in self._keys], dtype=np.int64)
        known = np.flatnonzero(at >= 0)
        sizes[known] = records["facts"][at[known]]
        thumbnails[known] = records["thumbnail"][at[known]]
        return ImageFacts(sizes, thumbnails)


def _digest(key: str) -> bytes:
    return hashlib.blake2b(key.encode(errors="surrogateescape"), digest_size=16).digest()


def _record(key: bytes, image: Image.Image) -> bytes:
    # Single pixels, not means of many: those would make fine texture look flat.
    sides = (min(image.width, SAMPLE_PIXELS), min(image.height, SAMPLE_PIXELS))
    sample = image.resize(sides, Image.Resampling.NEAREST)
    deviation = max(ImageStat.Stat(sample).stddev)
    small = (THUMBNAIL_PIXELS, THUMBNAIL_PIXELS)
    thumbnail = np.asarray(sample.convert("L").resize(small, Image.Resampling.BOX))
    facts = (image.width, image.height, deviation)
    content = np.array((key, facts, thumbnail, 0), dtype=_RECORD).tobytes()[:-8]
    return content + xxhash.xxh3_64_intdigest(content).to_bytes(8, "little")


def _read_records(path: Path) -> tuple[dict[bytes, int], npt.NDArray[Any]]:
    """Where each key's record is, and the records."""
    try:
        content = path.read_bytes()
    except OSError:  # none yet
        content = b""
    size = _RECORD.itemsize
    records = np.frombuffer(content, dtype=_RECORD, count=len(content) // size)
    places = {}
    for place, checksum in enumerate(records["checksum"].tolist()):
        record = content[place * size : place * size + size - 8]
        if xxhash.xxh3_64_intdigest(record) == checksum:
            places[record[:16]] = place
    return places, records


def problems(sizes: npt.NDArray[np.float32], unreadable: Mapping[int, str]) -> list[str]:
    """What is wrong with each image, (n,): the column ``problem`` of the table.

    By the sizes of :class:`ImageFacts`, of which NaN is not judged, and the reasons why rows are
    ``unreadable``: ``"unreadable: REASON"``, ``"tiny: 12 x 9 pixels"``, ``"blank"``, or empty.
    """
    found = [""] * len(sizes)
    sides, deviations = sizes[:, :2].min(axis=1), sizes[:, 2]
    for row in np.flatnonzero(deviations < _limit(deviations, BLANK_DEVIATION)).tolist():
        found[row] = "blank"
    for row in np.flatnonzero(sides < _limit(sides, TINY_PIXELS)).tolist():
        found[row] = f"tiny: {sizes[row, 0]:.0f} x {sizes[row, 1]:.0f} pixels"
    for row, reason in unreadable.items():
        found[row] = f"unreadable: {reason}"
    return found


def _limit(values: npt.NDArray[np.float32], most: float) -> float:
    known = values[~np.isnan(values)]
    return min(most, UNUSUAL * float(np.median(known))) if len(known) else 0.0
