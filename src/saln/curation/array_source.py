"""Rows to choose from that are no file of ours: arrays, memory-mapped or not, or their number."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import xxhash

from saln.curation.columns import import_pyarrow
from saln.curation.feature_sources import Part, shuffled_rows
from saln.data.arguments import as_labels, as_whole
from saln.errors import DataError
from saln.loading.candidate_fields import as_rows
from saln.loading.mmap_rows import MmapRows


class ArraySource:
    """Features and labels as Python has them; see :class:`~saln.curation.feature_sources.Source`.

    Args:
        features: Numbers (N, d) as an array, memory-mapped or not, a tensor, a list of rows or a
            data frame; or N alone, for selectors that need none.
        labels: (N,): classes, by number or name; None where there are none.

    Raises:
        InputError: They are of another kind or length.
    """

    path = Path("features")  # for messages: there is no file

    def __init__(self, features: Any, labels: Any = None) -> None:
        self._rows = None
        if hasattr(features, "__len__"):
            self._rows = MmapRows(as_rows(features))
        self._length = as_whole(features, "source", 1) if self._rows is None else len(self._rows)
        self._labels: npt.NDArray[np.int64] | None = None
        self.class_names: list[str] | None = None
        if labels is not None:
            self._labels, names = as_labels(labels, (len(self),))
            self.class_names = None if names is None else list(names)
        # What the output has of the input: there are no other columns to keep.
        self.columns: Sequence[str] = ("id",) if labels is None else ("id", "label")
        self._identity = self.identity()  # of now: what is in memory may be written to later

    def __len__(self) -> int:
        return self._length

    def identity(self) -> dict[str, Any]:
        """The number of rows, and checksums of all that decides."""
        features, labels = xxhash.xxh3_128(), xxhash.xxh3_128()
        for _, block in () if self._rows is None else self._rows.blocks():
            features.update(np.ascontiguousarray(block).data)
        if self._labels is not None:
            labels.update(self._labels.data)
        digests = {"features": features.hexdigest(), "labels": labels.hexdigest()}
        return {"rows": len(self), **digests, "class_names": self.class_names}

    def order(self, start: int, stop: int, seed: int) -> npt.NDArray[np.int64]:
        """From everywhere, as in a store."""
        return shuffled_rows(len(self), seed)[start:stop]

    def read(self, rows: npt.NDArray[np.int64]) -> Part:
        """Rows, in the order asked for."""
        arrow, _ = import_pyarrow()
        features = None if self._rows is None else self._rows[torch.from_numpy(rows)].numpy()
        columns: dict[str, Any] = {"id": rows}
        labels = None if self._labels is None else self._labels[rows]
        if labels is not None:
            names = self.class_names
            columns["label"] = labels if names is None else [names[label] for label in labels]
        return Part(features, labels, arrow.table(columns))

    def labels(self) -> npt.NDArray[np.int64] | None:
        """All labels, int64 (n,), of named classes their numbers."""
        return self._labels

    def check_unchanged(self) -> None:
        """Refuses features or labels that were written to since this was made.

        Raises:
            DataError: They were.
        """
        if self.identity() != self._identity:
            raise DataError("features or labels changed while they were read; choose again")

    def ids(self, rows: Any) -> None:
        """None: rows are only counted."""
