"""The table of a review whose labels are sets of classes, or numbers."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from saln.errors import DataError, InputError
from saln.messages import parameter, shown
from saln.review.duplicate_images import Places
from saln.review.judging import nearest_of, shared_columns
from saln.review.multi_label import judge_label_sets
from saln.review.numeric_labels import judge_numbers
from saln.review.review_table import ReviewTable
from saln.review.table_items import TableItems, label_set
from saln.review.table_reading import SEPARATOR

# How numbers say that they are unknown, beside an empty text.
_UNKNOWN = frozenset({"nan", "na", "n/a", "null", "none", "-", "?"})


class _Said(NamedTuple):
    """What is said of sets or numbers: texts, and beliefs about the rows ``kept``.

    ``against`` says which of all rows' neighbors, int64 (n, k), speak against the label.
    """

    given: list[str]
    believed: list[str]
    beliefs: Any
    kept: Places
    against: Callable[[Places], npt.NDArray[np.bool_]]


def task_table(
    read: TableItems,
    features: npt.NDArray[Any],
    problems: Sequence[str] | None = None,
    thumbnails: npt.NDArray[np.uint8] | None = None,
) -> ReviewTable:
    """The table of a review whose labels are sets of classes or numbers.

    Of sets, ``given`` and ``believed`` are classes joined by ``;``, which alone stands for none at
    all. ``probability`` is that of the least likely thing that the given set says: that one of its
    classes applies, or that one which it lacks does not. So it is below one half where a label is
    more likely wrong, or more likely missing, than not; there ``believed`` differs.

    Of numbers, ``believed`` is what all other examples predict, wherever the given one lies.

    The other arguments are those of :func:`saln.review.judging.judge_items`. DataError for a label
    that is no number names its example; InputError for a class whose name holds ``;``, no or too
    few labels, or no features.
    """
    said = (_of_sets if read.task == "multi-label" else _of_numbers)(read, features)
    kept, beliefs = said.kept, said.beliefs
    probability = np.full(len(read.labels), np.nan)
    probability[kept] = beliefs.confidence
    found = (np.empty((len(kept), 0), dtype=np.int64), np.empty((len(kept), 0)))
    if beliefs.table is not None:
        found = (np.asarray(beliefs.table.indices), beliefs.table.similarities)
    near, shared = shared_columns(read.items, kept, beliefs, found, problems, thumbnails)
    return ReviewTable(
        task=read.task,
        given=said.given,
        believed=said.believed,
        probability=probability,
        margin=2.0 * probability - 1.0,
        contradicting=nearest_of(near, said.against(near)),
        message=beliefs.message,
        **shared,
    )


def _of_sets(read: TableItems, features: npt.NDArray[Any]) -> _Said:
    names = read.items.class_names
    broken = next((name for name in names if SEPARATOR in name), None)
    if broken is not None:
        raise InputError(
            f"the class {shown(broken)} holds {SEPARATOR!r}, which stands between classes here; "
            f"give {parameter('separator', SEPARATOR)} where it does so there, or rename the class"
        )
    # Which classes each example has, (n, C), and whose are given, (n,).
    numbers = {name: c for c, name in enumerate(names)}
    sets = np.zeros((len(read.labels), len(names)), dtype=bool)
    for row, text in enumerate(read.labels):
        sets[row, [numbers[name] for name in label_set(text, read.separator)]] = True
    known = np.array([bool(text) for text in read.labels])
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
    doubted = np.full((len(given), 1), -1)
    doubted[kept, 0] = beliefs.doubted

    def against(near: Places) -> npt.NDArray[np.bool_]:
        own = np.take_along_axis(sets, np.maximum(doubted, 0), axis=1)
        return np.asarray((doubted >= 0) & known[near] & (sets[near, doubted] != own))

    return _Said(given, believed, beliefs, kept, against)


def _of_numbers(read: TableItems, features: npt.NDArray[Any]) -> _Said:
    numbers = given_numbers(read)
    known = np.isfinite(numbers)
    kept = _judged_rows(features, known)
    beliefs = judge_numbers(features[kept], numbers[kept])
    expected = np.full(len(numbers), np.nan)
    expected[kept] = beliefs.expected
    believed = ["" if np.isnan(value) else f"{value:.6g}" for value in expected.tolist()]
    given = [text if is_number else "" for text, is_number
             in zip(read.labels, known.tolist(), strict=True)]  # fmt: skip

    def against(near: Places) -> npt.NDArray[np.bool_]:
        # Nearer to what is expected than to what is given; no comparison with NaN holds.
        off, far = (np.abs(numbers[near] - each[:, None]) for each in (expected, numbers))
        return np.asarray(off < far)

    return _Said(given, believed, beliefs, kept, against)


def given_numbers(read: TableItems) -> npt.NDArray[np.float64]:
    """Labels as numbers, float64 (n,), NaN where there is none; DataError for no number."""
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


def _judged_rows(features: npt.NDArray[Any], known: npt.NDArray[np.bool_]) -> Places:
    """The rows that have features."""
    kept: Places = np.flatnonzero(np.isfinite(features).all(axis=1))
    if not known[kept].any():
        raise InputError("no example that can be read has a label; give another data set")
    return kept
