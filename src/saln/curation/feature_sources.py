"""Rows to choose from: a feature store, or Parquet files, read in parts."""

from __future__ import annotations

import functools
import importlib
import itertools
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch

from saln.curation.columns import (
    check_features,
    check_labels,
    features_of,
    import_pyarrow,
    label_column,
    label_numbers,
    named,
)
from saln.curation.parquet import RowGroups
from saln.data.arguments import as_path
from saln.errors import DataError, InputError
from saln.features.store import FeatureStore
from saln.loading.mmap_rows import MmapRows
from saln.messages import parameter
from saln.randomness import derive_generator


class Part(NamedTuple):
    """Some rows.

    Attributes:
        features: floating, (m, d); None where only the number of rows is known.
        labels: int64, (m,), of named classes their numbers; None where there are none.
        columns: A ``pyarrow.Table`` of m rows: what the output keeps of the input, ``id``, and
            ``label`` where there are labels.
    """

    features: npt.NDArray[Any] | None
    labels: npt.NDArray[np.int64] | None
    columns: Any


class Source(Protocol):
    """What ``saln select`` chooses from; sent to other processes by its path."""

    @property
    def path(self) -> Path:
        """Where it is."""

    def __len__(self) -> int:
        """Rows."""

    def identity(self) -> dict[str, Any]:
        """What must be the same for a selection to go on."""

    def order(self, start: int, stop: int, seed: int) -> npt.NDArray[np.int64]:
        """Which rows a partition has, and in which random order."""

    def read(self, rows: npt.NDArray[np.int64]) -> Part:
        """Rows, in the order asked for.

        Raises:
            DataError: A row that cannot be read or is no row of features.
        """

    def labels(self) -> npt.NDArray[np.int64] | None:
        """All labels, int64 (n,), of named classes their numbers."""

    def check_unchanged(self) -> None:
        """Refuses an input that was written to since it was opened.

        Raises:
            DataError: It was.
        """

    def ids(self, rows: Sequence[int]) -> list[Any] | None:
        """What the input itself calls some rows; None where it only counts them."""

    @property
    def class_names(self) -> list[str] | None:
        """The classes' names in the order of their numbers; None where labels are numbers."""

    @property
    def columns(self) -> Sequence[str]:
        """The names of the input's own columns, which the output has first."""


class StoreSource:
    """A feature store's rows; the columns are ``id``, the row's number, and ``label``.

    Args:
        path: The store's folder.

    Raises:
        DataError: It is no finished store.
    """

    class_names: list[str] | None = None
    columns: Sequence[str] = ("id", "label")

    def __init__(self, path: Path) -> None:
        self.path = path
        self.store = FeatureStore.open(path)
        self._rows = MmapRows(self.store.features)

    def __reduce__(self) -> tuple[Any, ...]:
        return StoreSource, (self.path,)

    def __len__(self) -> int:
        """Rows to choose from: what could not be read is not among them."""
        return len(self.store) - len(self.store.skipped)

    def identity(self) -> dict[str, Any]:
        """The manifest's: its checksums are of every byte, compared when it was opened."""
        return self.store.manifest

    def order(self, start: int, stop: int, seed: int) -> npt.NDArray[np.int64]:
        """From everywhere: stores are often sorted by class, and any row is quick to read."""
        rows = shuffled_rows(len(self), seed)[start:stop]
        readable = self.store.readable
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
        """See :class:`Source`; by the checksums again, where its files have changed.

        Raises:
            DataError: It is another store, or damaged.
        """
        if FeatureStore.open(self.path).manifest != self.store.manifest:
            raise DataError(
                f"the feature store {self.path} was changed while it was read; run the same "
                "command again"
            )

    def ids(self, rows: Sequence[int]) -> list[Any] | None:
        """See :class:`Source`."""
        return None


class ParquetSource:
    """The rows of a Parquet file, or of a folder's, in the order of the files' names.

    A row group is read as a whole, so row groups bound the memory.

    Args:
        path: A file or a folder with ``*.parquet``.
        features_column: Lists of numbers, all of one length.
        labels_column: Whole numbers, or the classes' names; None where there are none.
        id_column: Kept as ``id``. When None, that is the input's own column of this name, or
            the number of the row where it has none.
        known: The numbers in a row of features and all names of classes in order, where a
            source of the same files has found them already.

    Raises:
        InputError: No such file, column or type; a column whose name the output needs.
        DataError: A file is broken, or the files have different columns.
    """

    def __init__(
        self,
        path: Path,
        features_column: str = "features",
        labels_column: str | None = None,
        id_column: str | None = None,
        known: tuple[int | None, list[str] | None] = (None, None),
    ) -> None:
        self.path = path
        self._asked = (features_column, labels_column, id_column)
        self._groups = RowGroups(path)
        self._width, self._names = known
        schema = self._groups.schema
        self.columns: Sequence[str] = list(schema.names)
        names = ("features_column", "labels_column", "id_column")
        for option, name in zip(names, self._asked, strict=True):
            if not isinstance(name, str) and (name is not None or option == names[0]):
                raise InputError(
                    f"{parameter(option)} {name!r} is not allowed; give the name of a column"
                )
            if name is not None and name not in self.columns:
                raise InputError(
                    f"{parameter(option, name)}: {path} has no such column; choose among "
                    f"{', '.join(self.columns)}"
                )
        if len(self) == 0:
            raise InputError(f"{path} holds no rows; give files that do")
        check_features(features_column, schema.field(features_column).type)
        if labels_column is not None:
            check_labels(labels_column, schema.field(labels_column).type)
        # What is added under a name that is there would be there twice, or not at all.
        for added, asked, option in (
            ("id", id_column, names[2]),
            ("label", labels_column, names[1]),
        ):
            if asked not in (None, added) and added in self.columns:
                raise InputError(
                    f"{path} has a column named {added}, which {parameter(option, asked)} would "
                    f"write too; rename it, or give {parameter(option, added)}"
                )
        if self._width is None:
            self._width = self._read(0, 1).features.shape[1]

    def __reduce__(self) -> tuple[Any, ...]:
        return ParquetSource, (self.path, *self._asked, (self._width, self._names))

    def __len__(self) -> int:
        return len(self._groups)

    @property
    def has_checksums(self) -> bool:
        """Whether its pages carry checksums, as those of the first row group tell."""
        return self._groups.has_checksums

    def identity(self) -> dict[str, Any]:
        """Names, sizes and checksums of the files, and which columns are asked for."""
        return {"files": self._groups.checksums(), "columns": list(self._asked)}

    def order(self, start: int, stop: int, seed: int) -> npt.NDArray[np.int64]:
        """Rows that lie together: reading single rows would read whole row groups."""
        generator = derive_generator(seed, "order", start)
        return start + torch.randperm(stop - start, generator=generator).numpy()

    def read(self, rows: npt.NDArray[np.int64]) -> Part:
        """See :class:`Source`; reads all that lies between the first and the last."""
        part = self._read(int(rows.min()), int(rows.max()) + 1)
        places = rows - rows.min()
        labels = None if part.labels is None else part.labels[places]
        return Part(part.features[places], labels, part.columns.take(places))

    def _read(self, start: int, stop: int) -> Part:
        arrow, _ = import_pyarrow()
        starts, parts, at = self._groups.starts, [], start
        while at < stop:
            number = bisect_right(starts, at) - 1
            first, last = starts[number], min(stop, starts[number + 1])
            parts.append(self._groups.read(number).slice(at - first, last - at))
            at = last
        table = arrow.concat_tables(parts).unify_dictionaries()
        features_column, labels_column, id_column = self._asked
        bad = functools.partial(self._bad, start)
        features = features_of(table[features_column], features_column, self._width, bad)
        labels = None
        if "id" not in self.columns:
            numbers = arrow.array(np.arange(start, stop))
            table = table.append_column("id", table[id_column] if id_column else numbers)
        if labels_column is not None:
            given = label_column(table[labels_column], labels_column, bad)
            labels = label_numbers(given, self._classes)
            if "label" not in self.columns:
                table = table.append_column("label", given)
        return Part(features, labels, table)

    @property
    def _classes(self) -> Any:
        return None if self.class_names is None else import_pyarrow()[0].array(self.class_names)

    @property
    def class_names(self) -> list[str] | None:
        """See :class:`Source`; found by reading all labels once."""
        name = self._asked[1]
        if name is None or not named(self._groups.schema.field(name).type):
            return None
        if self._names is None:
            unique = importlib.import_module("pyarrow.compute").unique
            self._names = sorted({name for part in self._labels(name) for name in
                                  unique(part).to_pylist()})  # fmt: skip
        return self._names

    def _labels(self, name: str) -> Any:
        """The labels of each row group."""
        for number, start in enumerate(self._groups.starts[:-1]):
            column = self._groups.read(number, [name])[name]
            yield label_column(column, name, functools.partial(self._bad, start))

    def _bad(self, start: int, row: int, said: str) -> DataError:
        return bad_row(self.path, start + row, said)

    def check_unchanged(self) -> None:
        """See :class:`Source`."""
        self._groups.check_unchanged()

    def ids(self, rows: Sequence[int]) -> list[Any] | None:
        """See :class:`Source`."""
        name = self._asked[2] or ("id" if "id" in self.columns else None)
        if name is None:
            return None
        starts, found = self._groups.starts, {}
        for number, group in itertools.groupby(sorted(rows), lambda row: bisect_right(starts, row)):
            column = self._groups.read(number - 1, [name])[name]
            found.update({row: column[row - starts[number - 1]].as_py() for row in group})
        return [found[row] for row in rows]

    def labels(self) -> npt.NDArray[np.int64] | None:
        """See :class:`Source`."""
        name = self._asked[1]
        if name is None:
            return None
        return np.concatenate([label_numbers(part, self._classes) for part in self._labels(name)])


def bad_row(path: Path, row: int, said: str) -> DataError:
    """The error for a row that cannot be chosen from."""
    return DataError(f"row {row:,} of {path}: {said}; repair that row or leave it out")


def check_finite(path: Path, rows: npt.NDArray[np.int64], features: npt.NDArray[Any]) -> None:
    """Refuses features that no selector can look at.

    Raises:
        DataError: Names the first row.
    """
    finite = np.isfinite(features).all(axis=1)
    if not finite.all():
        raise bad_row(path, int(rows[~finite].min()), "its features are NaN or infinite")


@functools.lru_cache(maxsize=1)
def shuffled_rows(length: int, seed: int) -> npt.NDArray[np.int64]:
    """All rows, in the random order in which partitions take them."""
    order: npt.NDArray[np.int64] = torch.randperm(
        length, generator=derive_generator(seed, "order")
    ).numpy()
    return order


def open_source(
    path: str | Path,
    *,
    features_column: str = "features",
    labels_column: str | None = None,
    id_column: str | None = None,
) -> StoreSource | ParquetSource:
    """A feature store where ``path`` is a folder with a manifest, else Parquet.

    Raises:
        InputError: There is nothing there, or a column or type is not allowed.
        DataError: What is there is broken.
    """
    path = as_path(path, "source").absolute()
    try:
        there = path.exists()
    except OSError:  # a name that is too long, a folder that may not be looked into
        there = False
    if not there:
        raise InputError(
            f"{str(path)[:300]!r} does not exist; give the folder of a feature store, a Parquet "
            "file, or a folder of Parquet files"
        )
    # A selection that was written into a store's folder makes no Parquet of it.
    of_store = (path / name for name in ("features.npy", "labels.npy"))
    if path.is_dir() and (any(map(Path.exists, of_store)) or not any(path.glob("*.parquet"))):
        return StoreSource(path)
    return ParquetSource(path, features_column, labels_column, id_column)
