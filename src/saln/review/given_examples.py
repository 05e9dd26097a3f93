"""Texts, sets of classes and numbers that somebody gave in Python, as a table holds them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from saln.errors import InputError
from saln.messages import parameter, shown
from saln.review.table_items import Task
from saln.review.table_reading import SEPARATOR, as_text


def texts_of(values: Any) -> list[str] | None:
    """Texts that somebody gave as a list, an array or a column; None where they are none."""
    some = values.tolist() if hasattr(values, "tolist") else values
    if not isinstance(some, list | tuple) or not some:
        return None
    return list(some) if all(isinstance(text, str) for text in some) else None


def label_texts(
    labels: Any, count: int, task: Task, class_names: Sequence[str] | None
) -> list[str]:
    """Sets of classes, or numbers, that somebody gave, as a table holds them.

    ``labels`` are (n,): lists of classes or numbers, None or NaN where there is none; or yes and no
    for each class, (n, C). ``class_names`` name classes 0, 1, ...; None where lists hold names.
    InputError for not one an example, another task, or what is no label of it.
    """
    if task not in ("multi-label", "regression"):
        raise InputError(
            f"{parameter('task', task)} is not allowed; give classes, multi-label or regression"
        )
    given = labels.tolist() if hasattr(labels, "tolist") else list(labels)
    if len(given) != count:
        raise InputError(f"{count} examples and {len(given)} labels; give one an example")
    if task == "multi-label" and getattr(labels, "ndim", 1) == 2:
        given = [[place for place, has in enumerate(row) if has] for row in given]
    if task == "multi-label" and class_names is not None:
        given = [row if row is None else [class_names[place] for place in row] for row in given]
    nested = [row for row in given if isinstance(row, list | tuple | set | frozenset)]
    if task == "regression" and nested:
        raise InputError(f"a label is {shown(nested[0])}; give a number an example")
    plain = (sorted(row, key=str) if isinstance(row, set | frozenset) else row for row in given)
    return [as_text(row, SEPARATOR) for row in plain]
