"""Columns of Parquet as arrays: which are asked for, and which types are taken."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from saln._extras import optional_import
from saln.errors import DataError, InputError
from saln.messages import parameter

# Makes the error for a row, counted from the column's first, and what is wrong with it.
RowError = Callable[[int, str], DataError]


def import_pyarrow() -> tuple[Any, Any]:
    """``pyarrow`` and ``pyarrow.parquet``; MissingExtraError where they are not installed."""
    with optional_import("select", "saln select writes Parquet, which"):
        return importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")


@dataclass(frozen=True)
class InputColumns:
    """Which columns of Parquet hold what."""

    features: str = "features"  # Lists of numbers, all of one length
    labels: str | None = None  # Whole numbers, or the classes' names; None where there are none
    # Kept as ``id``. When None, that is the input's own column of this name, or the number of the
    # row where it has none
    id: str | None = None

    def check(self, path: Path, schema: Any) -> None:
        """Raises InputError for columns that are not there, of other types, or there twice."""
        for option, name, needed in (
            ("features_column", self.features, True),
            ("labels_column", self.labels, False),
            ("id_column", self.id, False),
        ):
            if not isinstance(name, str) and (name is not None or needed):
                raise InputError(
                    f"{parameter(option)} {name!r} is not allowed; give the name of a column"
                )
            if name is not None and name not in schema.names:
                raise InputError(
                    f"{parameter(option, name)}: {path} has no such column; choose among "
                    f"{', '.join(schema.names)}"
                )
        if not _holds_numbers(kind := schema.field(self.features).type):
            raise InputError(
                f"{parameter('features_column', self.features)} holds {kind}; give a column of "
                "lists of floats, one list a row"
            )
        if self.labels is not None and not _holds_labels(kind := schema.field(self.labels).type):
            raise InputError(
                f"{parameter('labels_column', self.labels)} holds {kind}; give a column of whole "
                "numbers or of names"
            )
        # The output adds both names: beside a column of that name it would have two, or lose one.
        for added, name, option in (
            ("id", self.id, "id_column"),
            ("label", self.labels, "labels_column"),
        ):
            if name not in (None, added) and added in schema.names:
                raise InputError(
                    f"{path} has a column named {added}, which {parameter(option, name)} would "
                    f"write too; rename it, or give {parameter(option, added)}"
                )


def _holds_numbers(kind: Any) -> bool:
    """Whether a column's type is lists of numbers, also as tensors of a fixed shape."""
    arrow, _ = import_pyarrow()
    types = arrow.types
    plain = kind.storage_type if isinstance(kind, arrow.BaseExtensionType) else kind
    lists = types.is_list(plain) or types.is_large_list(plain) or types.is_fixed_size_list(plain)
    if not lists:
        return False
    return bool(types.is_floating(plain.value_type) or types.is_integer(plain.value_type))


def _holds_labels(kind: Any) -> bool:
    types = import_pyarrow()[0].types
    plain = kind.value_type if types.is_dictionary(kind) else kind
    numbers = types.is_integer(plain) or types.is_floating(plain) or types.is_boolean(plain)
    return bool(numbers or holds_names(plain))


def holds_names(kind: Any) -> bool:
    """Whether labels of a type are the classes' names."""
    types = import_pyarrow()[0].types
    plain = kind.value_type if types.is_dictionary(kind) else kind
    return bool(types.is_string(plain) or types.is_large_string(plain))


def feature_rows(column: Any, name: str, width: int | None, bad: RowError) -> npt.NDArray[Any]:
    """Rows of features from a ``pyarrow.ChunkedArray`` of lists, as :class:`InputColumns` allows.

    Floating, (n, d), with ``width`` numbers a row, or as many as in the first when None; whole
    numbers become float32 where it holds them all, else float64. For a row that is missing,
    lacks a number, or has more or fewer than others, ``bad`` makes the DataError.
    """
    arrow, _ = import_pyarrow()
    array = arrow.concat_arrays(column.chunks) if column.num_chunks != 1 else column.chunk(0)
    if isinstance(array.type, arrow.BaseExtensionType):
        array = array.storage  # a tensor of a fixed shape is a list of its numbers
    # A missing list has no numbers, and would move the rows behind it up.
    missing = np.flatnonzero(array.is_null().to_numpy(zero_copy_only=False))
    if len(missing):
        raise bad(int(missing[0]), f"{name} is missing")
    if arrow.types.is_fixed_size_list(array.type):
        lengths = np.full(len(array), array.type.list_size)
    else:
        lengths = np.diff(array.offsets.to_numpy())  # also where the array starts in the middle
    width = int(lengths[0]) if width is None and len(lengths) else width or 0
    other = np.flatnonzero(lengths != width)
    if len(other):
        row = int(other[0])
        raise bad(row, f"{name} has {lengths[row]} numbers where others have {width}")
    if width == 0 and len(array):
        raise bad(0, f"{name} is an empty list")
    # Only now that every list is there and equally long is row i at i * width.
    values = array.flatten()
    if values.null_count:
        row = int(np.flatnonzero(values.is_null().to_numpy(zero_copy_only=False))[0])
        raise bad(row // width, f"{name} lacks a number")
    features: npt.NDArray[Any] = values.to_numpy(zero_copy_only=False)
    if features.dtype.kind != "f":
        # float32 holds whole numbers up to 2**24 exactly.
        features = features.astype(np.float32 if features.itemsize <= 2 else np.float64)
    return features.reshape(len(array), width)


def label_column(column: Any, name: str, bad: RowError) -> Any:
    """Labels, a ``pyarrow.Array``: int64, or strings for names; DataError as for features."""
    arrow, _ = import_pyarrow()
    if arrow.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)  # of pandas' categories
    if column.null_count:
        missing = np.flatnonzero(column.is_null().to_numpy())
        raise bad(int(missing[0]), f"{name} is missing")
    if holds_names(column.type):
        return column.cast(arrow.string()).combine_chunks()
    values = column.to_numpy()
    if values.dtype.kind == "f":
        # Pandas makes floats of whole numbers where one is missing; above 2**53 floats skip some.
        wide = values.astype(np.float64)
        whole = np.isfinite(wide) & (wide == np.floor(wide)) & (np.abs(wide) <= 2.0**53)
        if not whole.all():
            row = int((~whole).argmax())
            said = "is missing" if np.isnan(wide[row]) else f"is {values[row]}, no whole number"
            raise bad(row, f"{name} {said}")
    elif values.dtype == np.uint64 and (large := values > np.iinfo(np.int64).max).any():
        row = int(large.argmax())
        raise bad(row, f"{name} is {values[row]}, which is beyond int64")
    return arrow.array(values.astype(np.int64))
