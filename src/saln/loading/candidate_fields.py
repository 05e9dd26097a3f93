"""What people give to those that choose before loading, as what it plainly means."""

from __future__ import annotations

import inspect
import operator
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from saln.data.arguments import as_array, as_labels, check_finite
from saln.errors import InputError
from saln.features.store import FeatureStore
from saln.loading.filter_schedule import FilterSchedule
from saln.loading.mmap_rows import MmapRows
from saln.selection.candidates import exact_ratio
from saln.selection.coherence import label_confidence as judged_confidence
from saln.selection.contract import BEFORE_LOADING, Selector
from saln.selection.registry import SELECTORS, read_selector


def as_selector(selector: Any) -> Selector:
    """A selector, from one, its class, or its name on the command line.

    Raises:
        InputError: It is none, or a class that needs arguments.
    """
    if isinstance(selector, Selector):
        return selector
    if isinstance(selector, str):
        try:
            return read_selector(selector)
        except InputError as error:
            raise InputError(f"selector {error}") from error
    if isinstance(selector, type) and issubclass(selector, Selector):
        needed = [
            name
            for name, parameter in inspect.signature(selector).parameters.items()
            if parameter.default is parameter.empty
            and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        ]
        if needed or inspect.isabstract(selector):
            raise InputError(
                f"selector {selector.__name__} is a class, which needs "
                f"{', '.join(needed) or 'its method choose'}; give an object of it"
            )
        return selector()
    raise InputError(
        f"selector {selector!r} is not allowed; give a saln.Selector, such as saln.SALN(), or the "
        f"name of one: {', '.join(SELECTORS)}"
    )


def as_number(value: Any, name: str) -> int:
    """A whole number, such as a seed or an epoch, from one of any type.

    Numbers of NumPy must become plain: what is derived from them depends on their type.

    Raises:
        InputError: It is none.
    """
    if not isinstance(value, bool | np.bool_):
        try:
            return operator.index(value)
        except TypeError:
            if isinstance(value, float | np.floating) and float(value).is_integer():
                return int(value)
            if isinstance(value, Tensor) and value.numel() == 1:
                return as_number(value.item(), name)
    raise InputError(f"{name}={value!r} is not allowed; give a whole number")


def as_ratio(value: Any) -> float | FilterSchedule:
    """A filter ratio, or a schedule of it.

    Raises:
        InputError: It is neither, or outside [0, 1).
    """
    if isinstance(value, FilterSchedule):
        return value
    if isinstance(value, Tensor) and value.numel() == 1:
        value = value.numpy(force=True).reshape(())[()]
    if isinstance(value, bool) or not isinstance(value, int | float | np.number | Fraction):
        raise InputError(
            f"filter_ratio={value!r} is not allowed; give the share to drop, in [0, 1), or a "
            "saln.FilterSchedule"
        )
    # Shortest decimals: a float32 of 0.8 means 0.8.
    ratio = float(str(value)) if isinstance(value, np.floating) else float(value)
    exact_ratio(ratio)
    return ratio


def as_rows(features: Any) -> npt.NDArray[Any] | Any:
    """Features that somebody gave, (n, d); what lies in a file stays there.

    Raises:
        InputError: They are no rows of numbers.
    """
    held = hasattr(features, "ndim") and hasattr(features, "shape")
    if not held or isinstance(features, Tensor) or hasattr(features, "to_numpy"):
        features = as_array(features, "features")
    kind = getattr(getattr(features, "dtype", None), "kind", "f")
    if features.ndim != 2 or kind not in "fiub":
        raise InputError(
            f"features are {features.dtype} {tuple(features.shape)}; give numbers, (n, d): one row "
            "an example"
        )
    if kind != "f" and isinstance(features, np.ndarray):
        features = features.astype(np.float32)
    return features


def as_indices(indices: Any) -> Tensor:
    """Positions in the data set: int64, (m,), on the CPU, from an array, tensor or list.

    Raises:
        InputError: They are no whole numbers.
    """
    array = as_array(indices, "indices").reshape(-1)
    if array.size and array.dtype.kind not in "iu":
        raise InputError(
            f"indices are {array.dtype}, expected whole numbers: a float loses their digits"
        )
    return torch.from_numpy(array.astype(np.int64))


def as_losses(losses: Any, n: int) -> Tensor:
    """One loss an example: floating, (n,), from a tensor, array or list.

    Raises:
        InputError: There are not ``n``, or they are no numbers.
    """
    if not isinstance(losses, Tensor):
        losses = torch.from_numpy(as_array(losses, "losses").astype(np.float64))
    losses = losses.detach()
    if losses.numel() != n:
        raise InputError(
            f"{losses.numel()} losses for {n} indices; give one an example, before the mean: "
            'reduction="none"'
        )
    losses = losses.reshape(-1)
    values: Tensor = losses if losses.is_floating_point() else losses.float()
    return values


def check_before_loading(selector: Selector) -> None:
    """Raises where a selector needs what only the learner can give.

    Raises:
        InputError: It does.
    """
    if not selector.chooses_before_loading():
        needs = ", ".join(sorted(selector.requires - BEFORE_LOADING))
        raise InputError(
            f"{type(selector).__name__} requires {needs}, which only the learner can give; "
            "use saln.LearnerSelected, which chooses after loading"
        )


def known_before_loading(
    selector: Selector,
    features: Any,
    labels: Any,
    label_confidence: Any,
    *,
    owner: str,
    length: int | None = None,
) -> tuple[dict[str, MmapRows], int]:
    """What a selector chooses by, as rows, and how many rows there are.

    Args:
        selector: Reads it.
        features: A feature store, rows (n, d), or None.
        labels: (n,) or (n, 1): classes, by number or name; by default the store's.
        label_confidence: (n,): by default, where there are features and labels, what their
            neighbors make of the labels.
        owner: Who asks, for messages.
        length: How many examples there are, where there are no features.

    Raises:
        InputError: Something that the selector requires is missing, of another kind or length,
            or not finite.
    """
    store = features if isinstance(features, FeatureStore) else None
    rows = None
    if features is not None:
        rows = as_rows(features if store is None else store.features)
        length = len(rows)
    what = "examples" if rows is None else "rows of features"
    if labels is not None:
        labels = as_array(labels, "labels")
        length = _same(length, labels, "labels", what)
        labels = as_labels(labels, (length,))[0]
    elif store is not None:
        labels = store.labels
    if label_confidence is not None:
        label_confidence = _numbers(as_array(label_confidence, "label_confidence"))
        length = _same(length, label_confidence, "label_confidence", what)
    elif "label_confidence" in selector.requires and rows is not None and labels is not None:
        if store is None:
            check_finite(rows, "features")
        label_confidence = judged_confidence(rows if store is None else store, labels)
    given = {"features": rows, "labels": labels, "label_confidence": label_confidence}
    fields: dict[str, MmapRows] = {}
    for name in sorted(selector.requires):
        values = given[name]
        if values is None:
            also = ""
            if name == "label_confidence" and rows is not None:
                also = ", or labels, of which it is made"
            raise InputError(
                f"{type(selector).__name__} requires {name}; give them to {owner}{also}"
            )
        if store is None or name != "features":  # a store says where it holds others
            check_finite(values, name)
        fields[name] = MmapRows(values)
    return fields, length or 0


def _same(length: int | None, values: npt.NDArray[Any], name: str, what: str) -> int:
    if values.ndim == 0:
        raise InputError(f"{name} is one {type(values.item()).__name__}; give one an example")
    if length is not None and len(values) != length:
        raise InputError(f"{length} {what} but {len(values)} {name}; give one a row")
    return len(values)


def _numbers(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1 or values.dtype.kind not in "fiub":
        raise InputError(
            f"label_confidence is {values.dtype} {values.shape}; give numbers, (n,): how likely "
            "each label is right"
        )
    return values if values.dtype.kind == "f" else values.astype(np.float32)
