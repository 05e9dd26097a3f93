"""From features and labels to the table of what is believed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from saln.errors import DataError
from saln.labels.beliefs import LabelBeliefs
from saln.labels.judge import judge_labels
from saln.review.duplicate_images import Places, group_duplicates
from saln.review.outliers import outlier_scores
from saln.review.review_items import ReviewItems
from saln.review.review_table import ReviewTable

# How many contradicting neighbors are kept of each example.
SHOWN = 3
# What is said where there is nothing to compare a label with.
ONE_CLASS = (
    "there is one class alone, so no label can be doubted; what cannot be read, near duplicates "
    "and examples like no others are listed; add a second class to have the labels judged"
)


def judge_items(
    items: ReviewItems,
    features: npt.NDArray[Any],
    *,
    problems: Sequence[str] | None = None,
    thumbnails: npt.NDArray[np.uint8] | None = None,
    noise_rate: float | None = None,
) -> ReviewTable:
    """Judges every label by all the others, and says what the same features show beside that.

    Features are float, (n, d), NaN where an example has none; ``problems`` say what is wrong with
    the examples themselves; near duplicates are found by ``thumbnails``, gray, uint8 (n, s, s), 0
    for unreadable images; ``noise_rate`` is the share of wrong labels where that is known.
    DataError where no example with features has a label.
    """
    count = len(items)
    kept = np.flatnonzero(np.isfinite(features).all(axis=1))
    if not (items.given[kept] >= 0).any():
        reason = next((problem for problem in problems or () if problem), "no labels")
        raise DataError(
            f"nothing in {items.dataset} can be judged: no example that can be read has a label "
            f"({reason}); give another data set"
        )
    beliefs = judge_labels(
        features[kept], items.given[kept], class_names=items.class_names, noise_rate=noise_rate
    )
    names = np.array([*items.class_names, ""], dtype=object)  # the last for -1: none
    probability, margin = np.full(count, np.nan), np.full(count, np.nan)
    probability[kept] = beliefs.confidence.numpy()
    others, other_shares = _likeliest_others(beliefs)
    margin[kept] = probability[kept] - other_shares
    believed = np.full(count, -1, dtype=np.int64)
    # Of a label that is more likely wrong than right the likeliest other one, though it alone may
    # be likelier than each.
    doubted = beliefs.suspicious.numpy()
    believed[kept] = np.where(doubted, others, beliefs.believed.numpy())
    found = (beliefs.neighbors, beliefs.similarities)
    near, shared = shared_columns(items, kept, beliefs, found, problems, thumbnails)
    against = (items.given[near] >= 0) & (items.given[near] != items.given[:, None])
    return ReviewTable(
        task="classes",
        given=names[items.given].tolist(),
        believed=names[believed].tolist(),
        probability=probability,
        margin=margin,
        contradicting=nearest_of(near, against),
        message=ONE_CLASS if len(items.class_names) == 1 else beliefs.message,
        **shared,
    )


def shared_columns(
    items: ReviewItems,
    kept: Places,
    beliefs: Any,
    found: tuple[npt.NDArray[Any], npt.NDArray[Any]],
    problems: Sequence[str] | None,
    thumbnails: npt.NDArray[np.uint8] | None,
) -> tuple[Places, dict[str, Any]]:
    """What the tables of all tasks have alike, by field, behind the neighbors of every example.

    Beliefs are about the rows ``kept``, of which ``found`` has the neighbors and their cosines,
    (m, k). Neighbors are int64, (n, k), nearest first; -1 where there are none.
    """
    count = len(items)
    indices, cosines = found
    near = np.full((count, indices.shape[1]), -1, dtype=np.int64)
    similarities = np.zeros(near.shape, dtype=np.float32)
    near[kept] = np.where(indices >= 0, kept[indices], -1)
    similarities[kept] = np.nan_to_num(cosines)
    return near, {
        "dataset": items.dataset,
        "class_names": items.class_names,
        "ids": items.ids,
        "splits": items.splits,
        "group": group_duplicates(near, thumbnails, [kept[rows] for rows in beliefs.groups]),
        "outlier": outlier_scores(near, similarities),
        "problem": list(problems or [""] * count),
        "decision": [""] * count,
        "label": [""] * count,
        "keys": items.keys,
        "noise_rate": beliefs.noise_rate,
        "noise_interval": beliefs.noise_interval,
        "informative": beliefs.informative,
    }


def _likeliest_others(beliefs: LabelBeliefs) -> tuple[Places, npt.NDArray[np.float64]]:
    """Of each judged example the likeliest class but its given one, and its probability."""
    held = beliefs.probabilities
    row = np.repeat(np.arange(held.shape[0]), np.diff(held.indptr))
    shares = held.data.astype(np.float64)
    shares[held.indices == beliefs.given[row]] = -1.0
    order = np.lexsort((-shares, row))
    first = order[held.indptr[:-1]]  # each row's are together, the likeliest first
    alone = shares[first] < 0  # no other class is possible
    others = np.where(alone, beliefs.given, held.indices[first])
    return beliefs.classes[others], np.where(alone, 0.0, shares[first])


def nearest_of(near: Places, wanted: npt.NDArray[np.bool_]) -> npt.NDArray[np.int32]:
    """Of neighbors, (n, k), the first that are wanted: int32, (n, 3); -1 where there are fewer."""
    found = np.full((len(near), SHOWN), -1, dtype=np.int32)
    differs = (near >= 0) & wanted
    # A stable sort of yes and no: those that differ come first, and stay in their order.
    order = np.argsort(~differs, axis=1, kind="stable")[:, :SHOWN]
    chosen = np.take_along_axis(np.where(differs, near, -1), order, axis=1)
    found[:, : chosen.shape[1]] = chosen
    return found
