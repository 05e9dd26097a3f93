"""Rows of features, read in blocks: arrays, tensors, stores, with rows left out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from saln.data.arguments import as_array, check_finite
from saln.errors import InputError
from saln.features.store import FeatureStore

# Entries up to which rows are read as float64, and those of a block: a block of 32 MiB or more
# would be given back to the system each time, and the next one's pages be made again.
WIDE_ENTRIES = 2**22
BLOCK_ENTRIES = 2**20
Places = npt.NDArray[np.int64]


class Joined:
    """Two arrays of rows, one behind the other, without a copy of both."""

    def __init__(self, first: Any, second: Any) -> None:
        self.parts = first, second
        self.shape = (len(first) + len(second), int(first.shape[1]))
        self.dtype = np.result_type(first.dtype, second.dtype)
        self.ndim, self.size = 2, self.shape[0] * self.shape[1]

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, which: slice | Places) -> npt.NDArray[Any]:
        border = len(self.parts[0])
        if isinstance(which, slice):
            which = np.arange(*which.indices(len(self)))
        found = np.empty((len(which), self.shape[1]), dtype=self.dtype)
        for part, inside, moved in (
            (self.parts[0], which < border, 0), (self.parts[1], which >= border, border)
        ):  # fmt: skip
            if inside.any():
                found[inside] = part[which[inside] - moved]
        return found


class FeatureBlocks:
    """Features of the examples that have some, numbered from 0.

    Args:
        features: A feature store, or numbers (n, d): an array, memory-mapped or not, a tensor,
            a list of rows.

    Attributes:
        kept: int64, (m,): which rows of ``features`` these are; None for all.

    Raises:
        InputError: Something else, or no row.
    """

    def __init__(self, features: Any) -> None:
        self.kept: Places | None = None
        if isinstance(features, FeatureStore):
            self.kept = features.readable
            features = features.features
        in_parts = hasattr(features, "ndim") and not hasattr(features, "to_numpy")
        if not in_parts or isinstance(features, torch.Tensor):
            features = as_array(features, "features")
        if features.ndim != 2 or not features.size or features.dtype.kind not in "fiub":
            raise InputError(
                f"features are {features.dtype} {tuple(features.shape)}; give numbers, (n, d)"
            )
        self._read(features)

    def _read(self, features: Any) -> None:
        self.features = features
        self.given = len(features)
        self.n = self.given if self.kept is None else len(self.kept)
        self.d = int(features.shape[1])
        wide = self.n * self.d <= WIDE_ENTRIES
        self.dtype: type[np.floating[Any]] = np.float64 if wide else np.float32
        self.block_rows = max(1, BLOCK_ENTRIES // self.d)

    def followed_by(self, more: FeatureBlocks) -> FeatureBlocks:
        """These rows and then those of ``more``.

        Raises:
            InputError: Another width.
        """
        if self.d != more.d:
            raise InputError(
                f"the earlier examples have {self.d} features and the new ones {more.d}; give "
                "features of the same backbone"
            )
        found = FeatureBlocks.__new__(FeatureBlocks)
        found.kept = None
        if self.kept is not None or more.kept is not None:
            parts = ((self, 0), (more, self.given))
            found.kept = np.concatenate(
                [start + (np.arange(p.n) if p.kept is None else p.kept) for p, start in parts]
            )
        found._read(Joined(self.features, more.features))
        return found

    def take(self, which: slice | Places) -> Tensor:
        """Some rows, float64 where there are few, else float32."""
        if isinstance(which, np.ndarray) and len(which):
            first, last = int(which[0]), int(which[-1])
            if last - first == len(which) - 1 and (np.diff(which) == 1).all():
                which = slice(first, last + 1)
        source = which if self.kept is None else self.kept[which]
        found = self.features[source]
        if found.dtype == np.float16:  # which torch widens many times as fast as NumPy
            return torch.from_numpy(np.array(found)).to(getattr(torch, self.dtype.__name__))
        return torch.from_numpy(np.ascontiguousarray(found, dtype=self.dtype))

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """All rows.

        Raises:
            InputError: A row is not finite; the message names it.
        """
        for start in range(0, self.n, self.block_rows):
            part = slice(start, min(start + self.block_rows, self.n))
            rows = self.take(part)
            numbers = range(part.start, part.stop) if self.kept is None else self.kept[part]
            check_finite(rows, "features", rows=numbers)
            yield part, rows


def batches(
    singles: Places, groups: list[Places], size: int
) -> Iterator[tuple[Places, list[slice]]]:
    """Examples in blocks, each group whole in one of them.

    Yields:
        Which examples, and where in them each group is.
    """
    for start in range(0, len(singles), size):
        yield singles[start : start + size], []
    waiting: list[Places] = []
    for number, group in enumerate(groups):
        waiting.append(group)
        if sum(map(len, waiting)) >= size or number == len(groups) - 1:
            ends = np.cumsum([0, *map(len, waiting)]).tolist()
            yield np.concatenate(waiting), [slice(*ends[i : i + 2]) for i in range(len(waiting))]
            waiting = []
