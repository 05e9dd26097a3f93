"""A :class:`ReviewTable` as files that people open: CSV, Parquet, a pandas table."""

from __future__ import annotations

import importlib
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from saln._extras import optional_import
from saln.files import write_bytes, write_with
from saln.review.review_table import COLUMNS, ReviewTable

# What makes a cell need quotes (RFC 4180). Written by hand: before Python 3.13 the standard
# writer leaves a lone carriage return bare where lines end with a newline, and cannot read it.
_SPECIAL = re.compile('[",\r\n]')
# Columns of texts, by the table's field of each.
TEXTS = {
    "id": "ids", "split": "splits", "given": "given", "believed": "believed",
    "problem": "problem", "decision": "decision", "label": "label", "key": "keys",
}  # fmt: skip


def worst_first(table: ReviewTable) -> npt.NDArray[np.int64]:
    """(n,): all rows: suspects, the rest, each by probability; those without one at the end."""
    suspect = np.zeros(len(table), dtype=bool)
    suspect[table.suspects] = True
    # lexsort puts NaN last and keeps the order of rows among equals.
    order: npt.NDArray[np.int64] = np.lexsort((table.probability, ~suspect)).astype(np.int64)
    return order


def write_csv(table: ReviewTable, path: Path) -> None:
    """Writes ``labels.csv``: :data:`COLUMNS`, worst first, UTF-8, unknown numbers empty.

    Probabilities, margins and outlier scores have four significant digits, however small they
    are. Texts are written as they are, file names that are no UTF-8 byte by byte, so that the
    same can be read again. A text that begins with ``=``, ``+``, ``-`` or ``@`` may
    therefore be taken for a formula by a spreadsheet: quotes do not prevent that, and a mark
    before it would make it another name. Import the columns as text where names are not trusted.
    DataError where it cannot be written; a file that was there stays as it was.
    """
    columns = [
        column if isinstance(column, list) else [_digits(number) for number in column.tolist()]
        for _, column in _columns(table, worst_first(table))
    ]
    rows = zip(*columns, strict=True)
    lines = [",".join(map(_cell, row)) + "\n" for row in (COLUMNS, *rows)]
    write_bytes(path, "".join(lines).encode("utf-8", errors="surrogateescape"))


def write_parquet(table: ReviewTable, path: Path) -> None:
    """Writes ``labels.parquet``: the columns and rows of :func:`write_csv`, unrounded.

    Unknown numbers are null. Parquet holds only UTF-8: other bytes of a file name become ``?``.
    MissingExtraError without ``pyarrow``, DataError as :func:`write_csv`.
    """
    with optional_import("select", "a Parquet table", instead="use the CSV file"):
        arrow = importlib.import_module("pyarrow")
        parquet = importlib.import_module("pyarrow.parquet")
    columns = _columns(table, worst_first(table))
    written = arrow.table({name: _as_arrow(arrow, column) for name, column in columns})
    write_with(path, lambda at: parquet.write_table(written, at, write_page_checksum=True))


def _as_arrow(arrow: Any, column: Any) -> Any:
    # By buffers: arrow.array() imports pandas, where it is installed, which takes as long as
    # judging some thousand labels.
    if not isinstance(column, list):
        there = np.packbits(~column.mask, bitorder="little")
        kind = arrow.float64() if column.dtype.kind == "f" else arrow.int64()
        buffers = [there, np.ascontiguousarray(column.data)]
        return arrow.Array.from_buffers(kind, len(column), list(map(arrow.py_buffer, buffers)))
    encoded = [text.encode("utf-8", "replace") for text in column]
    ends = np.cumsum([0, *map(len, encoded)])
    wide = ends[-1] >= 2**31  # more than the usual kind of texts holds
    kind, number = (arrow.large_string(), np.int64) if wide else (arrow.string(), np.int32)
    texts = (None, arrow.py_buffer(ends.astype(number)), arrow.py_buffer(b"".join(encoded)))
    return arrow.Array.from_buffers(kind, len(column), texts)


def to_pandas(table: ReviewTable) -> Any:
    """The columns and rows of :func:`write_csv` as a ``pandas.DataFrame``, unrounded.

    The index holds each example's row in the data set; unknown numbers are missing, bytes of a
    file name that are no UTF-8 are ``?``. MissingExtraError without ``pandas``.
    """
    with optional_import("pandas", "a pandas table", instead="use the columns of the table"):
        pandas = importlib.import_module("pandas")
    order = worst_first(table)
    columns: dict[str, Any] = {}
    for name, column in _columns(table, order):
        if isinstance(column, list):
            columns[name] = list(map(utf8, column))
        elif column.dtype.kind == "f":
            columns[name] = column.data
        else:  # no NaN among whole numbers
            columns[name] = pandas.array(column.data, dtype="Int64")
            columns[name][column.mask] = pandas.NA
    return pandas.DataFrame(columns, index=pandas.Index(order, name="row"))


def _columns(table: ReviewTable, order: npt.NDArray[np.int64]) -> Iterator[tuple[str, Any]]:
    """Columns by their names: lists of texts, and numbers of which unknown ones are masked."""
    for name in COLUMNS:
        values = getattr(table, TEXTS.get(name, name))
        if name in TEXTS:
            yield name, [values[row] for row in order.tolist()]
        else:
            values = values[order]
            unknown = np.isnan(values) if values.dtype.kind == "f" else values < 0
            yield name, np.ma.array(values, mask=unknown)


def utf8(text: str) -> str:
    """A name with ``?`` for bytes that are no UTF-8, which other tools could not hold."""
    return text.encode("utf-8", "replace").decode()


def known(value: float) -> float | None:
    """A number for JSON, which knows no NaN."""
    return None if math.isnan(value) else value


def _digits(value: float | None) -> str:
    """Four significant digits; as many as it takes where those would cross the half or reach 1."""
    if value is None:
        return ""
    text = f"{value + 0.0:.4g}" if isinstance(value, float) else str(value)
    # Whoever counts the rows below 0.5 must count those that the command counted.
    crossed = (float(text) < 0.5, float(text) < 1) != (value < 0.5, value < 1)
    return repr(value) if crossed else text


def _cell(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if _SPECIAL.search(text) else text
