"""What people give, as what it plainly means: paths, whole numbers, labels.

Numbers of NumPy, tensors, lists and pandas are taken; what could mean two things is refused.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from saln.converter import convert
from saln.errors import InputError
from saln.messages import first_line, not_allowed, parameter

# How many numbers are looked at at once: a mapped array is never read into memory as a whole.
_NUMBERS = 2**22


def check_finite(
    values: npt.NDArray[Any] | Tensor,
    name: str,
    *,
    rows: Sequence[int] | npt.NDArray[np.int64] | None = None,
    of: str = "example",
    cure: str = "find what made them so, or leave that example out",
) -> None:
    """Refuses rows of (n, ...) with a NaN or infinity; names the first by ``rows``, or by place."""
    row = first_nonfinite(values)
    if row is not None:
        number = row if rows is None else int(rows[row])
        raise InputError(f"{name} of {of} {number} are NaN or infinite; {cure}")


def first_nonfinite(values: npt.NDArray[Any] | Tensor) -> int | None:
    """The first row of (n, ...) that holds a NaN or an infinity; None where there is none."""
    if isinstance(values, Tensor):
        # A sum in wider numbers is finite only if all are; far quicker than to look at each.
        if not values.is_floating_point() or math.isfinite(
            float(values.detach().sum(dtype=torch.float64))
        ):
            return None
        finite = torch.isfinite(values.detach().reshape(len(values), -1)).all(dim=1)
        return None if bool(finite.all()) else int((~finite).int().argmax())
    if not np.issubdtype(values.dtype, np.floating):
        return None
    size = max(1, _NUMBERS // max(1, values.size // max(1, len(values))))
    for start in range(0, len(values), size):
        part = values[start : start + size]
        good = np.isfinite(part).reshape(len(part), -1).all(axis=1)
        if not good.all():
            return start + int(good.argmin())
    return None


def as_path(path: Any, name: str) -> Path:
    """A path that somebody gave, with ``~`` for the home folder; InputError where it is none."""
    text = os.fspath(path) if isinstance(path, str | os.PathLike) else None
    if not isinstance(text, str):
        raise InputError(f"{parameter(name, path)} is no path; give text or a pathlib.Path")
    if not text or "\0" in text:
        raise not_allowed(name, text, "the path of a file or folder")
    return expanded(text)


def expanded(text: str | Path) -> Path:
    """A path with ``~`` for the home folder, where there is such a user."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)


def is_folder(path: Path) -> bool:
    """Whether a folder is there; False for names that no system allows, too."""
    return os.path.isdir(path)  # noqa: PTH112 (which raises for them)


def as_whole(value: Any, name: str, low: int | None = None, high: int | None = None) -> int:
    """A whole number that somebody gave, as ``8`` or ``8.0``, in bounds; InputError for others."""
    try:
        whole: int | None = convert(value, int)
    except ValueError:
        whole = None
    if whole is None or (low is not None and whole < low) or (high is not None and whole > high):
        allowed = "a whole number" if low is None else f"at least {low}, a whole number"
        if low is not None and high is not None:
            allowed = f"{low} to {high}, a whole number"
        raise not_allowed(name, value, allowed)
    return whole


def as_share(value: Any, name: str) -> float:
    """A share in [0, 1) that somebody gave, as ``numpy.float32(0.1)`` or ``0``; else InputError."""
    try:
        share: float = convert(value, float)
    except ValueError:
        share = math.nan
    if not 0 <= share < 1:
        raise not_allowed(name, value, "a share in [0, 1), e.g. 0.1")
    return share


def as_array(values: Any, name: str) -> npt.NDArray[Any]:
    """Values that somebody gave as an array, tensor, list or of pandas; InputError for no array."""
    try:
        if isinstance(values, Tensor):
            # NumPy knows no bfloat16.
            wide = values.float() if values.dtype == torch.bfloat16 else values
            return np.asarray(wide.numpy(force=True))
        if isinstance(values, list | tuple) and values and isinstance(values[0], Tensor):
            return as_array(torch.stack(list(values)), name)
        array = np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"{name} are a {type(values).__name__} that is no array ({first_line(error)}); give a "
            "NumPy array, a tensor or a list of equally long rows"
        ) from error
    return array


def as_wholes(values: Any, name: str) -> npt.NDArray[np.int64]:
    """Whole numbers that somebody gave, floats among them: int64, (n,); InputError for others."""
    array = as_array(values, name)
    # A column of a table has a second dimension of one.
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.size == 0 and array.ndim == 1:
        return np.zeros(0, dtype=np.int64)
    # Class numbers that went through a data frame with gaps come as floats.
    whole = array.dtype.kind in "iu" or (
        array.dtype.kind == "f" and bool((np.floor(array) == array).all())
    )
    if array.ndim != 1 or not whole:
        raise InputError(
            f"{name} are {array.dtype} of shape {array.shape}; give whole numbers, one a row"
        )
    return array.astype(np.int64)


def as_label(label: Any) -> int:
    """One example's class, alone or in an array, a number of any type; else InputError."""
    given = label
    # Only what prints on one short line is shown; a picture in the label's place is not.
    plain = isinstance(label, int | float | complex | str | np.generic | Tensor | None)
    shown = " ".join(repr(label).split())[:60] if plain else f"a {type(label).__name__}"
    if isinstance(label, Tensor | np.ndarray | list | tuple):
        array = as_array(label, "labels")
        if array.size != 1:
            raise InputError(
                f"its label has shape {array.shape}, expected a whole number, one a class; of "
                "one-hot or soft labels give their argmax"
            )
        given = array.reshape(-1)[0]
    if given is None or (isinstance(given, float | np.floating) and np.isnan(given)):
        raise InputError(f"its label is {shown}; give its class, or leave that example out")
    broken = isinstance(given, float | np.floating) and not float(given).is_integer()
    if broken or not isinstance(given, int | float | np.integer | np.floating | np.bool_):
        raise InputError(f"its label is {shown}, expected a whole number, one a class")
    whole = int(given)
    if not 0 <= whole < 2**63:
        raise InputError(
            f"its label is {shown}; give whole numbers from 0, and leave out what has no class"
        )
    return whole


def as_labels(
    labels: Any, shape: tuple[int, ...]
) -> tuple[npt.NDArray[np.int64], tuple[str, ...] | None]:
    """Labels that somebody gave, as class numbers, for features of this ``shape``.

    They are (n,) or (n, 1): whole numbers from 0 of any type, floats among them; booleans; or the
    classes' names. Gives int64, (n,), and the names of classes 0, 1, ... where names were given:
    in alphabetical order. InputError for another shape or length, or a label that is no class,
    names the row.
    """
    if labels is None:
        raise InputError(
            "a feature store holds labels, and none are given; give one a row, or use the "
            "features without a store: SelectedBatches takes an array"
        )
    array = as_array(labels, "labels")
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.shape != tuple(shape[:1]):
        hint = ", and of one-hot or soft labels their argmax" if array.ndim == 2 else ""
        raise InputError(
            f"features are {tuple(shape)} and labels {array.shape}; give (n, d) and (n,){hint}"
        )
    if array.dtype == object:
        array = _plain(array)
    if array.dtype.kind == "U":
        names, numbers = np.unique(array, return_inverse=True)
        return numbers.astype(np.int64), tuple(map(str, names))
    if array.dtype.kind not in "iufb":
        raise InputError(
            f"labels are {array.dtype}; give whole numbers from 0, or the classes' names"
        )
    if array.dtype.kind == "f":
        _refuse(~np.isfinite(array), array, "; give its class, or leave that example out")
        _refuse(
            array != np.floor(array),
            array,
            ", which is no class; give whole numbers: numbers to be predicted have no classes, "
            "so sort them into intervals first; `saln labels --task regression` judges them as "
            "they are",
        )
    if array.dtype.kind in "if":
        _refuse(array < 0, array, "; give 0 or more, and leave out what has no class")
    if array.dtype.kind in "uf":
        # int64 would turn these into negative numbers, without a word.
        beyond = array.astype(np.float64) >= 2.0**63
        _refuse(beyond, array, ", more than a class can be; number the classes from 0")
    return array.astype(np.int64), None


def _plain(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Python's own objects, all of one kind, as an array of that kind."""
    # Text and numbers together would all become text, and 1 and "1" one class.
    names = np.array([isinstance(value, str) for value in array])
    numbers = np.array([isinstance(value, int | float | np.number | np.bool_) for value in array])
    if not (names.all() or numbers.all()):
        kind = names if names[0] else numbers
        row = int((~kind).argmax())
        raise InputError(
            f"the label of example {row} is {array[row]!r}; give whole numbers from 0, or the "
            "classes' names, one an example"
        )
    return np.array(array.tolist())


def _refuse(bad: npt.NDArray[np.bool_], array: npt.NDArray[Any], why: str) -> None:
    if bad.any():
        row = int(bad.argmax())
        raise InputError(f"the label of example {row} is {array[row]}{why}")
