"""Beliefs in the words of the one who asked: over all rows, with names and a message."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.sparse
import torch

from saln.labels.beliefs import LabelBeliefs
from saln.labels.evidence import Evidence, Gatherer, Signal
from saln.labels.feature_blocks import FeatureBlocks
from saln.labels.given_labels import GivenLabels
from saln.labels.likelihood_fit import BLOCK_ROWS, Judged, judge, pooled
from saln.labels.noise_model import DENSE, Transition

# A class's examples that count for as much as knowing nothing of it but the noise.
UNKNOWN = 2.0
# The share of labels that may have come out as no clear example shows: people, and weak models,
# are wrong about what is hard to tell. Such a label says nothing about its example, so that the
# evidence alone is asked, and the neighbors as much as all of it: likelihood trusts the filter
# where it foretells the mistakes. It ranks the many labels that the noise of the clear examples
# would not explain.
UNSEEN = 0.05
# Mistakes that the features foretell are likeliest under a filter that fits them; votes then weigh
# less than usual. As far as weight is missing, the evidence is averaged over the neighbors, where
# such mistakes cancel; and UNSEEN grows, by MORE_UNSEEN where MOST_MISSING or more is missing.
USUAL_WEIGHT = 0.7
MOST_MISSING = 0.3
MORE_UNSEEN = 0.2
# Classes that call for no more than this many times the usual caution are of the usual size.
ALIKE = 1.5

Floats = npt.NDArray[np.float64]
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

    def lap(self, name: str) -> None:
        """A part is done."""
        now = time.perf_counter()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self.last
        self.last = now
        self.seconds["total"] = now - self.begun


def kept_rows(rows: FeatureBlocks) -> Places | slice:
    """Which of all rows have features."""
    return slice(None) if rows.kept is None else rows.kept


class Outcome(NamedTuple):
    """What the rounds of judging end with."""

    penalty: float
    rounds: int
    judged: Judged
    evidence: Evidence

    @property
    def informative(self) -> bool:
        """Whether the features tell classes apart well enough to judge labels by."""
        return self.judged.informative and self.judged.sure

    @property
    def message(self) -> str:
        """What a person should know; empty when all is well."""
        if self.informative:
            return ""
        what = (
            "these features tell the classes apart too badly to tell wrong labels from hard "
            "examples"
            if self.judged.informative
            else "these features predict the labels little better than chance"
        )
        return f"{what}, so no label is doubted; use the features of a stronger backbone"


class BeliefColumns(NamedTuple):
    """Beliefs of the rows that have features.

    Attributes:
        shares: float32, (n, m): of the classes that the evidence holds.
        confidence: float64, (n,): NaN without a label.
        likeliest: int64, (n,): places of classes.
        wrong: The share of wrong labels, by the noise that clear examples show.
    """

    shares: npt.NDArray[np.float32]
    confidence: Floats
    likeliest: Places
    wrong: float


def describe(
    task: Task,
    gatherer: Gatherer,
    outcome: Outcome,
    clock: Clock,
    again: Callable[[Any, Any], LabelBeliefs],
) -> LabelBeliefs:
    """Everything in the words of the one who asked."""
    rows, given, labels = task.rows, task.given, gatherer.labels
    columns = belief_columns(gatherer, outcome)
    confidence, known = columns.confidence, labels >= 0
    if given.soft is not None:
        _judge_soft_labels(columns, outcome.evidence, given.soft[kept_rows(rows)], known)
    rate = columns.wrong if outcome.informative else math.nan
    transition = outcome.judged.transition
    place = np.arange(rows.n) if rows.kept is None else rows.kept
    near, similarities = _neighbors(gatherer, place)
    likeliest = _spread(columns.likeliest, rows, -1)
    clock.lap("telling")
    return LabelBeliefs(
        confidence=torch.from_numpy(_spread(confidence, rows, np.nan)),
        believed=torch.from_numpy(
            np.where(likeliest >= 0, given.classes[np.maximum(likeliest, 0)], -1)
        ),
        probabilities=_sparse(columns.shares, outcome.evidence.classes, rows, gatherer.classes),
        classes=given.classes,
        names=given.names,
        transition=_matrix(transition, gatherer.classes),
        noise_rate=rate,
        noise_interval=noise_interval(rate, transition.anchors, int(known.sum())),
        informative=outcome.informative,
        message=outcome.message,
        groups=tuple(place[group] for group in gatherer.groups),
        neighbors=_spread(near, rows, -1),
        similarities=_spread(similarities, rows, np.nan),
        penalty=outcome.penalty / gatherer.filter.scale,
        rounds=outcome.rounds,
        seconds=clock.seconds,
        given=given.places,
        again=again,
    )


def belief_columns(gatherer: Gatherer, outcome: Outcome) -> BeliefColumns:
    """Beliefs and confidences, block by block."""
    labels, evidence, judged = gatherer.labels, outcome.evidence, outcome.judged
    n, kept = evidence.scores.shape
    beliefs, confidence = np.empty((n, kept), np.float32), np.empty(n)
    likeliest, right = np.empty(n, np.int64), 0.0
    counts = np.bincount(labels[labels >= 0], minlength=gatherer.classes).astype(np.float64)
    doubt = float((judged.transition.wrong() * (counts / counts.sum())).sum())
    caution = _caution(_others(gatherer, counts), labels >= 0)
    missing = _missing_weight(gatherer, outcome)
    unseen = UNSEEN + MORE_UNSEEN * min(missing / MOST_MISSING, 1.0)
    averaged = _averaged_evidence(gatherer, outcome) if missing > 0 else None
    for start in range(0, n, BLOCK_ROWS):
        part = slice(start, min(start + BLOCK_ROWS, n))
        shares, _ = judge(judged.joint, judged.transition, evidence, labels, part)
        known = labels[part] >= 0
        own = evidence.classes[part] == labels[part][:, None]
        if outcome.informative:
            shares = np.where(known[:, None], _cautious(shares, own, caution[part], doubt), shares)
            right += float(shares[own].sum())
            alone = pooled(judged.joint, evidence, part)
            if averaged is not None:
                alone += missing * (averaged[part] - alone)
            mixed = (1.0 - unseen) * shares + unseen * alone
            shares = np.where(known[:, None], mixed, shares)
        else:
            # Nothing can be said: what has a label is believed, what has none is any class.
            shares = np.where(known[:, None], own.astype(np.float64), shares)
        beliefs[part] = shares
        confidence[part] = np.where(known, (shares * own).sum(axis=1), np.nan)
        best = shares.argmax(axis=1)
        likeliest[part] = evidence.classes[part][np.arange(len(shares)), best]
    return BeliefColumns(beliefs, confidence, likeliest, 1.0 - right / counts.sum())


def _missing_weight(gatherer: Gatherer, outcome: Outcome) -> float:
    """The part of their usual weight that likelihood takes from the neighbors: 0 to 1."""
    if gatherer.table is None or not outcome.informative:
        return 0.0
    return max(0.0, 1.0 - outcome.judged.joint.votes / USUAL_WEIGHT)


def _averaged_evidence(gatherer: Gatherer, outcome: Outcome) -> npt.NDArray[np.float32]:
    """The neighbors' votes if each voted by its own evidence: (n, m)."""
    evidence, joint = outcome.evidence, outcome.judged.joint
    found = np.empty(evidence.scores.shape, dtype=np.float32)
    for start in range(0, len(found), BLOCK_ROWS):
        part = slice(start, start + BLOCK_ROWS)
        known = (gatherer.labels[part] >= 0)[:, None]
        found[part] = joint.probabilities(evidence, part)[0] * known
    return gatherer.votes_by(Signal(evidence.classes, found), evidence.classes)


def _caution(others: Floats, known: npt.NDArray[np.bool_]) -> Floats:
    """How far each belief is moved: few examples of a class can tell little about its labels.

    Classes of about the usual size share one number. Else the sizes, and not the evidence, would
    decide which of two labels that are almost surely wrong stands first in a list.
    """
    few = UNKNOWN / (others + UNKNOWN)
    usual = float(np.median(few[known]))
    return np.where(few > ALIKE * usual, few, usual)


def _cautious(shares: Floats, own: npt.NDArray[np.bool_], caution: Floats, doubt: float) -> Floats:
    """Beliefs moved towards the level of all labels."""
    right = (shares * own).sum(axis=1)
    moved = right + caution * np.maximum((1.0 - doubt) - right, 0.0)
    # What the label gains is taken from the other classes in proportion.
    rest = np.divide(1 - moved, 1 - right, out=np.ones_like(right), where=right < 1)
    cautious: Floats = np.where(own, moved[:, None], shares * rest[:, None])
    return cautious


def _judge_soft_labels(
    columns: BeliefColumns, evidence: Evidence, soft: Floats, known: npt.NDArray[np.bool_]
) -> None:
    """The confidence of a soft label is the mean belief in its classes."""
    unsure = ~known & soft.any(axis=1)
    classes = evidence.classes[unsure].astype(np.int64)
    picked = np.take_along_axis(soft[unsure], classes, axis=1)
    columns.confidence[unsure] = (picked * columns.shares[unsure]).sum(axis=1)


def _matrix(transition: Transition, classes: int) -> Any:
    """In full, or what was seen where that would be too large."""
    if classes <= DENSE:
        return torch.from_numpy(transition.dense)
    return scipy.sparse.csr_array(transition.seen + scipy.sparse.diags_array(transition.right))


def _neighbors(
    gatherer: Gatherer, place: Places
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """The table's rows, as they were numbered by the one who asked."""
    n, table = gatherer.rows.n, gatherer.table
    if table is None:
        return np.empty((n, 0), dtype=np.int32), np.empty((n, 0), dtype=np.float32)
    return place[np.asarray(table.indices)].astype(np.int32), np.asarray(table.similarities)


def _sparse(
    shares: npt.NDArray[np.float32],
    classes: npt.NDArray[np.integer[Any]],
    rows: FeatureBlocks,
    count: int,
) -> scipy.sparse.csr_array:
    """Beliefs as CSR over all rows; those without features are empty."""
    lengths = _spread(np.full(len(shares), shares.shape[1], dtype=np.int64), rows, 0)
    # An index wider than it must be would take as much as the beliefs and their classes.
    number = np.int32 if shares.size <= np.iinfo(np.int32).max else np.int64
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(number)
    flat = classes.astype(number).ravel()
    return scipy.sparse.csr_array((shares.ravel(), flat, indptr), shape=(rows.given, count))


def _others(gatherer: Gatherer, counts: Floats) -> Floats:
    """How many examples outside its own group carry each example's label."""
    labels = gatherer.labels
    others: Floats = np.maximum(counts[np.maximum(labels, 0)] - 1, 0)
    for group in gatherer.groups:
        inside = np.bincount(labels[group][labels[group] >= 0], minlength=gatherer.classes)
        own = np.maximum(labels[group], 0)
        others[group] = np.maximum(counts[own] - inside[own], 0)
    return others


def noise_interval(rate: float, anchors: int, n: int) -> tuple[float, float]:
    """By the examples that the noise was learned from: 95%, as Wilson's interval has it."""
    if math.isnan(rate):
        return math.nan, math.nan
    trials, z = max(min(anchors, n), 1), 1.96
    middle = (rate + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z * math.sqrt(rate * (1 - rate) / trials + z * z / (4 * trials * trials))
    half /= 1 + z * z / trials
    return max(0.0, middle - half), min(1.0, middle + half)


def _spread(values: npt.NDArray[Any], rows: FeatureBlocks, missing: float) -> npt.NDArray[Any]:
    """Values of the rows that have features among all rows."""
    if rows.kept is None:
        return values
    full = np.full((rows.given, *values.shape[1:]), missing, dtype=values.dtype)
    full[rows.kept] = values
    return full
