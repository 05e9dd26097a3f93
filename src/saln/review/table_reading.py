"""Columns of a table as texts: CSV, TSV, JSON lines, Parquet, Hugging Face's.

Values stay as they are written: ``01`` is no 1. What is missing is an empty text.
"""

from __future__ import annotations

import contextlib
import csv
import json
import math
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TextIO

from saln._extras import optional_import
from saln.data.arguments import is_folder
from saln.errors import DataError, InputError
from saln.messages import shown

# Kinds of tables by the ends of their names, and what stands before the path in a specification.
KINDS = {
    ".csv": "csv", ".tsv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl",
    ".parquet": "parquet",
}  # fmt: skip
# Between the labels of an example that has several, where they are given as a list.
SEPARATOR = ";"
# The csv module's limit of a field's length, 131,072, belongs to the process; no text is that long.
_LIMIT, _LIMITED = 2**31 - 1, threading.Lock()
_ROWS = 65_536
# By what the beginning of a file tells that it holds boxes of objects.
_BOXES, _LOOKED_AT = re.compile(rb'"(annotations|images|categories)"\s*:\s*\['), 2**20


@contextlib.contextmanager
def large_fields() -> Iterator[None]:
    """Has the csv module take texts of any length."""
    with _LIMITED:
        before = csv.field_size_limit(_LIMIT)
        try:
            yield
        finally:
            csv.field_size_limit(before)


def first_sign(stream: TextIO) -> str:
    """The first sign of a file that is no space; it is read from its beginning then."""
    sign = stream.read(1)
    while sign.isspace():
        sign = stream.read(1)
    stream.seek(0)
    return sign


class TextTable(Protocol):
    """A table whose values are had as texts."""

    name: str
    columns: tuple[str, ...]

    def read(self, wanted: Sequence[str]) -> dict[str, list[str]]:
        """The values of some columns, one a row, empty where missing; DataError names the line."""


def open_table(path: Path, separator: str = SEPARATOR) -> TextTable:
    """A table by the end of its file's name; the separator is what lists are joined by.

    InputError where there is no such file, or it is of another kind; DataError where it cannot be
    read, or has no columns.
    """
    kind = KINDS.get(path.suffix.lower())
    if kind is None:
        raise InputError(f"{path} is no table; give a file that ends in one of {', '.join(KINDS)}")
    if not path.is_file():
        what = "is a folder" if is_folder(path) else "does not exist"
        raise InputError(f"{path} {what}; give a file of {kind}")
    if kind == "csv":
        return _CsvTable(path)
    return _JsonTable(path, separator) if kind == "jsonl" else _ParquetTable(path, separator)


def as_text(value: Any, separator: str) -> str:
    """A value as it would be written, lists joined; ValueError where no text stands for it."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        # An empty list says that there is no class; an empty text, that nobody knows.
        return separator.join(as_text(each, separator) for each in value) or separator
    if isinstance(value, dict | bytes):
        raise ValueError(f"a {type(value).__name__}")
    return str(value)


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turns what reading a file of UTF-8 raises into errors that name the line."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise _undecodable(path) from error
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); give another file") from error


def _undecodable(path: Path) -> DataError:
    # Decoding is done in blocks that know no lines: here they are counted.
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            if number == 1 and line[:2] in (b"\xff\xfe", b"\xfe\xff"):
                return DataError(f"{path} is UTF-16; save it as UTF-8")
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                byte = line[error.start]
                return DataError(
                    f"{path}, line {number}: byte 0x{byte:02x} is no UTF-8; save the file as UTF-8"
                )
    return DataError(f"{path} is no UTF-8; save it as UTF-8")


class _CsvTable:
    """Comma-separated values, and what spreadsheets make of them: semicolons or tabs."""

    def __init__(self, path: Path) -> None:
        self.name, self.path = str(path), path
        self.delimiter = "\t" if path.suffix.lower() == ".tsv" else self._delimiter()
        header = next(self._rows(), None)
        if header is None:
            raise DataError(f"{path} is empty; give a table with a line of column names")
        self.columns = tuple(header[1])
        _check_names(self.name, self.columns)

    def _delimiter(self) -> str:
        """What makes most columns of the first line; spreadsheets write all three."""
        with _readable(self.path), self.path.open(encoding="utf-8-sig") as stream:
            line = stream.readline()
        return max(",;\t", key=lambda each: len(next(csv.reader([line], delimiter=each), ())))

    def _rows(self) -> Iterator[tuple[int, list[str]]]:
        """Each row with the number of its last line."""
        with _readable(self.path), self.path.open(encoding="utf-8-sig", newline="") as stream:
            # Strict: an open quotation mark would take all lines that follow into one text.
            reader = csv.reader(stream, delimiter=self.delimiter, strict=True)
            try:
                for row in reader:
                    if row:
                        yield reader.line_num, row
            except csv.Error as error:
                raise DataError(
                    f"{self.path}, line {reader.line_num}: {error}; quote texts that hold "
                    'quotation marks, and double those inside: "a ""b"" c"'
                ) from error

    def read(self, wanted: Sequence[str]) -> dict[str, list[str]]:
        places = [self.columns.index(name) for name in wanted]
        values: list[list[str]] = [[] for _ in wanted]
        width = len(self.columns)
        with large_fields():
            rows = self._rows()
            next(rows)
            for line, row in rows:
                if len(row) != width:
                    raise DataError(
                        f"{self.path}, line {line}: {len(row)} values where the first line "
                        f"names {width} columns; quote texts that hold {self.delimiter!r}"
                    )
                for column, place in zip(values, places, strict=True):
                    column.append(row[place])
        return dict(zip(wanted, values, strict=True))


class _JsonTable:
    """One JSON object a line, or one list of objects."""

    def __init__(self, path: Path, separator: str) -> None:
        self.name, self.path, self.separator = str(path), path, separator
        self._refuse_boxes()
        names: dict[str, None] = {}
        for place, (_, row) in enumerate(self._rows()):
            names.update(dict.fromkeys(row))
            if place >= 1000:  # later rows are looked at when they are read
                break
        if not names:
            raise DataError(f"{path} holds no objects; give one JSON object a line")
        self.columns = tuple(names)

    def _refuse_boxes(self) -> None:
        """COCO is one object with lists of images and of annotations, in any order."""
        with _readable(self.path), self.path.open("rb") as stream:
            begin = stream.read(_LOOKED_AT)
        is_one = self.path.suffix.lower() == ".json" and begin.lstrip()[:1] == b"{"
        if is_one and _BOXES.search(begin):
            raise InputError(
                f"{self.path} holds boxes of objects (COCO), which are not judged as they are; "
                "save each box's crop as an image, in one sub-folder a class, and give that folder"
            )

    def _rows(self) -> Iterator[tuple[int, dict[str, Any]]]:
        with _readable(self.path), self.path.open(encoding="utf-8-sig") as stream:
            listed = first_sign(stream) == "["
            for number, value in self._listed(stream) if listed else self._lines(stream):
                if not isinstance(value, dict):
                    raise DataError(
                        f"{self.path}, line {number}: a {type(value).__name__}; give JSON objects "
                        'such as {"text": "...", "label": "..."}'
                    )
                yield number, value

    def _lines(self, stream: Any) -> Iterator[tuple[int, Any]]:
        for number, line in enumerate(stream, start=1):
            if not line.isspace():
                yield number, self._parsed(line, number)

    def _listed(self, stream: Any) -> Iterator[tuple[int, Any]]:
        return enumerate(self._parsed(stream.read(), None), start=1)

    def _parsed(self, text: str, line: int | None) -> Any:
        try:
            # Numbers stay as they are written.
            return json.loads(text, parse_float=str, parse_int=str)
        except (ValueError, RecursionError) as error:
            number = line or getattr(error, "lineno", 1)
            raise DataError(
                f"{self.path}, line {number}: no JSON ({getattr(error, 'msg', error)}); give one "
                "object a line"
            ) from error

    def read(self, wanted: Sequence[str]) -> dict[str, list[str]]:
        values: dict[str, list[str]] = {name: [] for name in wanted}
        for number, row in self._rows():
            for name, column in values.items():
                try:
                    text = as_text(row.get(name), self.separator)
                    # Half a character, as JSON can escape it, could be written nowhere.
                    column.append(text.encode("utf-8", errors="replace").decode())
                except ValueError as error:
                    raise DataError(
                        f"{self.path}, line {number}: {name} is {error}; give a text or a number"
                    ) from error
        return values


class _ParquetTable:
    """Columns of a Parquet file."""

    def __init__(self, path: Path, separator: str) -> None:
        self.name, self.path, self.separator = str(path), path, separator
        with optional_import("select", f"{path}"):
            import pyarrow.parquet
        try:
            self.file = pyarrow.parquet.ParquetFile(path)
        except Exception as error:  # pyarrow raises many kinds; all mean the same here
            raise DataError(f"{path} is no Parquet file ({error}); give one that is") from error
        self.columns = tuple(self.file.schema_arrow.names)
        _check_names(self.name, self.columns)

    def read(self, wanted: Sequence[str]) -> dict[str, list[str]]:
        values: dict[str, list[str]] = {name: [] for name in wanted}
        for batch in self.file.iter_batches(_ROWS, columns=list(wanted)):
            for name, column in values.items():
                column += column_texts(batch.column(name), f"{self.name}, {name}", self.separator)
        return values


class HubTable:
    """All splits of a data set in the layout of Hugging Face, one after the other."""

    def __init__(self, name: str, tables: Mapping[str, Any], separator: str) -> None:
        self.name, self.tables, self.separator = name, tables, separator
        own = tuple(next(iter(tables.values())).features)
        # A column of that name of the table's own would be another one: theirs comes first.
        self.added = () if "split" in own else ("split",)
        self.columns = own + self.added

    def read(self, wanted: Sequence[str]) -> dict[str, list[str]]:
        """See :class:`TextTable`."""
        values: dict[str, list[str]] = {name: [] for name in wanted}
        for split, table in self.tables.items():
            for name, column in values.items():
                if name in self.added:
                    column += [split] * len(table)
                    continue
                if name not in table.features:
                    raise InputError(
                        f"{self.name} has no column {name!r} in its split {split!r}, only "
                        f"{', '.join(table.features)}; give every split the same columns"
                    )
                classes = getattr(table.features[name], "names", None)
                if classes is None:
                    where = f"{self.name} ({split}), {name}"
                    for chunk in table.data.column(name).chunks:
                        column += column_texts(chunk, where, self.separator)
                else:
                    numbers = table.data.column(name).to_pylist()
                    # -1 is how published test sets hide their labels.
                    column += [classes[c] if c is not None and c >= 0 else "" for c in numbers]
        return values


def column_texts(column: Any, where: str, separator: str) -> list[str]:
    """A ``pyarrow`` column as texts; DataError where it holds what no text stands for."""
    try:
        return [as_text(value, separator) for value in column.to_pylist()]
    except ValueError as error:
        raise DataError(
            f"{where} holds {shown(column.type)}; give a column of texts or numbers, or hf:PATH "
            "for a table that holds images themselves"
        ) from error


def _check_names(table: str, columns: Sequence[str]) -> None:
    twice = [name for name in columns if columns.count(name) > 1]
    if twice:
        raise DataError(f"{table} has several columns {twice[0]!r}; give each its own name")
