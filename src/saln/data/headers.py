"""Which images of a data set cannot be read, as far as a glance tells: before all work."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from saln.data.datasets import DataSet, Examples
from saln.data.image_sources import ArrayImages
from saln.errors import DataError

# Files that one message names at most.
_NAMED = 10
# On a disk across a network most of the time is waiting, which threads share.
_THREADS = 16
_AT_ONCE = 256


class Unreadable(NamedTuple):
    """An image that cannot be read: its row in the source, its name for people, and why."""

    row: int
    name: str
    reason: str


def unreadable_images(examples: Examples) -> tuple[Unreadable, ...]:
    """Looks at every image's header and end: some 0.1 ms each, where decoding takes milliseconds.

    Finds files that are missing, empty, cut short, no picture or no file at all, and rows without
    an image. What is wrong between header and end is not found.
    """

    def look(rows: npt.NDArray[np.int64]) -> list[Unreadable]:
        found = []
        for row in rows.tolist():
            try:
                examples.images.header(row)
            except DataError as error:
                found.append(Unreadable(row, examples.images.name_of(row), str(error)))
        return found

    if isinstance(examples.images, ArrayImages):
        return ()  # in memory
    # In parts: a task a picture would cost more than the look at it.
    parts = np.array_split(examples.rows, max(1, len(examples) // _AT_ONCE))
    with ThreadPoolExecutor(max_workers=_THREADS) as pool:
        return tuple(one for found in pool.map(look, parts) for one in found)


def check_headers(data: DataSet) -> None:
    """Raises DataError where images cannot be read: how many, the first one's reason, names."""
    parts = {"train": data.train, "reference": data.reference}
    parts |= {"validation": data.validation, "test": data.test}
    found = [one for part in parts.values() for one in unreadable_images(part)]
    if not found:
        return
    if len(found) == 1:
        raise DataError(found[0].reason)
    looked = sum(map(len, parts.values()))
    others = ", ".join(one.name for one in found[1:_NAMED])
    more = f" and {len(found) - _NAMED:,} more" if len(found) > _NAMED else ""
    raise DataError(
        f"{len(found):,} of {looked:,} images cannot be read. The first: {found[0].reason}. "
        f"The others: {others}{more}"
    )
