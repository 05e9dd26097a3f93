"""Small pictures of the examples that a page shows first, as JPEG in text."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

from PIL import Image

from saln.data.decoding import load_rgb
from saln.data.image_sources import ImageSource

# Pixels of an example's longer side, and of the neighbors that contradict it.
LARGE, SMALL = 128, 64
_QUALITY = 75
# Thumbnails that are made between two looks at the budget.
_AT_ONCE = 128


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


def make_thumbnails(
    wanted: Iterable[tuple[int, int]], make: Callable[[int, int], str], budget: int
) -> dict[tuple[int, int], str]:
    """Pictures by row and size, in the order wanted, until ``budget`` characters are spent."""
    made: dict[tuple[int, int], str] = {}
    left = budget
    source: Iterator[tuple[int, int]] = iter(wanted)
    # Pillow lets go of the interpreter while it decodes and scales.
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
        while left > 0 and (block := list(islice(source, _AT_ONCE))):
            for key, text in zip(block, threads.map(lambda one: make(*one), block), strict=True):
                left -= len(text)
                if text and left >= 0:
                    made[key] = text
    return made
