"""Labels as people give them: numbers, names, soft, or missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from saln.data.arguments import as_array, as_labels
from saln.errors import InputError
from saln.features.store import FeatureStore

# A soft label that gives one class so much says that class alone.
CERTAIN = 1.0 - 1e-6


@dataclass(frozen=True)
class GivenLabels:
    """Labels, with the classes that occur numbered from 0.

    Attributes:
        places: int64, (n,): each label's place among ``classes``; -1: unknown or soft, casts
            no vote.
        classes: int64, (C,): the labels that occur, in order.
        names: One name a class that occurs.
        soft: float64, (n, C), where soft labels were given; else None.
        named: Whether the labels were names, so that numbers are of no meaning.
    """

    places: npt.NDArray[np.int64]
    classes: npt.NDArray[np.int64]
    names: tuple[str, ...]
    soft: npt.NDArray[np.float64] | None = None
    named: bool = False


def given_labels(labels: Any, count: int, class_names: Sequence[str] | None = None) -> GivenLabels:
    """Reads labels.

    Args:
        labels: (n,): whole numbers of any type, where a negative one, NaN or None is unknown;
            names, where None, NaN or an empty one is unknown; or (n, C): shares of classes, a
            row of zeros or NaN for unknown.
        count: n.
        class_names: The names of classes 0, 1, ...; what the labels say when not given.

    Raises:
        InputError: Labels that are none, or fewer names than classes.
    """
    if isinstance(labels, list | tuple) and any(value is None for value in labels):
        array = np.array(labels, dtype=object)
    else:
        array = as_array(labels, "labels")
    if array.ndim == 2 and array.shape[1] > 1:
        return _soft(array, count, class_names)
    array = array.reshape(-1) if array.ndim == 2 else array
    if array.shape != (count,):
        raise InputError(f"{count} rows of features and labels {array.shape}; give one a row")
    known = ~_missing(array)
    if not known.any():
        raise InputError("no example has a label; give at least one")
    kept = array[known]
    if kept.dtype == object:
        kept = np.array(kept.tolist())
        if not all(isinstance(v, str) for v in array[known].tolist()) and kept.dtype.kind == "U":
            kept = array[known]  # a mixture, which as_labels refuses by row
    numbers, names = as_labels(kept, kept.shape)
    if names is not None and class_names is not None:
        raise InputError("labels that are names already leave no place for class_names")
    places = np.full(count, -1, dtype=np.int64)
    classes, places[known] = np.unique(numbers, return_inverse=True)
    called = _names(classes, names or class_names)
    return GivenLabels(places, classes, called, named=names is not None)


def _missing(array: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    if array.dtype.kind == "f":
        return np.asarray(np.isnan(array) | (array < 0))
    if array.dtype.kind == "i":
        return np.asarray(array < 0)
    if array.dtype.kind == "U":
        return np.asarray(array == "")
    if array.dtype == object:
        return np.array(
            [v is None or v == "" or v != v or (not isinstance(v, str) and v < 0) for v in array]
        )
    return np.zeros(array.shape, dtype=bool)


def _names(classes: npt.NDArray[np.int64], names: Sequence[str] | None) -> tuple[str, ...]:
    if names is None:
        return tuple(map(str, classes.tolist()))
    if int(classes.max()) >= len(names):
        raise InputError(
            f"a label is {int(classes.max())} and there are {len(names)} class names; give the "
            "names of classes 0 to the highest"
        )
    return tuple(str(names[c]) for c in classes.tolist())


def _soft(array: npt.NDArray[Any], count: int, class_names: Sequence[str] | None) -> GivenLabels:
    if len(array) != count or array.dtype.kind not in "fiub":
        raise InputError(
            f"{count} rows of features and soft labels {array.shape} of {array.dtype}; give one "
            "row of shares a row"
        )
    shares = np.nan_to_num(array.astype(np.float64), nan=0.0)
    if (shares < 0).any() or not np.isfinite(shares).all():
        row = int(((shares < 0) | ~np.isfinite(shares)).any(axis=1).argmax())
        raise InputError(
            f"the soft label of example {row} is {array[row]}; give shares from 0 to 1"
        )
    total = shares.sum(axis=1, keepdims=True)
    shares = np.divide(shares, total, out=np.zeros_like(shares), where=total > 0)
    certain = shares.max(axis=1) >= CERTAIN
    if not certain.any():
        raise InputError(
            "no soft label says one class alone, so none casts a vote; give the labels that are "
            "known as 1 and 0"
        )
    places = np.where(certain, shares.argmax(axis=1), -1)
    classes = np.flatnonzero(shares.any(axis=0))
    places = np.where(certain, np.searchsorted(classes, places), -1)
    return GivenLabels(places, classes, _names(classes, class_names), shares[:, classes])


def labels_of(
    features: Any, labels: Any, class_names: Sequence[str] | None
) -> tuple[Any, Sequence[str] | None]:
    """The labels and names that a feature store brings, where none are given."""
    if isinstance(features, FeatureStore) and labels is None:
        return features.labels, class_names or features.class_names
    return labels, class_names
