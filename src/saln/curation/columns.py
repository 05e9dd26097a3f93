"""Columns of Parquet as arrays: which kinds are taken, and what is said of the others."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from saln._extras import optional_import
from saln.errors import DataError, InputError
from saln.messages import parameter

# Gives the error for a row, counted from the column's first, and what is wrong with it.
Bad = Callable[[int, str], DataError]


def import_pyarrow() -> tuple[Any, Any]:
    """``pyarrow`` and ``pyarrow.parquet``.

    Raises:
        MissingExtraError: They are not installed.
    """
    with optional_import("select", "saln select writes Parquet, which"):
        return importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")


def _plain(kind: Any) -> Any:
    """What an extension type, such as a tensor of fixed shape, is stored as."""
    arrow, _ = import_pyarrow()
    return kind.storage_type if isinstance(kind, arrow.BaseExtensionType) else kind


def check_features(name: str, kind: Any) -> None:
    """Refuses a column of features that holds no lists of numbers.

    Raises:
        InputError: Names the column, its type and what is allowed.
    """
    types = import_pyarrow()[0].types
    plain = _plain(kind)
    if types.is_list(plain) or types.is_large_list(plain) or types.is_fixed_size_list(plain):
        inside = plain.value_type
        if types.is_floating(inside) or types.is_integer(inside):
            return
    raise InputError(
        f"{parameter('features_column', name)} holds {kind}; give a column of lists of floats, one "
        "list a row"
    )


def check_labels(name: str, kind: Any) -> None:
    """Refuses a column of labels that holds neither whole numbers nor names.

    Raises:
        InputError: Names the column, its type and what is allowed.
    """
    types = import_pyarrow()[0].types
    if types.is_dictionary(kind):
        kind = kind.value_type
    if not (
        types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind) or named(kind)
    ):
        raise InputError(
            f"{parameter('labels_column', name)} holds {kind}; give a column of whole numbers or "
            "of names"
        )


def named(kind: Any) -> bool:
    """Whether labels of a type are the classes' names."""
    types = import_pyarrow()[0].types
    if types.is_dictionary(kind):
        kind = kind.value_type
    return bool(types.is_string(kind) or types.is_large_string(kind))


def features_of(column: Any, name: str, width: int | None, bad: Bad) -> npt.NDArray[Any]:
    """Rows of features from a column of lists.

    Args:
        column: A ``pyarrow.ChunkedArray`` of a type that :func:`check_features` took.
        name: The column's, for messages.
        width: How many numbers each row must have; as many as the first when None.
        bad: Makes the error for a row.

    Returns:
        floating, (n, d); whole numbers become float32 where it holds them all, else float64.

    Raises:
        DataError: A row that is missing, lacks a number, or has more or fewer than others.
    """
    arrow, _ = import_pyarrow()
    array = arrow.concat_arrays(column.chunks) if column.num_chunks != 1 else column.chunk(0)
    if isinstance(array.type, arrow.BaseExtensionType):
        array = array.storage
    missing = np.flatnonzero(array.is_null().to_numpy(zero_copy_only=False))
    if len(missing):
        raise bad(int(missing[0]), f"{name} is missing")
    if arrow.types.is_fixed_size_list(array.type):
        lengths = np.full(len(array), array.type.list_size)
    else:
        lengths = np.diff(array.offsets.to_numpy())
    width = int(lengths[0]) if width is None and len(lengths) else width or 0
    other = np.flatnonzero(lengths != width)
    if len(other):
        row = int(other[0])
        raise bad(row, f"{name} has {lengths[row]} numbers where others have {width}")
    if width == 0 and len(array):
        raise bad(0, f"{name} is an empty list")
    values = array.flatten()
    if values.null_count:
        row = int(np.flatnonzero(values.is_null().to_numpy(zero_copy_only=False))[0])
        raise bad(row // width, f"{name} lacks a number")
    features: npt.NDArray[Any] = values.to_numpy(zero_copy_only=False)
    if features.dtype.kind != "f":
        features = features.astype(np.float32 if features.itemsize <= 2 else np.float64)
    return features.reshape(len(array), width)


def label_column(column: Any, name: str, bad: Bad) -> Any:
    """Labels as int64, or as strings where they are names; a ``pyarrow.Array``.

    Args:
        column: A ``pyarrow.ChunkedArray`` of a type that :func:`check_labels` took.
        name: The column's, for messages.
        bad: Makes the error for a row.

    Raises:
        DataError: A label that is missing, or no whole number that int64 holds.
    """
    arrow, _ = import_pyarrow()
    if arrow.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if column.null_count:
        missing = np.flatnonzero(column.is_null().to_numpy())
        raise bad(int(missing[0]), f"{name} is missing")
    if named(column.type):
        return column.cast(arrow.string()).combine_chunks()
    values = column.to_numpy()
    if values.dtype.kind == "f":
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


def class_codes(names: Any, classes: Any) -> npt.NDArray[np.int64]:
    """The position of each name among the classes' names."""
    compute = importlib.import_module("pyarrow.compute")
    found: npt.NDArray[np.int64] = (
        compute.index_in(names, value_set=classes).to_numpy(zero_copy_only=False).astype(np.int64)
    )
    return found


def label_numbers(labels: Any, classes: Any) -> npt.NDArray[np.int64]:
    """Labels as int64: themselves, or the position among the classes' names where there are."""
    if classes is not None:
        return class_codes(labels, classes)
    numbers: npt.NDArray[np.int64] = labels.to_numpy(zero_copy_only=False)
    return numbers
