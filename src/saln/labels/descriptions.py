"""From what was worked out to what is told: beliefs in the words of the one who asked."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse
import torch

from saln.features.neighbors import NeighborTable
from saln.labels.beliefs import LabelBeliefs
from saln.labels.evidence import Evidence, Gatherer
from saln.labels.feature_blocks import FeatureBlocks
from saln.labels.given_labels import GivenLabels
from saln.labels.likelihood_fit import BLOCK_ROWS, Judged, judge
from saln.labels.noise_model import DENSE

# A class's examples that count for as much as knowing nothing of it but the noise.
UNKNOWN = 2.0

Places = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Task:
    """What was asked for."""

    rows: FeatureBlocks
    given: GivenLabels
    labels: Any
    class_names: Sequence[str] | None
    neighbors: bool | None
    seed: int


class Clock:
    """Seconds of each part, and of all."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.begun = self.last = time.perf_counter()

    def tell(self, name: str) -> None:
        """A part is done."""
        now = time.perf_counter()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self.last
        self.last = now
        self.seconds["total"] = now - self.begun


def kept_rows(rows: FeatureBlocks) -> Places | slice:
    """Which of all rows have features."""
    return slice(None) if rows.kept is None else rows.kept


def told(
    task: Task,
    gatherer: Gatherer,
    penalty: float,
    rounds: int,
    judged: Judged,
    evidence: Evidence,
    clock: Clock,
    again: Callable[[Any, Any], LabelBeliefs],
) -> LabelBeliefs:
    """Everything in the words of the one who asked."""
    rows, given, labels = task.rows, task.given, gatherer.labels
    counts = np.bincount(labels[labels >= 0], minlength=gatherer.classes).astype(np.float64)
    shares = counts / counts.sum()
    informative = judged.informative and judged.sure
    n = rows.n
    confidence = np.full(n, np.nan)
    likeliest = np.empty(n, dtype=np.int64)
    kept = evidence.scores.shape[1]
    held = np.empty((n, kept), dtype=np.float32)
    doubt = float((judged.transition.wrong() * shares).sum())
    known = labels >= 0
    others = _others(gatherer, counts)
    for start in range(0, n, BLOCK_ROWS):
        part = slice(start, min(start + BLOCK_ROWS, n))
        found, _ = judge(judged.joint, judged.transition, evidence, labels, part)
        own = evidence.classes[part] == labels[part][:, None]
        if not informative:
            # Nothing can be said: what has a label is believed, what has none is any class.
            found = np.where(known[part][:, None], own.astype(np.float64), found)
        else:
            right = (found * own).sum(axis=1)
            # Few others of its class can tell little about an example.
            few = UNKNOWN / (others[part] + UNKNOWN)
            moved = right + few * np.maximum((1.0 - doubt) - right, 0.0)
            rest = np.divide(1 - moved, 1 - right, out=np.ones_like(right), where=right < 1)
            moved_rows = np.where(own, moved[:, None], found * rest[:, None])
            found = np.where(known[part][:, None], moved_rows, found)
        held[part] = found
        confidence[part] = np.where(known[part], (found * own).sum(axis=1), np.nan)
        best = found.argmax(axis=1)
        likeliest[part] = evidence.classes[part][np.arange(len(found)), best]
    classes, columns = gatherer.classes, evidence.classes
    if given.soft is not None:
        soft = given.soft[kept_rows(rows)]
        unsure = ~known & soft.any(axis=1)
        picked = np.take_along_axis(soft[unsure], columns[unsure].astype(np.int64), axis=1)
        confidence[unsure] = (picked * held[unsure]).sum(axis=1)
    rate = float(1.0 - np.nanmean(confidence[known])) if informative else math.nan
    interval = _interval(rate, judged.transition.anchors, int(known.sum()))
    what = (
        "these features tell the classes apart too badly to tell wrong labels from hard examples"
        if judged.informative
        else "these features predict the labels little better than chance"
    )
    doubtless = f"{what}, so no label is doubted; use the features of a stronger backbone"
    message = "" if informative else doubtless
    matrix = judged.transition
    transition: Any = (
        torch.from_numpy(matrix.dense)
        if classes <= DENSE
        else scipy.sparse.csr_array(matrix.seen + scipy.sparse.diags_array(matrix.right))
    )
    table = gatherer.table or NeighborTable(
        np.empty((n, 0), dtype=np.int32), np.empty((n, 0), dtype=np.float32), 0.0
    )
    indptr = np.arange(n + 1, dtype=np.int64) * kept
    flat = np.ascontiguousarray(columns).ravel()
    told = scipy.sparse.csr_array((held.ravel(), flat, indptr), shape=(n, classes))
    clock.tell("telling")
    place = np.arange(n) if rows.kept is None else rows.kept
    near, similarities = np.asarray(table.indices), np.asarray(table.similarities)
    if rows.kept is not None:
        confidence = _spread(confidence, rows, np.nan)
        likeliest = _spread(likeliest, rows, -1)
        near, similarities = (
            _spread(place[near].astype(np.int32), rows, -1),
            _spread(similarities, rows, np.nan),
        )
        lengths = np.zeros(rows.given, dtype=np.int64)
        lengths[rows.kept] = kept
        indptr = np.concatenate([[0], np.cumsum(lengths)])
        told = scipy.sparse.csr_array((told.data, told.indices, indptr), (rows.given, classes))
    believed = np.where(likeliest >= 0, given.classes[np.maximum(likeliest, 0)], -1)
    return LabelBeliefs(
        confidence=torch.from_numpy(confidence),
        believed=torch.from_numpy(believed),
        probabilities=told,
        classes=given.classes,
        names=given.names,
        transition=transition,
        noise_rate=rate,
        noise_interval=interval,
        informative=informative,
        message=message,
        groups=tuple(place[group] for group in gatherer.groups),
        neighbors=near,
        similarities=similarities,
        penalty=penalty / gatherer.filter.scale,
        rounds=rounds,
        seconds=clock.seconds,
        given=given.places,
        again=again,
    )


def _others(gatherer: Gatherer, counts: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """How many examples outside its own group carry each example's label."""
    labels = gatherer.labels
    others = np.maximum(counts[np.maximum(labels, 0)] - 1, 0)
    for group in gatherer.groups:
        inside = np.bincount(labels[group][labels[group] >= 0], minlength=gatherer.classes)
        own = np.maximum(labels[group], 0)
        others[group] = np.maximum(counts[own] - inside[own], 0)
    found: npt.NDArray[np.float64] = others
    return found


def _interval(rate: float, anchors: int, n: int) -> tuple[float, float]:
    """By the examples that told the noise: 95%, as Wilson's interval has it."""
    if math.isnan(rate):
        return math.nan, math.nan
    trials, z = max(min(anchors, n), 1), 1.96
    middle = (rate + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z * math.sqrt(rate * (1 - rate) / trials + z * z / (4 * trials * trials))
    half /= 1 + z * z / trials
    return max(0.0, middle - half), min(1.0, middle + half)


def _spread(values: npt.NDArray[Any], rows: FeatureBlocks, missing: float) -> npt.NDArray[Any]:
    """Values of the rows that have features among all rows."""
    full = np.full((rows.given, *values.shape[1:]), missing, dtype=values.dtype)
    full[rows.kept] = values
    return full
