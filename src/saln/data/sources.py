"""Where images come from: arrays, files, Hugging Face tables.

A source knows how to open one image by its row and how to name it when it cannot.
Opening is lazy: an example that is never asked for is never read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from saln.errors import DataError

__all__ = ["ArrayImages", "FileImages", "ImageSource", "TableImages"]


class ImageSource(Protocol):
    """Images by row."""

    def __len__(self) -> int:
        """The number of images."""

    def load(self, row: int) -> Image.Image:
        """Opens one image as RGB.

        Raises:
            DataError: The image cannot be read; the message names it.
        """

    def name_of(self, row: int) -> str:
        """What a person finds the image by."""

    def fingerprint(self) -> str:
        """A hash that changes when the images' names, sizes or order change."""


@dataclass(frozen=True)
class ArrayImages:
    """Images held in memory.

    Args:
        pixels: uint8, (n, height, width) or (n, height, width, 3).
    """

    pixels: npt.NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.pixels)

    def load(self, row: int) -> Image.Image:
        """Opens one image as RGB."""
        return Image.fromarray(self.pixels[row]).convert("RGB")

    def name_of(self, row: int) -> str:
        """The row: an image in memory has no other name."""
        return f"row {row}"

    def fingerprint(self) -> str:
        """A hash of all pixels (they are in memory anyway)."""
        digest = hashlib.blake2b(str(self.pixels.shape).encode(), digest_size=16)
        digest.update(np.ascontiguousarray(self.pixels).data)
        return digest.hexdigest()


@dataclass(frozen=True)
class FileImages:
    """Images as files, in the given order."""

    root: Path
    paths: Sequence[Path]

    def __len__(self) -> int:
        return len(self.paths)

    def load(self, row: int) -> Image.Image:
        """Opens one image as RGB; names the file when it cannot be read."""
        path = self.paths[row]
        try:
            with Image.open(path) as image:
                return image.convert("RGB")
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise DataError(
                f"{path} cannot be read as an image ({error}); "
                "repair the file or remove it from the data set"
            ) from error

    def name_of(self, row: int) -> str:
        """The file's path below the root."""
        return self.paths[row].relative_to(self.root).as_posix()

    def fingerprint(self) -> str:
        """A hash of names, sizes and order; the files are not read."""
        digest = hashlib.blake2b(digest_size=16)
        for path in self.paths:
            size = path.stat().st_size if path.exists() else -1
            digest.update(f"{path.relative_to(self.root).as_posix()}\0{size}\n".encode())
        return digest.hexdigest()


@dataclass(frozen=True)
class TableImages:
    """Images in a column of a Hugging Face data set (`datasets`)."""

    table: Any
    column: str
    name: str

    def __len__(self) -> int:
        return len(self.table)

    def load(self, row: int) -> Image.Image:
        """Decodes one image as RGB; names the row when it cannot be read."""
        try:
            image = self.table[row][self.column]
            rgb: Image.Image = image.convert("RGB")
        except (OSError, ValueError, SyntaxError, AttributeError) as error:
            raise DataError(
                f"{self.name}, row {row}: column {self.column!r} cannot be read as an image "
                f"({error}); repair the row or remove it from the data set"
            ) from error
        return rgb

    def name_of(self, row: int) -> str:
        """The row in the table."""
        return f"row {row}"

    def fingerprint(self) -> str:
        """A hash of the encoded images' sizes, in order; nothing is decoded."""
        import pyarrow.compute as pc

        digest = hashlib.blake2b(digest_size=16)
        for chunk in self.table.data.column(self.column).chunks:
            sizes = pc.binary_length(pc.struct_field(chunk, "bytes")).fill_null(-1)
            digest.update(np.ascontiguousarray(sizes.to_numpy(zero_copy_only=False)).data)
        return digest.hexdigest()
