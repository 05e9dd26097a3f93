"""The table of a review whose labels are sets of classes, or numbers."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from saln.errors import DataError, InputError
from saln.features.neighbors import NeighborTable
from saln.messages import parameter, shown
from saln.review.multi_label import judge_label_sets
from saln.review.numeric_labels import judge_numbers
from saln.review.review_table import ReviewTable
from saln.review.table_items import TableItems, label_set
from saln.review.table_reading import SEPARATOR

# Neighbors that speak against a label, in a table.
SHOWN = 3
# How numbers say that they are unknown, beside an empty text.
_UNKNOWN = frozenset({"nan", "na", "n/a", "null", "none", "-", "?"})

Places = npt.NDArray[np.int64]


def task_table(
    read: TableItems, features: npt.NDArray[Any], problems: Sequence[str] | None = None
) -> ReviewTable:
    """The table of sets of classes or of numbers, by the task; see the two below."""
    by_task = multi_label_table if read.task == "multi-label" else regression_table
    return by_task(read, features, problems)


def multi_label_table(
    read: TableItems, features: npt.NDArray[Any], problems: Sequence[str] | None = None
) -> ReviewTable:
    """The table of sets of classes.

    ``given`` and ``believed`` are the classes, joined by ``;``, which alone stands for none at all.
    ``probability`` is that of the least likely thing that the given set says: that one of its
    classes applies, or that one which it lacks does not. So it is below one half where a label is
    more likely wrong, or more likely missing, than not, and there ``believed`` differs.

    Args:
        read: The examples.
        features: floating, (n, d); rows that are not finite are not judged.
        problems: (n,): what is wrong with each example.

    Raises:
        InputError: A class whose name holds ``;``; no labels, or no features.
    """
    names = read.items.class_names
    broken = next((name for name in names if SEPARATOR in name), None)
    if broken is not None:
        raise InputError(
            f"the class {shown(broken)} holds {SEPARATOR!r}, which stands between classes here; "
            f"give {parameter('separator', SEPARATOR)} where it does so there, or rename the class"
        )
    sets, known = _sets(read)
    kept = _judged_rows(features, known)
    beliefs = judge_label_sets(features[kept], sets[kept], known[kept], class_names=names)
    given = [SEPARATOR.join(label_set(text, read.separator)) or SEPARATOR if text else ""
             for text in read.labels]  # fmt: skip
    believed = [""] * len(given)
    applies = beliefs.probabilities > 0.5
    for place, row in enumerate(kept.tolist()):
        # Where nothing is doubted the text stays as it is, with its order of classes.
        same = known[row] and (applies[place] == sets[row]).all()
        text = SEPARATOR.join(names[c] for c in np.flatnonzero(applies[place]))
        believed[row] = given[row] if same else text or SEPARATOR
    doubted, asked = beliefs.doubted[:, None], np.maximum(beliefs.doubted, 0)[:, None]
    has, whole = sets[kept], known[kept]

    def differs(near: Places) -> npt.NDArray[np.bool_]:
        own = np.take_along_axis(has, asked, axis=1)
        return np.asarray((doubted >= 0) & whole[near] & (has[near, asked] != own))

    return _table(
        read, given, believed, beliefs, kept, problems, _contradicting(beliefs.table, differs)
    )


def regression_table(
    read: TableItems, features: npt.NDArray[Any], problems: Sequence[str] | None = None
) -> ReviewTable:
    """The table of numbers: ``believed`` is what all other examples foretell.

    Args:
        read: The examples.
        features: floating, (n, d); rows that are not finite are not judged.
        problems: (n,): what is wrong with each example.

    Raises:
        DataError: A label that is no number; names its example.
        InputError: Too few numbers, or no features.
    """
    numbers = given_numbers(read)
    kept = _judged_rows(features, np.isfinite(numbers))
    beliefs = judge_numbers(features[kept], numbers[kept])
    believed = [""] * len(numbers)
    for row, value in zip(kept.tolist(), beliefs.expected.tolist(), strict=True):
        believed[row] = f"{value:.6g}"
    own, expected = numbers[kept][:, None], beliefs.expected[:, None]

    def differs(near: Places) -> npt.NDArray[np.bool_]:
        others = numbers[kept][near]
        return np.asarray(np.abs(others - expected) < np.abs(others - own))

    given = [text if known else "" for text, known
             in zip(read.labels, np.isfinite(numbers).tolist(), strict=True)]  # fmt: skip
    return _table(
        read, given, believed, beliefs, kept, problems, _contradicting(beliefs.table, differs)
    )


def given_numbers(read: TableItems) -> npt.NDArray[np.float64]:
    """Labels as numbers, float64 (n,); NaN where there is none.

    Raises:
        DataError: One is no finite number; names its example.
    """
    numbers = np.full(len(read.labels), np.nan)
    for row, text in enumerate(read.labels):
        if not text or text.strip().lower() in _UNKNOWN:
            continue
        with contextlib.suppress(ValueError):
            numbers[row] = float(text)
        if not math.isfinite(numbers[row]):
            raise DataError(
                f"the label of {shown(read.items.ids[row])} is {shown(text)}, no number; give "
                "numbers such as 3 or -0.25, and nothing where it is unknown"
            )
    return numbers


def _sets(read: TableItems) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Which classes each example has, (n, C), and whose are given, (n,)."""
    place = {name: c for c, name in enumerate(read.items.class_names)}
    sets = np.zeros((len(read.labels), len(place)), dtype=bool)
    for row, text in enumerate(read.labels):
        sets[row, [place[name] for name in label_set(text, read.separator)]] = True
    return sets, np.array([bool(text) for text in read.labels])


def _judged_rows(features: npt.NDArray[Any], known: npt.NDArray[np.bool_]) -> Places:
    """The rows that have features."""
    kept: Places = np.flatnonzero(np.isfinite(features).all(axis=1))
    if not known[kept].any():
        raise InputError("no example that can be read has a label; give another data set")
    return kept


def _contradicting(table: NeighborTable | None, differs: Any) -> npt.NDArray[np.int32]:
    """Of each example the nearest that speak against its label, -1 where there are fewer."""
    if table is None or table.indices.shape[1] == 0:
        return np.full((0, SHOWN), -1, dtype=np.int32)
    near = np.asarray(table.indices).astype(np.int64)
    against = differs(np.maximum(near, 0)) & (near >= 0)
    # A stable sort of yes and no: those that differ come first, and stay in their order.
    order = np.argsort(~against, axis=1, kind="stable")[:, :SHOWN]
    chosen = np.take_along_axis(np.where(against, near, -1), order, axis=1)
    missing = ((0, 0), (0, SHOWN - chosen.shape[1]))
    return np.pad(chosen, missing, constant_values=-1).astype(np.int32)


def _table(
    read: TableItems,
    given: list[str],
    believed: list[str],
    beliefs: Any,
    kept: Places,
    problems: Sequence[str] | None,
    against: npt.NDArray[np.int32],
) -> ReviewTable:
    """Everything over all rows; ``against`` counts those that were judged."""
    items, count = read.items, len(read.labels)
    probability = np.full(count, np.nan)
    probability[kept] = beliefs.confidence
    group = np.full(count, -1, dtype=np.int64)
    for number, rows in enumerate(beliefs.groups):
        group[kept[rows]] = number
    contradicting = np.full((count, SHOWN), -1, dtype=np.int32)
    if len(against):
        contradicting[kept] = np.where(against >= 0, kept[np.maximum(against, 0)], -1)
    return ReviewTable(
        dataset=items.dataset,
        task=read.task,
        class_names=items.class_names,
        ids=items.ids,
        splits=items.splits,
        given=given,
        believed=believed,
        probability=probability,
        margin=2.0 * probability - 1.0,
        group=group,
        outlier=np.full(count, np.nan),
        problem=list(problems or [""] * count),
        contradicting=contradicting,
        decision=[""] * count,
        label=[""] * count,
        keys=items.keys,
        noise_rate=beliefs.noise_rate,
        noise_interval=beliefs.noise_interval,
        informative=beliefs.informative,
        message=beliefs.message,
    )
