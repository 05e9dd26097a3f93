"""Rows to choose from: a feature store, or Parquet files, read in parts."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import itertools
import os
import shlex
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch

from saln.curation.columns import (
    InputColumns,
    feature_rows,
    holds_names,
    import_pyarrow,
    label_column,
)
from saln.curation.parquet import RowGroups
from saln.data.arguments import as_path, first_nonfinite
from saln.data.dataset_registry import DATASETS
from saln.data.folders import holds_classes
from saln.errors import DataError, InputError
from saln.features.store import FeatureStore
from saln.loading.mmap_rows import MmapRows
from saln.messages import shown
from saln.randomness import derive_generator


class Part(NamedTuple):
    """Some rows."""

    # floating, (m, d); None where only the number of rows is known
    features: npt.NDArray[Any] | None
    # int64, (m,), of named classes their numbers; None where there are none
    labels: npt.NDArray[np.int64] | None
    # A ``pyarrow.Table`` of m rows: what the output keeps of the input, ``id``, and ``label`` where
    # there are labels
    columns: Any


class Source(Protocol):
    """What ``saln select`` chooses from; sent to other processes by its path."""

    path: Path  # Where it is
    columns: Sequence[str]  # The names of the input's own columns, which the output has first

    def __len__(self) -> int:
        """Rows."""

    def identity(self) -> dict[str, Any]:
        """What must be the same for a selection to go on."""

    def order(self, start: int, stop: int, seed: int) -> npt.NDArray[np.int64]:
        """Which rows a partition has, and in which random order."""

    def read(self, rows: npt.NDArray[np.int64]) -> Part:
        """Rows, in the order asked for; DataError for one that is no row of features."""

    def labels(self) -> npt.NDArray[np.int64] | None:
        """All labels, int64 (n,), of named classes their numbers."""

    def check_unchanged(self) -> None:
        """Raises DataError for an input that was written to since it was opened."""

    def ids(self, rows: Sequence[int]) -> list[Any] | None:
        """What the input itself calls some rows; None where it only counts them."""
        return None

    @property
    def class_names(self) -> list[str] | None:
        """The classes' names in the order of their numbers; None where labels are numbers."""


class StoreSource(Source):
    """A finished feature store's rows; the columns are ``id``, the row's number, and ``label``."""

    class_names: list[str] | None = None
    columns: Sequence[str] = ("id", "label")

    def __init__(self, path: Path) -> None:
        self.path = path
        self.store = FeatureStore.open(path)
        self._rows = MmapRows(self.store.features)  # stays out of this process's memory

    def __reduce__(self) -> tuple[Any, ...]:
        return StoreSource, (self.path,)  # each process maps the file itself

    def __len__(self) -> int:
        """Rows to choose from: what could not be read is not among them."""
        return len(self.store) - len(self.store.skipped)

    def identity(self) -> dict[str, Any]:
        """The manifest's: its checksums are of every byte, compared when it was opened."""
        return self.store.manifest

    def order(self, start: int, stop: int, seed: int) -> npt.NDArray[np.int64]:
        """From everywhere: stores are often sorted by class, and any row is quick to read."""
        rows = shuffled_rows(len(self), seed)[start:stop]
        readable = self.store.readable  # the order is of these, and not of all rows
        return rows if readable is None else readable[rows]

    def read(self, rows: npt.NDArray[np.int64]) -> Part:
        """See :class:`Source`."""
        arrow, _ = import_pyarrow()
        labels = np.array(self.store.labels[rows])
        columns = arrow.table({"id": rows, "label": labels})
        return Part(self._rows[torch.from_numpy(rows)].numpy(), labels, columns)

    def labels(self) -> npt.NDArray[np.int64]:
        """See :class:`Source`; -1 of rows that could not be read."""
        return np.array(self.store.labels)

    def check_unchanged(self) -> None:
        """See :class:`Source`; by the checksums again, where its files have changed."""
        if FeatureStore.open(self.path).manifest != self.store.manifest:
            raise DataError(
                f"the feature store {self.path} was changed while it was read; run the same "
                "command again"
            )


class LabelColumn:
    """The labels of Parquet: whole numbers, or names that count as their place among all of them.

    All names, in order, are read from the column where ``class_names`` does not give them.
    """

    def __init__(self, groups: RowGroups, name: str, class_names: list[str] | None) -> None:
        self._groups = groups
        self._name = name
        self._named = holds_names(groups.schema.field(name).type)
        self._class_names = class_names  # found once, in the first process

    @property
    def class_names(self) -> list[str] | None:
        """All names in order; None where labels are numbers. Reads all labels when first asked."""
        if self._named and self._class_names is None:
            unique = importlib.import_module("pyarrow.compute").unique
            names = {name for part in self._parts() for name in unique(part).to_pylist()}
            self._class_names = sorted(names)
        return self._class_names

    def numbers(self, labels: Any) -> npt.NDArray[np.int64]:
        """Labels of some rows, a ``pyarrow.Array``, as int64."""
        if self._named:
            classes = import_pyarrow()[0].array(self.class_names)
            labels = importlib.import_module("pyarrow.compute").index_in(labels, value_set=classes)
        numbers: npt.NDArray[Any] = labels.to_numpy(zero_copy_only=False)
        return numbers.astype(np.int64)

    def all_numbers(self) -> npt.NDArray[np.int64]:
        """The labels of all rows, int64 (n,)."""
        # Two passes where names are numbered: which there are is known only at the end of one.
        return np.concatenate([self.numbers(part) for part in self._parts()])

    def column(self, table: Any, start: int) -> Any:
        """The labels of a table whose first row is ``start``: int64 or strings."""
        bad = functools.partial(bad_row, self._groups.path, start)
        return label_column(table[self._name], self._name, bad)

    def _parts(self) -> Iterator[Any]:
        for number, start in enumerate(self._groups.starts[:-1]):
            yield self.column(self._groups.read(number, [self._name]), start)


class ParquetSource(Source):
    """The rows of a Parquet file, or of a folder's, in the order of the files' names.

    A row group is read as a whole, so row groups bound the memory. ``width``, the numbers of a
    row of features, and ``class_names``, all in order, are given where they are known already.
    Raises InputError for no such file, column or type, or a column whose name the output needs,
    DataError for a broken file, or files with different columns.
    """

    def __init__(
        self,
        path: Path,
        asked: InputColumns,
        width: int | None = None,
        class_names: list[str] | None = None,
    ) -> None:
        self.path = path
        self.groups = RowGroups(path)
        if len(self) == 0:
            raise InputError(f"{path} holds no rows; give files that do")
        asked.check(path, self.groups.schema)
        self.columns: Sequence[str] = list(self.groups.schema.names)
        self._asked = asked
        self._labels: LabelColumn | None = None
        if asked.labels is not None:
            self._labels = LabelColumn(self.groups, asked.labels, class_names)
        self._width = width
        if width is None:
            # The first row says what every other must have.
            self._width = self._read(0, 1)[0].shape[1]

    def __reduce__(self) -> tuple[Any, ...]:
        # Workers get the names of the classes, and need not read all labels to find them.
        return ParquetSource, (self.path, self._asked, self._width, self.class_names)

    def __len__(self) -> int:
        return len(self.groups)

    def identity(self) -> dict[str, Any]:
        """Names, sizes and checksums of the files, and which columns are asked for."""
        columns = list(dataclasses.astuple(self._asked))
        return {"files": self.groups.checksums(), "columns": columns}

    def order(self, start: int, stop: int, seed: int) -> npt.NDArray[np.int64]:
        """Rows that lie together: reading single rows would read whole row groups."""
        generator = derive_generator(seed, "order", start)
        return start + torch.randperm(stop - start, generator=generator).numpy()

    def read(self, rows: npt.NDArray[np.int64]) -> Part:
        """See :class:`Source`; reads all that lies between the first and the last."""
        features, labels, columns = self._read(int(rows.min()), int(rows.max()) + 1)
        places = rows - rows.min()  # a partition's rows lie together, so little is read in vain
        labels = None if labels is None else labels[places]
        return Part(features[places], labels, columns.take(places))

    def _read(
        self, start: int, stop: int
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64] | None, Any]:
        arrow, _ = import_pyarrow()
        starts, parts, at = self.groups.starts, [], start
        while at < stop:
            number = bisect_right(starts, at) - 1  # the row group that holds this row
            first, last = starts[number], min(stop, starts[number + 1])
            parts.append(self.groups.read(number).slice(at - first, last - at))
            at = last
        # Row groups may hold different dictionaries for the same names.
        table = arrow.concat_tables(parts).unify_dictionaries()
        name = self._asked.features
        bad = functools.partial(bad_row, self.path, start)
        features = feature_rows(table[name], name, self._width, bad)
        if "id" not in self.columns:
            # Every row of the output can be traced, also where nothing was asked for.
            numbers = arrow.array(np.arange(start, stop))
            table = table.append_column("id", table[self._asked.id] if self._asked.id else numbers)
        if self._labels is None:
            return features, None, table
        labels = self._labels.column(table, start)
        if "label" not in self.columns:
            table = table.append_column("label", labels)
        return features, self._labels.numbers(labels), table

    @property
    def class_names(self) -> list[str] | None:
        """See :class:`Source`; found by reading all labels once."""
        return None if self._labels is None else self._labels.class_names

    def labels(self) -> npt.NDArray[np.int64] | None:
        """See :class:`Source`."""
        return None if self._labels is None else self._labels.all_numbers()

    def check_unchanged(self) -> None:
        """See :class:`Source`."""
        self.groups.check_unchanged()

    def ids(self, rows: Sequence[int]) -> list[Any] | None:
        """See :class:`Source`."""
        name = self._asked.id or ("id" if "id" in self.columns else None)
        if name is None:
            return None
        starts, found = self.groups.starts, {}
        # Each row group is read once, whatever the order of the rows.
        for number, group in itertools.groupby(sorted(rows), lambda row: bisect_right(starts, row)):
            column = self.groups.read(number - 1, [name])[name]
            found.update({row: column[row - starts[number - 1]].as_py() for row in group})
        return [found[row] for row in rows]


def bad_row(path: Path, start: int, row: int, said: str) -> DataError:
    """The error for a row that cannot be chosen from, counted from ``start``."""
    return DataError(f"row {start + row:,} of {path}: {said}; repair that row or leave it out")


def check_finite(path: Path, rows: npt.NDArray[np.int64], features: npt.NDArray[Any]) -> None:
    """Raises DataError for features that are not finite; names the first row."""
    row = first_nonfinite(features)
    if row is not None:
        raise bad_row(path, 0, int(rows[row]), "its features are NaN or infinite")


@functools.lru_cache(maxsize=1)  # every partition asks for the same order
def shuffled_rows(length: int, seed: int) -> npt.NDArray[np.int64]:
    """All rows, in the random order in which partitions take them."""
    order: npt.NDArray[np.int64] = torch.randperm(
        length, generator=derive_generator(seed, "order")
    ).numpy()
    return order


def open_source(path: str | os.PathLike[str], columns: InputColumns | None = None) -> Source:
    """A feature store where ``path`` is a folder with one, else Parquet with such columns.

    Raises InputError where nothing is there or columns do not fit, DataError for what is
    broken.
    """
    given = str(path)
    path = as_path(path, "source").absolute()
    if not os.path.exists(path):  # noqa: PTH110 (False of names that no system allows, too)
        if given in DATASETS:
            raise InputError(
                f"{shown(given)} is a data set, and a selection reads features; make them with "
                f"'saln features --dataset {shlex.quote(given)}', and give the folder that it names"
            )
        raise InputError(
            f"{str(path)[:300]!r} does not exist; give the folder of a feature store, a Parquet "
            "file, or a folder of Parquet files"
        )
    # A selection that was written into a store's folder makes no Parquet of it.
    of_store = (path / name for name in ("features.npy", "labels.npy"))
    if path.is_dir() and (any(map(Path.exists, of_store)) or not any(path.glob("*.parquet"))):
        if holds_classes(path) and not (path / "manifest.json").exists():
            raise DataError(
                f"{path} holds no feature store but pictures; make one with 'saln features "
                f"--dataset {shlex.quote(f'folder:{given}')}', and give the folder that it names"
            )
        return StoreSource(path)
    return ParquetSource(path, columns or InputColumns())
