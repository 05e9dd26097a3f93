"""A :class:`ReviewTable` as files that people open: CSV, Parquet, a pandas table."""

from __future__ import annotations

import importlib
import math
import re
from collections.abc import Sequence
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
    order = worst_first(table)
    columns = [_csv_column(table, name, order) for name in COLUMNS]
    rows = zip(*columns, strict=True)
    lines = [",".join(map(_cell, row)) + "\n" for row in (COLUMNS, *rows)]
    write_bytes(path, "".join(lines).encode("utf-8", errors="surrogateescape"))


def write_parquet(table: ReviewTable, path: Path) -> None:
    """Writes ``labels.parquet``: the columns and rows of :func:`write_csv`, unrounded.

    Unknown numbers are null. Parquet holds only UTF-8: other bytes of a file name become ``?``.
    MissingExtraError without ``pyarrow``, DataError as there.
    """
    with optional_import("select", "a Parquet table", instead="use the CSV file"):
        arrow = importlib.import_module("pyarrow")
        parquet = importlib.import_module("pyarrow.parquet")
    order = worst_first(table)
    columns: dict[str, Any] = {}
    for name in COLUMNS:
        if name in TEXTS:
            columns[name] = _arrow_texts(arrow, list(map(utf8, _text(table, name, order))))
        else:
            columns[name] = _arrow_numbers(arrow, *_number(table, name, order))
    written = arrow.table(columns)
    write_with(path, lambda at: parquet.write_table(written, at, write_page_checksum=True))


# By buffers: arrow.array() imports pandas, where it is installed, which takes as long as judging
# some thousand labels.
def _arrow_texts(arrow: Any, texts: Sequence[str]) -> Any:
    encoded = [text.encode() for text in texts]
    ends = np.cumsum([0, *map(len, encoded)])
    wide = ends[-1] >= 2**31  # more than the usual kind of texts holds
    kind, number = (arrow.large_string(), np.int64) if wide else (arrow.string(), np.int32)
    buffers = (None, arrow.py_buffer(ends.astype(number)), arrow.py_buffer(b"".join(encoded)))
    return arrow.Array.from_buffers(kind, len(texts), buffers)


def _arrow_numbers(arrow: Any, values: npt.NDArray[Any], unknown: npt.NDArray[np.bool_]) -> Any:
    known = arrow.py_buffer(np.packbits(~unknown, bitorder="little"))
    kind = arrow.float64() if values.dtype.kind == "f" else arrow.int64()
    buffers = (known, arrow.py_buffer(np.ascontiguousarray(values)))
    return arrow.Array.from_buffers(kind, len(values), buffers)


def to_pandas(table: ReviewTable) -> Any:
    """The columns and rows of :func:`write_csv` as a ``pandas.DataFrame``, unrounded.

    The index holds each example's row in the data set; unknown numbers are missing, bytes of a
    file name that are no UTF-8 are ``?``. MissingExtraError without ``pandas``.
    """
    with optional_import("pandas", "a pandas table", instead="use the columns of the table"):
        pandas = importlib.import_module("pandas")
    order = worst_first(table)
    columns: dict[str, Any] = {}
    for name in COLUMNS:
        if name in TEXTS:
            columns[name] = list(map(utf8, _text(table, name, order)))
        else:
            values, unknown = _number(table, name, order)
            columns[name] = values
            if values.dtype.kind == "i":  # no NaN among whole numbers
                columns[name] = pandas.array(values, dtype="Int64")
                columns[name][unknown] = pandas.NA
    return pandas.DataFrame(columns, index=pandas.Index(order, name="row"))


def _text(table: ReviewTable, name: str, order: npt.NDArray[np.int64]) -> list[str]:
    values: Sequence[str] = getattr(table, TEXTS[name])
    return [values[row] for row in order.tolist()]


def utf8(text: str) -> str:
    """A name with ``?`` for bytes that are no UTF-8, which other tools could not hold."""
    return text.encode("utf-8", "replace").decode()


def known(value: float) -> float | None:
    """A number for JSON, which knows no NaN."""
    return None if math.isnan(value) else value


def _number(
    table: ReviewTable, name: str, order: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """A column of numbers, and which of them are unknown."""
    values: npt.NDArray[Any] = getattr(table, name)[order]
    return values, np.isnan(values) if values.dtype.kind == "f" else values < 0


def _csv_column(table: ReviewTable, name: str, order: npt.NDArray[np.int64]) -> list[str]:
    if name in TEXTS:
        return _text(table, name, order)
    values, unknown = _number(table, name, order)
    return [
        "" if missing else _digits(value)
        for value, missing in zip(values.tolist(), unknown.tolist(), strict=True)
    ]


def _digits(value: float) -> str:
    """Four significant digits; as many as it takes where those would cross the half or reach 1."""
    text = f"{value + 0.0:.4g}" if isinstance(value, float) else str(value)
    # Whoever counts the rows below 0.5 must count those that the command counted.
    crossed = (float(text) < 0.5, float(text) < 1) != (value < 0.5, value < 1)
    return repr(value) if crossed else text


def _cell(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if _SPECIAL.search(text) else text
