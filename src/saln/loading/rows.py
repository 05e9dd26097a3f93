"""Rows of an array that may be far larger than memory."""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

__all__ = ["Rows"]

# Pages of a mapped file that may stay resident in this process, in bytes.
_RESIDENT = 256 * 2**20
_PAGE = 16 * mmap.PAGESIZE  # a fault maps its neighbours too


class Rows:
    """Gives rows by index, and keeps a memory-mapped array from filling the memory.

    The pages of a mapped file count as this process's for as long as they are mapped.
    They are given back after every so many; the system's own cache keeps them.

    Args:
        array: (N, ...); memory-mapped or not.
    """

    def __init__(self, array: npt.NDArray[Any]) -> None:
        self.array = array
        mapped = getattr(array, "_mmap", None)
        self._map = mapped if hasattr(mapped, "madvise") else None
        self._touched = 0
        if self._map is not None:
            self._map.madvise(mmap.MADV_RANDOM)  # reading ahead would read what is dropped

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, indices: Tensor) -> Tensor:
        """Copies rows: ``indices`` int64 (m,)."""
        rows = torch.from_numpy(np.asarray(self.array[indices.numpy()]))
        if self._map is not None:
            self._touched += len(indices) * (rows[0].nbytes + _PAGE)
            if self._touched > _RESIDENT:
                self._map.madvise(mmap.MADV_DONTNEED)
                self._touched = 0
        return rows
