"""What the page of a review shows, as compact JSON: columns in base64, pictures, addresses."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import numpy.typing as npt
import xxhash
from PIL import Image

from saln.data.decoding import load_rgb
from saln.data.image_sources import ImageSource
from saln.review.duplicate_images import duplicate_kinds
from saln.review.item_sources import image_files
from saln.review.outliers import OUTLYING
from saln.review.review_items import ReviewItems
from saln.review.review_table import DECISION_COLUMNS, DECISIONS, ReviewTable

# Bits of what a row is listed under, besides its probability.
COPY_INSIDE, COPY_ACROSS, COPY_SPLITS, OUTLIER = 1, 2, 4, 8
# Examples whose pictures the page holds; more where it cannot show them from files.
PICTURES, PICTURES_WITHOUT_FILES = 2000, 10_000
# Characters shown of a text, and of all texts together.
_MOST_OF_TEXT, _LEAST_OF_TEXT, _TEXTS = 1000, 80, 24 * 2**20
# Pixels of an example's longer side, and of the neighbors that contradict it.
LARGE, SMALL = 128, 64
_QUALITY = 75
# Thumbnails that are made between two looks at the budget.
_AT_ONCE = 128
_TYPES = {"int8": "i1", "int16": "i2", "int32": "i4", "float32": "f4", "float64": "f8"}


def page_data(
    table: ReviewTable,
    items: ReviewItems,
    *,
    page: Path,
    review: Path,
    pictures: int | None,
    budget: int,
) -> dict[str, Any]:
    """All that the page's script reads; ``page`` is the file that it will be in."""
    flags = row_flags(table)
    files = _files(items, page)
    if pictures is None:
        pictures = PICTURES if files else PICTURES_WITHOUT_FILES
    labels = _Codes(table.class_names)
    problems = _Codes(("",))
    splits = _Codes(("",))
    columns = {
        "given": _packed(labels.of(table.given)),
        "believed": _packed(labels.of(table.believed)),
        "label": _packed(labels.of(table.label)),
        "split": _packed(splits.of(table.splits)),
        "problem": _packed(problems.of(table.problem)),
        "decision": _packed([(*DECISIONS, "").index(each) for each in table.decision]),
        "probability": _packed(table.probability),
        "outlier": _packed(table.outlier.astype(np.float32)),
        "group": _packed(table.group),
        "flags": _packed(flags),
        "near": _packed(table.contradicting.ravel()),
    }
    rows = picture_rows(table, flags, pictures)
    return {
        "dataset": table.dataset,
        "task": table.task,
        "review": str(review.absolute()),
        "fingerprint": _fingerprint(table),
        "decisions": DECISIONS,
        "header": DECISION_COLUMNS,
        "classes": len(table.class_names),
        "labels": labels.texts,
        "splits": splits.texts,
        "problems": problems.texts,
        "columns": columns,
        "ids": list(table.ids),
        "keys": list(table.keys),
        "files": files,
        "texts": _texts(items.texts),
        "pictures": _pictures(items, _wanted(rows, table), budget),
    }


class _Codes:
    """Texts as numbers, in the order of their first use."""

    def __init__(self, first: Iterable[str]) -> None:
        self._numbers = {text: number for number, text in enumerate(first)}

    def of(self, texts: Sequence[str]) -> list[int]:
        numbers = self._numbers
        return [numbers.setdefault(text, len(numbers)) for text in texts]

    @property
    def texts(self) -> list[str]:
        return list(self._numbers)


def row_flags(table: ReviewTable) -> npt.NDArray[np.int8]:
    """(n,): bits of near duplicates and outliers, as the command's summary counts them."""
    flags = np.where(table.outlier >= OUTLYING, OUTLIER, 0).astype(np.int8)  # NaN is none
    kinds = duplicate_kinds(table)
    bits = (COPY_INSIDE, kinds.inside), (COPY_ACROSS, kinds.across_classes)
    for bit, groups in (*bits, (COPY_SPLITS, kinds.across_splits)):
        for rows in groups:
            flags[rows] |= bit
    return flags


def picture_rows(table: ReviewTable, flags: npt.NDArray[np.int8], count: int) -> list[int]:
    """The rows whose pictures the page should hold, at most ``count``, most wanted first."""
    suspects, outliers = table.suspects, np.flatnonzero(flags & OUTLIER)
    by_group = np.argsort(table.group, kind="stable")
    wanted = (
        suspects[: count * 3 // 4],  # many suspects leave room for the other lists
        by_group[flags[by_group] & (COPY_ACROSS | COPY_SPLITS) > 0],
        outliers[np.argsort(-table.outlier[outliers], kind="stable")],
        suspects,
        by_group[flags[by_group] & COPY_INSIDE > 0],
        np.argsort(table.probability, kind="stable"),  # NaN last
    )
    return list(dict.fromkeys(int(row) for part in wanted for row in part[:count]))[:count]


def _wanted(rows: list[int], table: ReviewTable) -> Iterator[tuple[int, int]]:
    """Rows and sizes of pictures: each example, then those that contradict it, smaller."""
    seen = {-1, *rows}  # an example that is there in full needs no small picture
    for row in rows:
        if not table.problem[row].startswith("unreadable"):
            yield row, LARGE
        for near in table.contradicting[row].tolist():
            if near not in seen:
                seen.add(near)
                yield near, SMALL


def _pictures(
    items: ReviewItems, wanted: Iterator[tuple[int, int]], budget: int
) -> dict[str, list[Any]]:
    """Pictures by row and size, in the order wanted, until ``budget`` characters are spent."""
    images = items.images
    if images is None:
        return {"rows": [], "jpeg": []}
    files = [file and file[1] for file in image_files(images)]
    made: dict[tuple[int, int], str] = {}
    left = budget
    # Pillow lets go of the interpreter while it decodes and scales.
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
        while left > 0 and (block := list(islice(wanted, _AT_ONCE))):
            texts = threads.map(lambda key: thumbnail(images, key[0], files[key[0]], key[1]), block)
            for key, text in zip(block, texts, strict=True):
                left -= len(text)
                if text and left >= 0:
                    made[key] = text
    return {"rows": [row for row, _ in made], "jpeg": list(made.values())}


def thumbnail(images: ImageSource, row: int, file: Path | None, size: int) -> str:
    """An image as JPEG in base64, its longer side ``size`` pixels; empty where none can be read.

    ``file`` is the one that holds it, if one does.
    """
    try:
        image = images.load(row) if file is None else load_rgb(file, least=size)
    except Exception:  # decoders raise many kinds; the page shows a placeholder for all of them
        return ""
    image.thumbnail((size, size), Image.Resampling.BICUBIC, reducing_gap=2.0)
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=_QUALITY)
    return base64.b64encode(stream.getvalue()).decode()


def _packed(values: npt.NDArray[Any] | Sequence[int]) -> list[str]:
    """A column as its type and its bytes in base64, whole numbers in the smallest type."""
    column = np.asarray(values)
    if column.dtype.kind == "i":
        low, high = column.min(initial=0), column.max(initial=0)
        fits = (t for t in (np.int8, np.int16) if np.iinfo(t).min <= low <= high <= np.iinfo(t).max)
        column = column.astype(next(fits, np.int32))
    little = column.astype(column.dtype.newbyteorder("<"))  # as every browser's arrays are
    return [_TYPES[column.dtype.name], base64.b64encode(little.tobytes()).decode()]


def _fingerprint(table: ReviewTable) -> str:
    """A hash of what decisions are about: they stay when only probabilities change."""
    digest = xxhash.xxh3_64()
    for texts in (table.ids, table.keys, table.given):
        digest.update("\0".join(texts).encode(errors="surrogatepass"))
    return digest.hexdigest()


def _files(items: ReviewItems, page: Path) -> dict[str, Any] | None:
    """Where the images' own files are, seen from the page; None where they have none."""
    files = [None] if items.images is None else image_files(items.images)
    found = [file for file in files if file is not None]
    if len(found) < len(files):
        return None
    paths = [str(path.absolute()) for _, path in found]
    root = os.path.commonpath([*{str(root.absolute()) for root, _ in found}, *paths])
    names = [path[len(root) :].lstrip(os.sep).replace(os.sep, "/") for path in paths]
    try:
        # A folder that is moved or served as a whole takes the page along.
        base = quote(os.fsencode(Path(os.path.relpath(root, page.absolute().parent)).as_posix()))
    except ValueError:  # on another drive
        base = Path(root).as_uri()
    return {"base": base + "/", "names": None if names == list(items.ids) else names}


def _texts(texts: Sequence[str] | None) -> list[str] | None:
    if texts is None:
        return None
    most = max(_LEAST_OF_TEXT, min(_MOST_OF_TEXT, _TEXTS // max(1, len(texts))))
    return [text if len(text) <= most else text[: most - 1] + "…" for text in texts]
