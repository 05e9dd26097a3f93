"""Rows of an array that may be far larger than memory."""

from __future__ import annotations

import mmap
import os
import weakref
from collections.abc import Iterator
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

# A smaller file may be resident as a whole; touching its pages is faster than reading.
_RESIDENT = 256 * 2**20
# Rows are gone through in blocks of about this size.
_BLOCK = 16 * 2**20


class MmapRows:
    """Gives rows by index, and keeps a memory-mapped array out of this process's memory.

    Touching a mapped row maps what lies around it too, up to some MiB where the system
    caches files in large pages, and all of that counts as this process's. So the rows
    of a large mapped file are read from the file, through the system's own cache.
    """

    def __init__(self, array: npt.NDArray[Any]) -> None:
        self.array = array
        # Held open: the file may be renamed or removed while its rows are read.
        self._file: int | None = None
        if _is_file(array) and array.nbytes > _RESIDENT and hasattr(os, "pread"):
            self._file = os.open(str(array.filename), os.O_RDONLY)
            weakref.finalize(self, os.close, self._file)

    def __len__(self) -> int:
        return len(self.array)

    def __reduce__(self) -> tuple[Any, ...]:
        """Sends a mapped file to another process by its name, not by its content."""
        array = self.array
        if _is_file(array):
            return _map_again, (array.filename, array.dtype, array.offset, array.shape)
        return MmapRows, (array,)

    def __getitem__(self, indices: Tensor) -> Tensor:
        """Copies rows: ``indices`` int64 (m,)."""
        if self._file is None or not isinstance(self.array, np.memmap):
            return torch.from_numpy(np.asarray(self.array[indices.numpy()]))
        size, start = self._row_bytes, self.array.offset
        # pread has no position of its own, so threads and forked workers may share the file.
        file, pread = self._file, os.pread
        content = b"".join([pread(file, size, start + i * size) for i in indices.tolist()])
        return torch.from_numpy(self._decoded(content, len(indices)))

    def blocks(self) -> Iterator[tuple[int, npt.NDArray[Any]]]:
        """All rows, in order, some MiB at a time: the number of the first, and the rows."""
        size = max(1, _BLOCK // max(1, self._row_bytes))
        for start in range(0, len(self), size):
            yield start, self._block(start, min(start + size, len(self)))

    @property
    def _row_bytes(self) -> int:
        return int(np.prod(self.array.shape[1:], dtype=np.int64)) * self.array.dtype.itemsize

    def _block(self, start: int, stop: int) -> npt.NDArray[Any]:
        if self._file is None or not isinstance(self.array, np.memmap):
            return np.asarray(self.array[start:stop])
        size = self._row_bytes
        content = os.pread(self._file, (stop - start) * size, self.array.offset + start * size)
        return self._decoded(content, stop - start)

    def _decoded(self, content: bytes, count: int) -> npt.NDArray[Any]:
        # Into an array of its own: one over the bytes would be read-only, of which torch warns.
        rows = np.empty((count, *self.array.shape[1:]), dtype=self.array.dtype)
        if len(content) != rows.nbytes:
            raise OSError(
                f"{getattr(self.array, 'filename', None)} was cut short while it was read"
            )
        rows.view(np.uint8).reshape(-1)[:] = np.frombuffer(content, dtype=np.uint8)
        return rows


def _is_file(array: npt.NDArray[Any]) -> TypeGuard[np.memmap[Any, Any]]:
    """Whether it is a whole mapped file, not a part of one, row after row."""
    return (
        isinstance(array, np.memmap)
        and isinstance(array.base, mmap.mmap)
        and array.filename is not None
        and array.flags.c_contiguous
    )


def _map_again(file: Any, dtype: Any, offset: int, shape: tuple[int, ...]) -> MmapRows:
    return MmapRows(np.memmap(file, dtype=dtype, mode="r", offset=offset, shape=shape))
