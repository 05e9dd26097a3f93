"""Rows to choose from: a feature store, or Parquet files, read in parts."""

from __future__ import annotations

import functools
import hashlib
import importlib
from bisect import bisect_right
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch

from saln.errors import DataError, InputError, MissingExtraError
from saln.features.store import FeatureStore
from saln.loading.rows import Rows
from saln.randomness import derive_generator

__all__ = ["ParquetSource", "Part", "Source", "StoreSource", "import_pyarrow", "open_source"]


def import_pyarrow() -> tuple[Any, Any]:
    """``pyarrow`` and ``pyarrow.parquet``.

    Raises:
        MissingExtraError: They are not installed.
    """
    try:
        return importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise MissingExtraError(
            "saln select writes Parquet and needs pyarrow, which is not installed; "
            "run: pip install 'saln[select]'"
        ) from error


class Part(NamedTuple):
    """Some rows.

    Attributes:
        features: floating, (m, d).
        labels: int64, (m,); None where there are none.
        columns: A ``pyarrow.Table`` of m rows: what the output keeps of the input.
    """

    features: npt.NDArray[Any]
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
        """All labels, int64 (n,)."""


class StoreSource:
    """A feature store's rows; the columns are ``id``, the row's number, and ``label``.

    Args:
        path: The store's folder.

    Raises:
        DataError: It is no finished store.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.store = FeatureStore.open(path)
        self._rows = Rows(self.store.features)

    def __reduce__(self) -> tuple[Any, ...]:
        return StoreSource, (self.path,)

    def __len__(self) -> int:
        """Rows to choose from: what could not be read is not among them."""
        return len(self.store) - len(self.store.skipped)

    def identity(self) -> dict[str, Any]:
        """The manifest's: its checksums are of every byte."""
        return self.store.manifest

    def order(self, start: int, stop: int, seed: int) -> npt.NDArray[np.int64]:
        """From everywhere: stores are often sorted by class, and any row is quick to read."""
        rows = _shuffled(len(self), seed)[start:stop]
        readable = self.store.readable
        return rows if readable is None else readable[rows]

    def read(self, rows: npt.NDArray[np.int64]) -> Part:
        """See :class:`Source`."""
        arrow, _ = import_pyarrow()
        labels = np.array(self.store.labels[rows])
        columns = arrow.table({"id": rows, "label": labels})
        return Part(self._rows[torch.from_numpy(rows)].numpy(), labels, columns)

    def labels(self) -> npt.NDArray[np.int64]:
        """See :class:`Source`."""
        return np.array(self.store.labels)


class ParquetSource:
    """The rows of a Parquet file, or of a folder's, in the order of the files' names.

    A row group is read as a whole, so row groups bound the memory.

    Args:
        path: A file or a folder with ``*.parquet``.
        features_column: Lists of numbers, all of one length.
        labels_column: Whole numbers; None where there are none.
        id_column: Kept as ``id``; the number of the row when None.

    Raises:
        InputError: No such file, column or type.
        DataError: A file is broken, or the files have different columns.
    """

    def __init__(
        self,
        path: Path,
        features_column: str = "features",
        labels_column: str | None = None,
        id_column: str | None = None,
    ) -> None:
        self.path = path
        self.columns = (features_column, labels_column, id_column)
        _, parquet = import_pyarrow()
        files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
        if not files:
            raise InputError(f"{path} holds no *.parquet file; give a file, or a folder of them")
        self.files: list[Any] = []
        self.starts = [0]  # of each row group, over all files
        self.groups: list[tuple[int, int]] = []
        for number, file in enumerate(files):
            try:
                opened = parquet.ParquetFile(file)
            except FileNotFoundError as error:
                raise InputError(f"{file} does not exist; give a file that does") from error
            except Exception as error:  # pyarrow raises OSError, ArrowInvalid and others
                raise DataError(
                    f"{file} cannot be read as Parquet ({_short(error)}); write it again"
                ) from error
            if self.files and not opened.schema_arrow.equals(self.files[0].schema_arrow):
                raise DataError(
                    f"the columns of {file} are not those of {files[0]}; give files of one kind"
                )
            self.files.append(opened)
            for group in range(opened.num_row_groups):
                self.groups.append((number, group))
                rows = opened.metadata.row_group(group).num_rows
                self.starts.append(self.starts[-1] + rows)
        self.names = files
        self.schema = self.files[0].schema_arrow
        self._check_columns()
        self._cached: tuple[int, Any] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return ParquetSource, (self.path, *self.columns)

    def _check_columns(self) -> None:
        arrow, _ = import_pyarrow()
        features, labels, ids = self.columns
        flags = (("--features-column", features), ("--labels-column", labels))
        for flag, name in (*flags, ("--id-column", ids)):
            if name is not None and name not in self.schema.names:
                raise InputError(
                    f"{flag} {name}: {self.path} has no such column; choose among "
                    f"{', '.join(self.schema.names)}"
                )
        kind = self.schema.field(features).type
        types = arrow.types
        lists = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
        if not lists or not types.is_floating(kind.value_type):
            raise InputError(
                f"--features-column {features} holds {kind}; give a column of lists of floats"
            )
        if labels is not None and not types.is_integer(self.schema.field(labels).type):
            raise InputError(
                f"--labels-column {labels} holds {self.schema.field(labels).type}; give a column "
                "of whole numbers"
            )

    def __len__(self) -> int:
        return self.starts[-1]

    def identity(self) -> dict[str, Any]:
        """Names, sizes and footers of the files."""
        found = []
        for name, file in zip(self.names, self.files, strict=True):
            footer = hashlib.blake2b(str(file.metadata.to_dict()).encode(), digest_size=8)
            found.append([name.name, name.stat().st_size, footer.hexdigest()])
        return {"files": found, "columns": list(self.columns)}

    def _group(self, number: int) -> Any:
        if self._cached is None or self._cached[0] != number:
            file, group = self.groups[number]
            try:
                self._cached = (number, self.files[file].read_row_group(group))
            except Exception as error:  # as above
                raise DataError(
                    f"{self.names[file]}, row group {group}, cannot be read ({_short(error)}); "
                    "write the file again"
                ) from error
        return self._cached[1]

    def order(self, start: int, stop: int, seed: int) -> npt.NDArray[np.int64]:
        """Rows that lie together: reading single rows would read whole row groups."""
        generator = derive_generator(seed, "order", start)
        return start + torch.randperm(stop - start, generator=generator).numpy()

    def read(self, rows: npt.NDArray[np.int64]) -> Part:
        """See :class:`Source`; reads all that lies between the first and the last."""
        part = self._range(int(rows.min()), int(rows.max()) + 1)
        places = rows - rows.min()
        labels = None if part.labels is None else part.labels[places]
        return Part(part.features[places], labels, part.columns.take(places))

    def _range(self, start: int, stop: int) -> Part:
        arrow, _ = import_pyarrow()
        parts = []
        at = start
        while at < stop:
            number = bisect_right(self.starts, at) - 1
            first, last = self.starts[number], min(stop, self.starts[number + 1])
            parts.append(self._group(number).slice(at - first, last - at))
            at = last
        table = arrow.concat_tables(parts).combine_chunks()
        features = self._features(table, start)
        labels = self._labels(table, start)
        for name, column in (
            ("id", self.columns[2] or ("id" if "id" in table.column_names else None)),
            ("label", self.columns[1]),
        ):
            if name in table.column_names:
                continue
            if column is not None:
                table = table.append_column(name, table[column])
            elif name == "id":
                table = table.append_column(name, arrow.array(np.arange(start, stop)))
        return Part(features, labels, table)

    def _features(self, table: Any, start: int) -> npt.NDArray[Any]:
        name = self.columns[0]
        arrow, _ = import_pyarrow()
        column = table[name].combine_chunks()
        if isinstance(column, arrow.ChunkedArray):
            column = arrow.concat_arrays(column.chunks)
        missing = np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))
        if len(missing):
            raise self._bad(start + int(missing[0]), f"{name} is missing")
        kind = column.type
        if arrow.types.is_fixed_size_list(kind):
            width = kind.list_size
        else:
            lengths = np.diff(column.offsets.to_numpy())
            width = int(lengths[0]) if len(lengths) else 0
            other = np.flatnonzero(lengths != width)
            if len(other):
                row = int(other[0])
                said = f"{name} has {lengths[row]} numbers where others have {width}"
                raise self._bad(start + row, said)
        values = column.flatten()
        if values.null_count:
            row = int(np.flatnonzero(values.is_null().to_numpy(zero_copy_only=False))[0])
            raise self._bad(start + row // width, f"{name} lacks a number")
        features: npt.NDArray[Any] = values.to_numpy(zero_copy_only=False)
        return features.reshape(len(column), width)

    def _labels(self, table: Any, start: int) -> npt.NDArray[np.int64] | None:
        name = self.columns[1]
        if name is None:
            return None
        column = table[name]
        if column.null_count:
            missing = np.flatnonzero(column.is_null().to_numpy())
            raise self._bad(start + int(missing[0]), f"{name} is missing")
        labels: npt.NDArray[np.int64] = column.to_numpy().astype(np.int64)
        return labels

    def _bad(self, row: int, said: str) -> DataError:
        return DataError(f"row {row:,} of {self.path}: {said}; repair that row or leave it out")

    def labels(self) -> npt.NDArray[np.int64] | None:
        """See :class:`Source`."""
        name = self.columns[1]
        if name is None:
            return None
        parts = [self._labels(file.read(columns=[name]), 0) for file in self.files]
        return np.concatenate([part for part in parts if part is not None])


@functools.lru_cache(maxsize=1)
def _shuffled(length: int, seed: int) -> npt.NDArray[np.int64]:
    order: npt.NDArray[np.int64] = torch.randperm(
        length, generator=derive_generator(seed, "order")
    ).numpy()
    return order


def _short(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__


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
    path = Path(path).expanduser().absolute()
    if not path.exists():
        raise InputError(
            f"{path} does not exist; give the folder of a feature store, a Parquet file, or a "
            "folder of Parquet files"
        )
    if path.is_dir() and not any(path.glob("*.parquet")):
        return StoreSource(path)
    return ParquetSource(path, features_column, labels_column, id_column)
