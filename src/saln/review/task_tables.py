"""The table of a review whose labels are sets of classes, or numbers."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from saln.errors import DataError, InputError
from saln.features.neighbors import NeighborTable
from saln.messages import parameter, shown
from saln.review.duplicate_images import group_duplicates
from saln.review.judging import nearest_of
from saln.review.multi_label import judge_label_sets
from saln.review.numeric_labels import judge_numbers
from saln.review.outliers import outlier_scores
from saln.review.review_table import ReviewTable
from saln.review.table_items import TableItems, label_set
from saln.review.table_reading import SEPARATOR

# How numbers say that they are unknown, beside an empty text.
_UNKNOWN = frozenset({"nan", "na", "n/a", "null", "none", "-", "?"})

Places = npt.NDArray[np.int64]


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

    Args:
        read: n examples.
        features: floating, (n, d); rows that are not finite are not judged.
        problems: (n,): what is wrong with each example.
        thumbnails: Of images: see :func:`saln.review.judging.judge_items`.

    Raises:
        DataError: A label that is no number; names its example.
        InputError: A class whose name holds ``;``; no or too few labels, or no features.
    """
    said = (_of_sets if read.task == "multi-label" else _of_numbers)(read, features)
    items, kept, beliefs, count = read.items, said.kept, said.beliefs, len(read.labels)
    probability = np.full(count, np.nan)
    probability[kept] = beliefs.confidence
    near, similarities = _neighbors(beliefs.table, kept, count)
    return ReviewTable(
        dataset=items.dataset,
        task=read.task,
        class_names=items.class_names,
        ids=items.ids,
        splits=items.splits,
        given=said.given,
        believed=said.believed,
        probability=probability,
        margin=2.0 * probability - 1.0,
        group=group_duplicates(near, thumbnails, [kept[rows] for rows in beliefs.groups]),
        outlier=outlier_scores(near, similarities),
        problem=list(problems or [""] * count),
        contradicting=nearest_of(near, said.against(near)),
        decision=[""] * count,
        label=[""] * count,
        keys=items.keys,
        noise_rate=beliefs.noise_rate,
        noise_interval=beliefs.noise_interval,
        informative=beliefs.informative,
        message=beliefs.message,
    )


def _of_sets(read: TableItems, features: npt.NDArray[Any]) -> _Said:
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


def _neighbors(
    table: NeighborTable | None, kept: Places, count: int
) -> tuple[Places, npt.NDArray[np.float32]]:
    """The nearest of every example and their cosines, (n, k); -1 where there are none."""
    width = 0 if table is None else table.indices.shape[1]
    near = np.full((count, width), -1, dtype=np.int64)
    similarities = np.zeros((count, width), dtype=np.float32)
    if table is not None:
        found = np.asarray(table.indices)
        near[kept] = np.where(found >= 0, kept[found], -1)
        similarities[kept] = np.nan_to_num(table.similarities)
    return near, similarities
