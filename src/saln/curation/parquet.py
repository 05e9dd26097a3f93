"""Parquet files read one row group at a time, and not believed without a look."""

from __future__ import annotations

import base64
import importlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from saln.curation.columns import import_pyarrow
from saln.errors import DataError, InputError
from saln.files import file_checksum
from saln.messages import first_line


def parquet_files(path: Path) -> list[Path]:
    """A file, or the ``*.parquet`` of a folder by name, without hidden ones; else InputError."""
    if not path.is_dir():
        return [path]
    found = sorted(file for file in path.glob("*.parquet") if file.name[0] not in "._")
    if not found:
        raise InputError(f"{path} holds no *.parquet file; give a file, or a folder of them")
    for file in found:
        if file.is_dir():
            raise InputError(
                f"{file} is a folder, and folders in folders are not read; give that folder, or "
                "move it elsewhere"
            )
    return found


class _Opened:
    """A Parquet file that is open; pages are compared with their checksums where they have any."""

    def __init__(self, path: Path) -> None:
        arrow, parquet = import_pyarrow()
        # Bytes: a name that is not UTF-8 is a name, too.
        name: Any = os.fsencode(path) if os.name == "posix" else str(path)
        self.stream = arrow.OSFile(name)
        try:
            self.file = parquet.ParquetFile(self.stream, page_checksum_verification=True)
            self.schema = self.file.schema_arrow
            metadata = self.file.metadata
            self.sizes = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
            # A footer carries no checksum: what it says twice has to agree.
            if sum(self.sizes) != metadata.num_rows or min(self.sizes, default=0) < 0:
                raise ValueError("its footer counts other rows than its row groups have")
            if _written_names(metadata) not in (None, self.schema.names):
                raise ValueError("its footer names other columns than were written")
        except BaseException:
            self.stream.close()
            raise


def _written_names(metadata: Any) -> list[str] | None:
    """The columns' names in the copy of the schema that Arrow's writers add."""
    arrow, _ = import_pyarrow()
    encoded = (metadata.metadata or {}).get(b"ARROW:schema")
    if encoded is None:
        return None
    names: list[str] = arrow.ipc.read_schema(arrow.BufferReader(base64.b64decode(encoded))).names
    return names


class RowGroups:
    """The row groups of a Parquet file, or of a folder's, one after the other.

    One file is open at a time, and one row group in memory. InputError for no file, or files of
    several kinds; DataError for one that cannot be read. The ``pyarrow.Schema`` is that of all; a
    column may be null in one file alone.
    """

    def __init__(self, path: Path) -> None:
        arrow, _ = import_pyarrow()
        self.path = path
        self.files = parquet_files(path)  # in order; those without rows, too
        self.starts = [0]  # the first row of each group, and the number of all rows
        # Of pages of the row group that was read first; then no damage to rows goes unnoticed.
        self.has_checksums = False
        self._groups: list[tuple[int, int]] = []
        self._open: tuple[int, _Opened] | None = None
        self._cached: tuple[int, Any] | None = None  # partitions often share a row group
        self._looked = False
        self._stamps: dict[Path, tuple[int, int]] = {}
        first: Path | None = None
        empty: Any = None
        for number, file in enumerate(self.files):
            opened = self._file(number)
            names = opened.schema.names
            if len(set(names)) < len(names):
                twice = next(name for name in names if names.count(name) > 1)
                raise InputError(f"{file} has two columns named {twice}; rename one of them")
            if not sum(opened.sizes):
                empty = empty or opened.schema
                continue  # no rows: pandas gives their columns no type
            if first is None:  # the columns of the first file with rows are those of all
                first, self.schema = file, opened.schema
            self.schema = _joined(self.schema, opened.schema, first, file)
            for group, rows in enumerate(opened.sizes):
                self._groups.append((number, group))
                self.starts.append(self.starts[-1] + rows)
        if first is None:
            self.schema = empty if empty is not None else arrow.schema([])

    def __len__(self) -> int:
        return self.starts[-1]

    def checksums(self) -> list[tuple[str, int, str]]:
        """Name, bytes and checksum of each file; reads them all once, or raises DataError."""
        found = []
        for file in self.files:
            try:
                found.append((file.name, file.stat().st_size, file_checksum(file)))
            except OSError as error:
                raise _unreadable(file, error) from error
        return found

    def check_unchanged(self) -> None:
        """Raises DataError for a file that somebody has written to since it was read."""
        for file in self.files:
            try:
                self._compare_stamp(file)
            except OSError as error:
                raise _unreadable(file, error) from error

    def _compare_stamp(self, file: Path) -> None:
        stat = file.stat()
        now = (stat.st_size, stat.st_mtime_ns)  # as of when the file was first opened
        if self._stamps.setdefault(file, now) != now:
            raise DataError(
                f"{file} was changed while it was read; run the same command again when it is whole"
            )

    def _file(self, number: int) -> _Opened:
        if self._open is None or self._open[0] != number:
            if self._open is not None:
                self._open[1].stream.close()
            self._open = None
            file = self.files[number]
            if file.exists() and not file.is_file():
                raise InputError(f"{file} is no regular file; give a Parquet file or a folder")
            try:
                self._compare_stamp(file)
                self._open = (number, _Opened(file))
            except DataError:
                raise
            except FileNotFoundError as error:
                raise InputError(f"{file} does not exist; give a file that does") from error
            except Exception as error:  # pyarrow raises OSError, ArrowInvalid and others
                raise _unreadable(file, error) from error
        return self._open[1]

    def read(self, number: int, columns: Sequence[str] | None = None) -> Any:
        """A row group as a ``pyarrow.Table``; all columns of the one read last are kept.

        Raises DataError where a page's checksum, the rows counted or the footer's
        statistics say that it is damaged, or it cannot be decoded.
        """
        if self._cached is not None and self._cached[0] == number:
            return self._cached[1] if columns is None else self._cached[1].select(columns)
        place, group = self._groups[number]
        rows = self.starts[number + 1] - self.starts[number]
        opened = self._file(place)
        try:
            table = opened.file.read_row_group(group, columns=columns)
            table.validate(full=True)  # offsets and UTF-8, which pyarrow else trusts
            if len(table) != rows:
                raise ValueError(f"it has {len(table):,} rows and not {rows:,}")
            _compare_statistics(opened.file.metadata, group, table)
            if not self._looked and table.num_columns:
                self.has_checksums = _has_checksum(opened, group, table.column_names[0])
                self._looked = True
            wanted = self.schema
            if columns is not None:
                wanted = import_pyarrow()[0].schema([wanted.field(name) for name in columns])
            if not table.schema.equals(wanted):  # what may be null in another file
                table = table.cast(wanted)
        except Exception as error:  # as above
            raise DataError(
                f"{self.files[place]}, row group {group}, cannot be read ({first_line(error)}); it "
                "is damaged: copy or write the file again"
            ) from error
        if columns is None:
            self._cached = (number, table)
        return table


def _unreadable(file: Path, error: Exception) -> DataError:
    return DataError(
        f"{file} cannot be read as Parquet ({first_line(error)}); copy or write it again"
    )


def _joined(one: Any, other: Any, first: Path, file: Path) -> Any:
    """The schema of both, which may differ in what may be null; DataError where they do in more."""
    arrow, _ = import_pyarrow()
    if one.names != other.names or one.types != other.types:
        differing = sorted(set(one.names) ^ set(other.names)) or [
            name for name in one.names if one.field(name).type != other.field(name).type
        ]
        said = f" ({differing[0]} differs)" if differing else " (they come in another order)"
        raise DataError(
            f"the columns of {file} are not those of {first}{said}; give files of one kind"
        )
    # A writer marks what holds no null as never null: that differs from file to file.
    fields = [
        field.with_nullable(field.nullable or other.field(field.name).nullable) for field in one
    ]
    return arrow.schema(fields, one.metadata)


def _has_checksum(opened: _Opened, group: int, name: str) -> bool:
    """Whether the first page of a column that was read has a checksum; pyarrow does not say."""
    metadata = opened.file.metadata
    numbers = range(metadata.num_columns)
    number = next(n for n in numbers if metadata.schema.column(n).path.split(".")[0] == name)
    chunk = metadata.row_group(group).column(number)
    start = chunk.data_page_offset
    if chunk.has_dictionary_page and chunk.dictionary_page_offset:
        start = min(start, chunk.dictionary_page_offset)
    opened.stream.seek(start)
    header, at = opened.stream.read(64), 0
    # Thrift's compact protocol: kind and two sizes, all of them int32 of a varying length, and
    # then, where there is one, the checksum as the fourth.
    for _ in range(3):
        at += 1
        while at < len(header) and header[at] >= 128:
            at += 1
        at += 1
    return bool(header[at : at + 1] == b"\x15")


def _compare_statistics(metadata: Any, group: int, table: Any) -> None:
    """Compares numbers and names with the bounds that the footer has of them.

    Where pages have no checksum this is what tells damage, as of a flipped exponent: raises
    ValueError for values out of bounds, or other counts of what is missing.
    """
    arrow, _ = import_pyarrow()
    compute = importlib.import_module("pyarrow.compute")
    types = arrow.types
    for number in range(metadata.num_columns):
        name, *below = metadata.schema.column(number).path.split(".")
        if name not in table.column_names:
            # Not read: where its entry in the footer is damaged, pyarrow ends the process.
            continue
        chunk = metadata.row_group(group).column(number)
        if not chunk.is_stats_set:
            continue
        column = table[name]
        if below:  # a list of numbers, the features; other nested columns are not looked at
            kind = column.type
            lists = types.is_list(kind) or types.is_large_list(kind)
            repeated = metadata.schema.column(number).max_repetition_level
            if not (lists or types.is_fixed_size_list(kind)) or repeated != 1:
                continue
            column = compute.list_flatten(column)
        if types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        low, high = _bounds(chunk.statistics, column.type)
        counted = chunk.statistics.null_count if chunk.statistics.has_null_count else None
        if not below and counted not in (None, column.null_count):
            raise ValueError(f"{name}: other rows are missing than its footer counts")
        if low is None or high is None:
            continue
        if types.is_float16(column.type):  # which pyarrow cannot compare
            column = column.cast(arrow.float32())
        found = compute.min_max(column).as_py()
        if found["min"] is not None and not (low <= found["min"] and found["max"] <= high):
            raise ValueError(f"{name}: values are out of the bounds in its footer")


def _bounds(statistics: Any, kind: Any) -> tuple[Any, Any]:
    """The least and the largest value, as Python's; None where they cannot be compared."""
    types = import_pyarrow()[0].types
    if not statistics.has_min_max:
        return None, None
    try:
        bounds: tuple[Any, ...] = statistics.min, statistics.max
    except UnicodeDecodeError:  # cut in the middle of a letter
        return None, None
    if types.is_float16(kind) and all(isinstance(value, bytes) for value in bounds):
        bounds = tuple(float(np.frombuffer(value, dtype="<f2")[0]) for value in bounds)
    numeric = types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)
    wanted: Any = (bool, int, float) if numeric else str
    if not (numeric or types.is_string(kind) or types.is_large_string(kind)):
        return None, None
    if not all(isinstance(value, wanted) and value == value for value in bounds):
        return None, None
    return bounds[0], bounds[1]
