"""Where images come from: arrays, files, Hugging Face tables.

A source knows how to open one image by its row and how to name it when it cannot.
Opening is lazy: an example that is never asked for is never read.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from saln.data.decoding import array_to_rgb, load_rgb, look_at, read_encoded
from saln.errors import DataError


class ImageSource(Protocol):
    """Images by row."""

    def __len__(self) -> int:
        """The number of images."""

    def load(self, row: int) -> Image.Image:
        """Opens one image, upright, as RGB of 8 bits; the DataError names what cannot be read."""

    def header(self, row: int) -> tuple[int, int]:
        """Width and height as stored, and whether the end is there; DataError names the image."""

    def name_of(self, row: int) -> str:
        """What a person finds the image by."""

    def fingerprint(self) -> str:
        """A hash that changes when the images' names, sizes or order change."""


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror  # the file is named already
    return str(error) or type(error).__name__


@dataclass(frozen=True)
class ArrayImages:
    """Images held in memory.

    Args:
        pixels: uint8, (n, height, width) or (n, height, width, 3); or whatever else
            :func:`~saln.data.decoding.array_to_rgb` takes.
    """

    pixels: npt.NDArray[Any]

    def __len__(self) -> int:
        return len(self.pixels)

    def load(self, row: int) -> Image.Image:
        """Opens one image as RGB."""
        try:
            return array_to_rgb(np.asarray(self.pixels[row]))
        except ValueError as error:
            raise DataError(f"row {row} cannot be read as an image ({error})") from error

    def header(self, row: int) -> tuple[int, int]:
        """Width and height, of the array alone."""
        height, width = self.pixels.shape[1:3]
        return width, height

    def content(self, row: int) -> Any:
        """The bytes of one image's pixels."""
        return np.ascontiguousarray(self.pixels[row]).data

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

    def _error(self, row: int, error: Exception) -> DataError:
        return DataError(
            f"{self.paths[row]} cannot be read as an image ({_reason(error)}); "
            "repair the file or remove it from the data set"
        )

    def load(self, row: int) -> Image.Image:
        """Opens one image as RGB; names the file when it cannot be read."""
        try:
            return load_rgb(Path(self.paths[row]))
        except Exception as error:  # decoders raise many kinds; all mean the same here
            raise self._error(row, error) from error

    def header(self, row: int) -> tuple[int, int]:
        """Width and height by the file's header; names a file without, or one cut short."""
        try:
            return look_at(Path(self.paths[row]))
        except Exception as error:  # as above
            raise self._error(row, error) from error

    def content(self, row: int) -> Any:
        """The file's bytes."""
        return read_encoded(Path(self.paths[row]))

    def name_of(self, row: int) -> str:
        """The file's path below the root."""
        return Path(self.paths[row]).relative_to(self.root).as_posix()

    def fingerprint(self) -> str:
        """A hash of names, sizes and order; the files are not read."""
        digest = hashlib.blake2b(digest_size=16)
        for row, path in enumerate(self.paths):
            # Names on disk are bytes; not all are text.
            digest.update(os.fsencode(self.name_of(row)) + f"\0{_file_size(path)}\n".encode())
        return digest.hexdigest()


def _file_size(path: str | Path) -> int:
    try:
        return Path(path).stat().st_size
    except (OSError, ValueError):
        # Missing is a state as well; whoever opens the file says so.
        return -1


@dataclass(frozen=True)
class TableImages:
    """Images in a column of a Hugging Face data set (`datasets`), as the table holds them.

    Encoded bytes, or mappings with bytes or a path, as the feature ``Image`` stores them;
    paths, which begin at ``folder`` where they are not absolute; or arrays of pixels. The
    package's own decoding is left out: it would let Pillow try formats that start other
    programs, and cut off what is above 8 bits. The ``table`` has no selection of rows; ``name``
    is what a person knows it by.
    """

    table: Any
    column: str
    name: str
    folder: Path = Path()

    def __len__(self) -> int:
        return len(self.table)

    def _scalar(self, row: int) -> Any:
        return self.table.data.column(self.column)[row]

    def _error(self, row: int, error: Exception) -> DataError:
        return DataError(
            f"{self.name}, row {row}: column {self.column!r} cannot be read as an image "
            f"({_reason(error)}); repair the row or remove it from the data set"
        )

    def _source(self, value: Any) -> Any:
        """Of what a cell holds, what :func:`load_rgb` takes."""
        if value is None:
            raise ValueError("it is empty")
        if isinstance(value, dict) and value.get("bytes") is None and value.get("path"):
            value = value["path"]
        return self.folder / value if isinstance(value, str) else value

    def load(self, row: int) -> Image.Image:
        """Decodes one image as RGB; names the row when it cannot be read."""
        try:
            return load_rgb(self._source(self._scalar(row).as_py()))
        except Exception as error:  # decoders raise many kinds; all mean the same here
            raise self._error(row, error) from error

    def header(self, row: int) -> tuple[int, int]:
        """Width and height by the image's header; names a row without, or one cut short."""
        import pyarrow as pa

        try:
            cell = self._scalar(row)
            if not cell.is_valid:
                raise ValueError("it is empty")
            buffer = self._encoded(cell)
            if buffer is not None:
                return look_at(pa.BufferReader(buffer) if buffer.size else b"")
            cell = getattr(cell, "value", cell) if isinstance(cell, pa.ExtensionScalar) else cell
            if isinstance(cell, pa.ListScalar):
                rows = cell[0] if len(cell) in (1, 3, 4) else cell  # channels first
                return len(rows[0]), len(rows)
            return look_at(self._source(cell.as_py()))
        except DataError:
            raise
        except Exception as error:  # as above
            raise self._error(row, error) from error

    def content(self, row: int) -> Any:
        """The bytes of the encoded image, of its file, or of its pixels."""
        cell = self._scalar(row)
        buffer = self._encoded(cell)
        if buffer is not None:
            return buffer
        source = self._source(cell.as_py())
        # A path of its own, or that of a mapping without bytes.
        return read_encoded(source) if isinstance(source, Path) else np.asarray(source).tobytes()

    def _encoded(self, cell: Any) -> Any:
        """A view of a cell's encoded image, where it holds one: a large table stays on the disk."""
        import pyarrow as pa

        # The bytes alone: as_py would copy them, which costs more than a look at them.
        if isinstance(cell, pa.StructScalar) and "bytes" in cell and cell["bytes"].is_valid:
            cell = cell["bytes"]
        if isinstance(cell, pa.BinaryScalar) and not isinstance(cell, pa.StringScalar):
            return cell.as_buffer()
        return None

    def name_of(self, row: int) -> str:
        """The row in the table."""
        return f"row {row}"

    def fingerprint(self) -> str:
        """A hash of the encoded images' sizes, or of their files', in order; none is decoded."""
        digest = hashlib.blake2b(digest_size=16)
        for chunk in self.table.data.column(self.column).chunks:
            self._feed(chunk, digest)
        return digest.hexdigest()

    def _feed(self, chunk: Any, digest: Any) -> None:
        import pyarrow as pa
        import pyarrow.compute as pc

        kind = chunk.type
        if pa.types.is_struct(kind):
            fields = {kind.field(number).name for number in range(kind.num_fields)}
            encoded = pc.struct_field(chunk, "bytes") if "bytes" in fields else None
            if encoded is not None:
                self._feed(encoded, digest)
            if "path" in fields and (encoded is None or encoded.null_count):
                paths = pc.struct_field(chunk, "path")
                self._feed(paths if encoded is None else paths.filter(encoded.is_null()), digest)
        elif pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
            sizes = pc.binary_length(chunk).fill_null(-1)
            digest.update(np.ascontiguousarray(sizes.to_numpy(zero_copy_only=False)).data)
        elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
            for path in chunk.to_pylist():
                size = -1 if path is None else _file_size(self.folder / path)
                digest.update(f"{path and Path(path).name}\0{size}\n".encode(errors="replace"))
        elif not pa.types.is_null(kind):  # pixels, which are all there is
            storage = getattr(chunk, "storage", chunk)
            while pa.types.is_nested(storage.type):
                storage = storage.flatten()
            digest.update(f"{len(chunk)} {kind}\0".encode())
            digest.update(np.ascontiguousarray(storage.to_numpy(zero_copy_only=False)).data)
