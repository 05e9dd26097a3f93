"""One call from features and labels to beliefs about every label.

::

    rows -> sums -> filter ----\\
      \\--> neighbours, copies --> evidence -> joint <-> noise -> beliefs
                                    ^                             |
                                    \\---- while likelier -------/

The features are read a few times, in blocks; nothing n x n and nothing n x C is held.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse
import torch
from torch import Tensor

from saln.errors import InputError
from saln.features.arguments import as_array
from saln.features.neighbours import NeighbourTable
from saln.labels.beliefs import LabelBeliefs
from saln.labels.evidence import (
    NEIGHBOUR_ROWS,
    Evidence,
    Gatherer,
    Signal,
    find_neighbours,
)
from saln.labels.given import GivenLabels, given_labels, labels_of
from saln.labels.joining import BLOCK_ROWS, Judged, judge, learn
from saln.labels.noise import DENSE
from saln.labels.rows import Rows
from saln.randomness import derive_generator
from saln.spectral.label_filter import LabelFilter, LabelSums, one_hot

__all__ = ["judge_labels", "label_sums"]

# Penalties, as shares of the sum of the eigenvalues: tried from START on, while they gain.
PENALTIES = tuple(10.0 ** (step / 2) for step in range(-12, 1))
START = PENALTIES.index(10.0**-3.5)
# Examples that penalty and joint are chosen with.
SAMPLE = 20_000
# Beliefs take the place of labels while that gains so much likelihood an example, so often.
GAIN = 5e-4
ROUNDS = 4
# A class's examples that count for as much as knowing nothing of it but the noise.
UNKNOWN = 2.0

Places = npt.NDArray[np.int64]


def label_sums(features: Any, labels: Any, *, classes: int) -> LabelSums:
    """The sums over part of a data set that :func:`judge_labels` takes; parts are merged.

    Args:
        features: As :func:`judge_labels`: of the part.
        labels: int, (m,): class numbers from 0; negative ones are unknown.
        classes: How many classes the whole data set has.

    Raises:
        InputError: Labels that are no class numbers below ``classes``.
    """
    rows = Rows(features)
    given = as_array(labels, "labels")
    if given.shape != (rows.given,) or given.dtype.kind not in "iu" or given.max() >= classes:
        raise InputError(
            f"{rows.given} rows and labels {given.dtype} {given.shape}; give whole numbers below "
            f"classes={classes}, one a row"
        )
    return _sums(rows, given.astype(np.int64)[_kept(rows)], classes)


def _kept(rows: Rows) -> Places | slice:
    return slice(None) if rows.kept is None else rows.kept


def _sums(rows: Rows, labels: Places, classes: int) -> LabelSums:
    sums = LabelSums.of(rows.d, classes)
    for part, block in rows.blocks():
        sums.add(block, one_hot(labels[part], classes))
    return sums


def judge_labels(
    features: Any,
    labels: Any = None,
    *,
    class_names: Sequence[str] | None = None,
    neighbours: bool | None = None,
    sums: LabelSums | None = None,
    seed: int = 0,
) -> LabelBeliefs:
    """How likely each label is right, by all the others.

    Two kinds of evidence, in which an example's own label has no part: the labels smoothed by
    the spectrum of the features' Gram matrix (:mod:`saln.spectral.label_filter`), and the votes
    of the nearest neighbours. They are joined by the likelihood of the given labels; the noise
    is learned from the clearest examples. Then beliefs take the place of the labels and all is
    done again, as long as the given labels become likelier by that. Nothing is told about the
    noise, and nothing is trained.

    Args:
        features: A :class:`saln.FeatureStore`, or numbers (n, d): an array, memory-mapped or
            not, a tensor, a list of rows. Best those of a good frozen network.
        labels: The store's own when None. Else (n,): class numbers, of which negative ones, NaN
            and None are unknown; or names, of which None, NaN and the empty one are; or (n, C):
            shares of classes. Unknown and soft labels get beliefs and cast no vote.
        class_names: The names of classes 0, 1, ..., for what is told to people.
        neighbours: Whether to ask them; up to 200,000 rows when None. Without them time is
            proportional to the rows.
        sums: What :func:`label_sums` gave for all parts of these rows, merged; made here when
            None. Their classes must be all that occur: 0 to C - 1.
        seed: Decides the sample that numbers are chosen with, above 20,000 rows.

    Returns:
        The beliefs.

    Raises:
        InputError: Features or labels that are none, or not finite; no label at all.
    """
    labels, class_names = labels_of(features, labels, class_names)
    if labels is None:
        raise InputError("labels are missing; give one a row of the features")
    rows = Rows(features)
    given = given_labels(labels, rows.given, class_names)
    return _judge(_Task(rows, given, features, labels, class_names, neighbours, seed), sums)


@dataclass(frozen=True)
class _Task:
    """What was asked for."""

    rows: Rows
    given: GivenLabels
    features: Any
    labels: Any
    class_names: Sequence[str] | None
    neighbours: bool | None
    seed: int


class _Clock:
    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.begun = self.last = time.perf_counter()

    def tell(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self.last
        self.last = now
        self.seconds["total"] = now - self.begun


def _judge(task: _Task, sums: LabelSums | None) -> LabelBeliefs:
    rows, given = task.rows, task.given
    clock = _Clock()
    places = given.places[_kept(rows)]
    classes = len(given.classes)
    if not (places >= 0).any():
        raise InputError("no example that has features has a label; give at least one")
    if sums is None:
        sums = _sums(rows, places, classes)
    elif (len(sums.total), sums.classes) != (rows.d, classes):
        raise InputError(
            f"sums over {len(sums.total)} features and {sums.classes} classes do not fit "
            f"{rows.d} features and {classes} classes; merge those of all parts of these rows"
        )
    clock.tell("sums")
    found = LabelFilter(sums)
    clock.tell("spectrum")
    asked = rows.n <= NEIGHBOUR_ROWS if task.neighbours is None else task.neighbours
    table, groups = find_neighbours(rows, found) if asked else (None, [])
    clock.tell("neighbours")
    gatherer = Gatherer(rows, places, classes, found, table, groups)
    penalty, leverages = _choose_penalty(gatherer, task.seed)
    clock.tell("penalty")
    rounds, judged, evidence = _rounds(gatherer, penalty, leverages, task.seed)
    clock.tell("joining")
    return _told(task, gatherer, sums, penalty, rounds, judged, evidence, clock)


def _sampled(gatherer: Gatherer, seed: int) -> tuple[Places, list[Places]]:
    """A sample of the examples, copies together."""
    singles, groups = gatherer.singles, gatherer.groups
    if gatherer.rows.n <= SAMPLE:
        return singles, groups
    generator = derive_generator(seed, "judged sample")
    share = SAMPLE / gatherer.rows.n
    chosen = torch.randperm(len(singles), generator=generator)[: round(share * len(singles))]
    some = torch.randperm(len(groups), generator=generator)[: round(share * len(groups))]
    return singles[chosen.sort().values.numpy()], [groups[i] for i in some.sort().values.tolist()]


def _choose_penalty(gatherer: Gatherer, seed: int) -> tuple[float, Tensor]:
    """The penalty under which the given labels are likeliest, and all leverages at it."""
    n, scale = gatherer.rows.n, gatherer.filter.scale
    singles, groups = _sampled(gatherer, seed)
    sample = np.concatenate([singles, *groups])
    place = np.zeros(n, dtype=np.int64)
    place[sample] = np.arange(len(sample))
    penalties = [share * scale for share in PENALTIES]
    leverages = gatherer.leverages(sample, penalties)
    labels = gatherer.labels[sample]
    tried: dict[int, float] = {}

    def likelihood(number: int) -> float:
        if number not in tried:
            evidence = gatherer.gather(
                penalties[number], leverages[:, number], singles, groups, place
            )
            tried[number] = learn(
                evidence, labels, gatherer.classes, gatherer.weight[sample]
            ).likelihood
        return tried[number]

    best = START if (labels >= 0).any() else None
    if best is not None:
        for step in (1, -1):
            while 0 <= best + step < len(penalties) and (
                likelihood(best + step) > likelihood(best) + 1e-12
            ):
                best += step
    chosen = penalties[START if best is None else best]
    return chosen, gatherer.leverages(np.arange(n), [chosen])[:, 0]


def _rounds(
    gatherer: Gatherer, penalty: float, leverages: Tensor, seed: int
) -> tuple[int, Judged, Evidence]:
    """Beliefs in the place of labels, as long as that makes the given labels likelier."""
    n = gatherer.rows.n
    place = np.arange(n)
    sample = None
    if n > SAMPLE:
        order = torch.randperm(n, generator=derive_generator(seed, "joint sample"))
        sample = order[:SAMPLE].sort().values.numpy()
    best: tuple[int, Judged, Evidence] | None = None
    informative = True
    for number in range(ROUNDS + 1):
        evidence = gatherer.gather(penalty, leverages, gatherer.singles, gatherer.groups, place)
        start = None if best is None else best[1].joint
        judged = learn(evidence, gatherer.labels, gatherer.classes, gatherer.weight, sample, start)
        if best is not None and judged.likelihood < best[1].likelihood + GAIN:
            return best
        best = number, judged, evidence
        if number == 0:
            # Later, beliefs that an example's own label helped to make come back to it.
            informative = judged.informative
        if not informative:
            break
        if number < ROUNDS:
            gatherer.speak(_beliefs(judged, evidence, gatherer.labels))
    if best is None:
        raise InputError("no round of judging was asked for")
    return best


def _beliefs(judged: Judged, evidence: Evidence, labels: Places) -> Signal:
    """What the labelled believe of themselves now; others cast no vote."""
    shares = np.zeros(evidence.scores.shape, dtype=np.float32)
    for start in range(0, len(labels), BLOCK_ROWS):
        part = slice(start, start + BLOCK_ROWS)
        found, _ = judge(judged.joint, judged.transition, evidence, labels, part)
        shares[part] = found * (labels[part] >= 0)[:, None]
    return Signal(evidence.classes, shares)


def _told(
    task: _Task,
    gatherer: Gatherer,
    sums: LabelSums,
    penalty: float,
    rounds: int,
    judged: Judged,
    evidence: Evidence,
    clock: _Clock,
) -> LabelBeliefs:
    """Everything in the words of the one who asked."""
    rows, given, labels = task.rows, task.given, gatherer.labels
    counts = np.bincount(labels[labels >= 0], minlength=gatherer.classes).astype(np.float64)
    shares = counts / counts.sum()
    informative = judged.informative
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
        soft = given.soft[_kept(rows)]
        unsure = ~known & soft.any(axis=1)
        picked = np.take_along_axis(soft[unsure], columns[unsure].astype(np.int64), axis=1)
        confidence[unsure] = (picked * held[unsure]).sum(axis=1)
    rate = float(1.0 - np.nanmean(confidence[known])) if informative else math.nan
    interval = _interval(rate, judged.transition.anchors, int(known.sum()))
    message = "" if informative else (
        "these features predict the labels little better than chance, so no label is doubted; "
        "use the features of a stronger backbone"
    )  # fmt: skip
    matrix = judged.transition
    transition: Any = (
        torch.from_numpy(matrix.dense)
        if classes <= DENSE
        else scipy.sparse.csr_array(matrix.seen + scipy.sparse.diags_array(matrix.right))
    )
    table = gatherer.table or NeighbourTable(
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
        neighbours=near,
        similarities=similarities,
        penalty=penalty / gatherer.filter.scale,
        rounds=rounds,
        seconds=clock.seconds,
        given=given.places,
        again=_Again(task, sums),
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


def _spread(values: npt.NDArray[Any], rows: Rows, missing: float) -> npt.NDArray[Any]:
    """Values of the rows that have features among all rows."""
    full = np.full((rows.given, *values.shape[1:]), missing, dtype=values.dtype)
    full[rows.kept] = values
    return full


class _Again:
    """Judges the examples of before with new ones, from the sums of before."""

    def __init__(self, task: _Task, sums: LabelSums) -> None:
        self.task, self.sums = task, sums

    def __call__(self, features: Any, labels: Any) -> LabelBeliefs:
        raise NotImplementedError
