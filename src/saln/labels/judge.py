r"""One call from features and labels to beliefs about every label.

::

    rows -> sums -> filter ----\
      \--> neighbors, copies --> evidence -> joint <-> noise -> beliefs
                                    ^                             |
                                    \---- while likelier -------/

The features are read a few times, in blocks; nothing n x n and nothing n x C is held.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from saln.data.arguments import as_array
from saln.errors import InputError
from saln.labels.beliefs import LabelBeliefs, check_noise_rate
from saln.labels.descriptions import Clock, Outcome, Task, describe, kept_rows
from saln.labels.evidence import (
    NEIGHBOR_ROWS,
    Evidence,
    Gatherer,
    Signal,
    find_neighbors,
)
from saln.labels.feature_blocks import FeatureBlocks
from saln.labels.feature_clusters import clustered_share, following
from saln.labels.given_labels import given_labels, labels_of
from saln.labels.likelihood_fit import BLOCK_ROWS, Judged, judge, learn, likelihood_under
from saln.randomness import derive_generator
from saln.spectral.label_filter import LabelFilter, LabelSums, one_hot
from saln.threads import one_core

# Penalties, as shares of the sum of the eigenvalues: tried from START on, while they gain so much
# likelihood an example. Where features tell all classes apart, all penalties are alike.
PENALTIES = tuple(10.0 ** (step / 2) for step in range(-12, 1))
START = PENALTIES.index(10.0**-3.5)
PENALTY_GAIN = 1e-4
# Examples that the penalty is chosen with, and those that the joint is fitted to.
SEARCHED = 5_000
SAMPLE = 20_000
# Beliefs take the place of labels while that gains so much likelihood an example, so often.
GAIN = 5e-3
ROUNDS = 4
# Rows times classes for one core; torch shares longer sums out.
FEW_SCORES = 32_768

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
    rows = FeatureBlocks(features)
    given = as_array(labels, "labels")
    if given.shape != (rows.given,) or given.dtype.kind not in "iu" or given.max() >= classes:
        raise InputError(
            f"{rows.given} rows and labels {given.dtype} {given.shape}; give whole numbers below "
            f"classes={classes}, one a row"
        )
    return _sums(rows, given.astype(np.int64)[kept_rows(rows)], classes)


def _sums(rows: FeatureBlocks, labels: Places, classes: int) -> LabelSums:
    sums = LabelSums.of(rows.d, classes)
    for part, block in rows.blocks():
        sums.add(block, one_hot(labels[part], classes))
    return sums


def judge_labels(
    features: Any,
    labels: Any = None,
    *,
    class_names: Sequence[str] | None = None,
    neighbors: bool | None = None,
    sums: LabelSums | None = None,
    noise_rate: float | None = None,
    seed: int = 0,
) -> LabelBeliefs:
    """How likely each label is right, by all the others.

    Two kinds of evidence, in which an example's own label has no part: the labels smoothed by
    the spectrum of the features' Gram matrix (:mod:`saln.spectral.label_filter`), and the votes
    of the nearest neighbors. They are joined by the likelihood of the given labels; the noise
    is learned from the clearest examples. Then beliefs take the place of the labels and all is
    done again, as long as the given labels become likelier by that. Nothing is known about the
    noise, and nothing is trained. Where mistakes follow the image, their share comes from the
    clusters of the features (:mod:`saln.labels.feature_clusters`), and ``message`` says so.

    Args:
        features: A :class:`saln.FeatureStore`, or numbers (n, d): an array, memory-mapped or
            not, a tensor, a list of rows. Best those of a good frozen network.
        labels: The store's own when None. Else (n,): class numbers, of which negative ones, NaN
            and None are unknown; or names, of which None, NaN and the empty one are; or (n, C):
            shares of classes. Unknown and soft labels get beliefs and cast no vote.
        class_names: The names of classes 0, 1, ..., as people read them.
        neighbors: Whether to ask them; up to 200,000 rows when None. Without them time is
            proportional to the rows.
        sums: What :func:`label_sums` gave for all parts of these rows, merged; made here when
            None. Their classes must be all that occur: 0 to C - 1.
        noise_rate: The share of wrong labels in [0, 1), where it is known, by an audit for
            example: that share is then called wrong, see
            :meth:`LabelBeliefs.with_noise_rate`. Estimated when None.
        seed: Decides the sample that numbers are chosen with, above 5,000 rows.

    Returns:
        The beliefs.

    Raises:
        InputError: Features or labels that are none, or not finite; no label at all; another
            number as ``noise_rate``.
    """
    if noise_rate is not None:
        check_noise_rate(noise_rate)
    task = _task(features, labels, class_names, neighbors, seed)
    beliefs, _ = _judge(task, sums, known=noise_rate is not None)
    return beliefs if noise_rate is None else beliefs.with_noise_rate(noise_rate)


def judge_with_evidence(
    features: Any, labels: Any, *, seed: int
) -> tuple[LabelBeliefs, Outcome, Places | None]:
    """What :func:`judge_labels` gives, the evidence that it is made of, and of which rows.

    The rows, int64 (m,), are those that have features; None for all.
    """
    task = _task(features, labels, None, None, seed)
    return *_judge(task, None), task.rows.kept


def _task(
    features: Any,
    labels: Any,
    class_names: Sequence[str] | None,
    neighbors: bool | None,
    seed: int,
) -> Task:
    labels, class_names = labels_of(features, labels, class_names)
    if labels is None:
        raise InputError("labels are missing; give one a row of the features")
    rows = FeatureBlocks(features)
    given = given_labels(labels, rows.given, class_names)
    return Task(rows, given, labels, class_names, neighbors, seed)


def _judge(task: Task, sums: LabelSums | None, known: bool = False) -> tuple[LabelBeliefs, Outcome]:
    rows, given = task.rows, task.given
    clock = Clock()
    places = given.places[kept_rows(rows)]
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
    clock.lap("sums")
    found = LabelFilter(sums)
    clock.lap("spectrum")
    asked = rows.n <= NEIGHBOR_ROWS if task.neighbors is None else task.neighbors
    table, groups = find_neighbors(rows, found) if asked else (None, [])
    clock.lap("neighbors")
    gatherer = Gatherer(rows, places, classes, found, table, groups)
    outcome = judged_outcome(gatherer, clock, task.seed)
    beliefs = describe(task, gatherer, outcome, clock, _Again(task, sums))
    share = None if known else clustered_share(gatherer, outcome, beliefs.noise_rate)
    if share is not None:
        beliefs = replace(
            beliefs.with_label_rates(share.rates),
            noise_rate=share.rate,
            noise_interval=(share.low, share.high),
            message=following(),
        )
    clock.lap("telling")
    return beliefs, outcome


def judged_outcome(gatherer: Gatherer, clock: Clock, seed: int) -> Outcome:
    """All rounds of judging, under the penalty that suits the labels."""
    # Torch shares even a few rows out among its threads. Beside other work they wait for each other
    # twenty times as long as one core needs.
    few = gatherer.rows.n * gatherer.classes < FEW_SCORES
    with one_core() if few else nullcontext():
        penalty, leverages, first = _choose_penalty(gatherer, seed)
        clock.lap("penalty")
        rounds, judged, evidence = _rounds(gatherer, penalty, leverages, seed, first)
        clock.lap("joining")
    return Outcome(penalty, rounds, judged, evidence)


def _sampled(gatherer: Gatherer, seed: int) -> tuple[Places, list[Places]]:
    """All examples, or of many some that have labels; copies together."""
    singles, groups, labeled = gatherer.singles, gatherer.groups, gatherer.labels >= 0
    if gatherer.rows.n <= SEARCHED:
        return singles, groups
    singles, groups = singles[labeled[singles]], [own for own in groups if labeled[own].any()]
    generator = derive_generator(seed, "judged sample")
    share = min(SEARCHED / labeled.sum(), 1.0)
    chosen = torch.randperm(len(singles), generator=generator)[: round(share * len(singles))]
    some = torch.randperm(len(groups), generator=generator)[: round(share * len(groups))]
    return singles[chosen.sort().values.numpy()], [groups[i] for i in some.sort().values.tolist()]


def _choose_penalty(
    gatherer: Gatherer, seed: int
) -> tuple[float, Tensor, tuple[Judged, Evidence] | None]:
    """The penalty under which the given labels are likeliest, and all leverages at it.

    All are compared under the noise that is learned at the first: learned at each anew, its jumps
    would be larger than what penalties differ by. And what comes of the chosen one; None where
    that is known of a sample alone.
    """
    n, scale = gatherer.rows.n, gatherer.filter.scale
    singles, groups = _sampled(gatherer, seed)
    sample = np.sort(np.concatenate([singles, *groups]))
    place = np.zeros(n, dtype=np.int64)
    place[sample] = np.arange(len(sample))
    penalties = [share * scale for share in PENALTIES]
    leverages = gatherer.leverages(sample, penalties)
    labels, weight = gatherer.labels[sample], gatherer.weight[sample]

    @cache
    def evidence(number: int) -> Evidence:
        return gatherer.gather(penalties[number], leverages[:, number], singles, groups, place)

    judged = learn(evidence(START), labels, gatherer.classes, weight)

    @cache
    def likelihood(number: int) -> float:
        return likelihood_under(judged, evidence(number), labels, weight)

    best, first = START, None
    for step in (1, -1):
        while 0 <= best + step < len(penalties) and (
            likelihood(best + step) > likelihood(best) + PENALTY_GAIN
        ):
            best += step
    if len(sample) == n:
        known = judged
        if best != START:
            known = learn(evidence(best), labels, gatherer.classes, weight)
        first = known, evidence(best)
    chosen = penalties[best]
    rest = np.setdiff1d(np.arange(n), sample)
    # Those of the sample are there already.
    found = leverages.new_empty(n)
    found[sample] = leverages[:, best]
    found[rest] = gatherer.leverages(rest, [chosen])[:, 0].to(found)
    return chosen, found, first


def _rounds(
    gatherer: Gatherer,
    penalty: float,
    leverages: Tensor,
    seed: int,
    first: tuple[Judged, Evidence] | None,
) -> tuple[int, Judged, Evidence]:
    """Beliefs in the place of labels, as long as that makes the given labels likelier.

    Under the noise that was learned before, as penalties are compared.
    """
    n, labels = gatherer.rows.n, gatherer.labels
    singles, groups = gatherer.singles, gatherer.groups
    place = np.arange(n)
    sample = np.flatnonzero(labels >= 0)
    if len(sample) > SAMPLE:
        order = torch.randperm(len(sample), generator=derive_generator(seed, "joint sample"))
        sample = sample[order[:SAMPLE].sort().values.numpy()]
    weight, classes = gatherer.weight, gatherer.classes

    def gathered() -> Evidence:
        return gatherer.gather(penalty, leverages, singles, groups, place)

    if first is None:
        evidence = gathered()
        judged = learn(evidence, labels, classes, weight, sample)
    else:
        judged, evidence = first
    # Later, beliefs that an example's own label helped to make come back to it.
    if not (judged.informative and judged.sure):
        return 0, judged, evidence
    for number in range(ROUNDS):
        gatherer.speak(_beliefs(judged, evidence, labels))
        more = gathered()
        before, after = (
            likelihood_under(judged, said, labels, weight, sample) for said in (evidence, more)
        )
        if after < before + GAIN:
            return number, judged, evidence
        evidence = more
        judged = learn(evidence, labels, classes, weight, sample, judged.joint)
    return ROUNDS, judged, evidence


def _beliefs(judged: Judged, evidence: Evidence, labels: Places) -> Signal:
    """What the labeled believe of themselves now; others cast no vote."""
    shares = np.zeros(evidence.scores.shape, dtype=np.float32)
    for start in range(0, len(labels), BLOCK_ROWS):
        part = slice(start, start + BLOCK_ROWS)
        found, _ = judge(judged.joint, judged.transition, evidence, labels, part)
        shares[part] = found * (labels[part] >= 0)[:, None]
    return Signal(evidence.classes, shares)


class _Again:
    """Judges the earlier examples with new ones, from the earlier sums."""

    def __init__(self, task: Task, sums: LabelSums) -> None:
        self.task, self.sums = task, sums

    def __call__(self, features: Any, labels: Any) -> LabelBeliefs:
        before = self.task
        labels, _ = labels_of(features, labels, None)
        if labels is None:
            raise InputError("labels are missing; give one a row of the new features")
        more = FeatureBlocks(features)
        rows = before.rows.followed_by(more)
        joined = _joined(before.labels, labels)
        given = given_labels(joined, rows.given, before.class_names)
        # New classes may sort between the earlier ones.
        if given.named:
            places = np.searchsorted(np.array(given.names), np.array(before.given.names))
        else:
            places = np.searchsorted(given.classes, before.given.classes)
        own = given.places[before.rows.given :][kept_rows(more)]
        sums = self.sums.renumbered(places, len(given.classes)).merge(
            _sums(more, own, len(given.classes))
        )
        task = replace(before, rows=rows, given=given, labels=joined)
        return _judge(task, sums)[0]


def _joined(before: Any, more: Any) -> npt.NDArray[Any]:
    """The earlier labels, then the new ones."""
    parts = [
        np.array(part, dtype=object)
        if isinstance(part, list | tuple) and any(value is None for value in part)
        else as_array(part, "labels")
        for part in (before, more)
    ]
    parts = [part[:, 0] if part.ndim == 2 and part.shape[1] == 1 else part for part in parts]
    texts = [part.dtype.kind == "U" for part in parts if part.dtype != object]
    if parts[0].shape[1:] != parts[1].shape[1:] or len(set(texts)) > 1:
        raise InputError(
            f"the earlier labels are {parts[0].dtype} {parts[0].shape} and the new ones "
            f"{parts[1].dtype} {parts[1].shape}; give both as numbers, as names or as shares"
        )
    return np.concatenate(parts)
