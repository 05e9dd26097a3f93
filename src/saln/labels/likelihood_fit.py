"""Evidence joined into probabilities, by the likelihood of the given labels.

``Q_i(c)`` is in proportion to ``exp(t * link(filter_i(c)) + b * log votes_i(c) + level(c))``. No
example's own label has a part in its ``Q_i``, so ``sum_i log sum_c Q_i(c) T(c, y_i)`` is an honest
measure of ``t``, ``b``, the levels and the filter's penalty.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.special import xlogy

from saln.labels.evidence import Evidence
from saln.labels.joint_fit import Joint, JointLoss
from saln.labels.noise_model import Transition, learn_transition

# Of the labels' entropy, and of their agreement beyond chance, what features must explain.
INFORMATIVE = 0.02
# How sure evidence must be of a class on average, from 0 (the largest class always) to 1.
# Below it, features that take classes for one another look like labels that do: the share of wrong
# labels comes out far too high.
SURE = 0.55
# How often noise and joint are learned from each other.
TURNS = 3
# From so many examples on the first fit begins with the sizes that suit so few of them.
MANY, FEW = 8192, 1024
# Numbers of an example by which it is told from others that are no copies; two of many examples.
_KEYS = 8
# Small enough that a block's temporaries, ten times its beliefs, do not count beside the evidence.
BLOCK_ROWS = 16_384

Floats = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Judged:
    """What comes of evidence and labels.

    Attributes:
        joint: How evidence is joined.
        transition: How labels come out.
        likelihood: The mean logarithm of the given labels' probability.
        informative: Whether evidence tells classes apart better than by luck.
        sure: Whether it does so well enough to tell wrong labels from hard examples.
    """

    joint: Joint
    transition: Transition
    likelihood: float
    informative: bool
    sure: bool


def learn(
    evidence: Evidence,
    labels: Places,
    classes: int,
    voices: Floats,
    sample: Places | None = None,
    start: Joint | None = None,
) -> Judged:
    """Learns the noise and the joint from each other.

    Args:
        evidence: About some examples.
        labels: int64, (b,): theirs; -1 for none.
        classes: C.
        voices: (b,): what each counts for: copies have one voice together.
        sample: Places among them that the joint is fitted to; all labeled when None.
        start: Where to begin.
    """
    joint = start or Joint.start(classes)
    known = np.flatnonzero(labels >= 0)
    chosen = known if sample is None else sample[labels[sample] >= 0]
    # Where few examples leave open what is likeliest, the order of a sum would decide.
    chosen = chosen[_order(evidence, labels, chosen)]
    part = _part(evidence, chosen)
    loss = JointLoss(part, voices[chosen])
    heard = voices[known]
    for turn in range(TURNS + 1):
        majority, margin = _clearest(joint, evidence)
        transition = learn_transition(majority[known], margin[known], labels[known], classes, heard)
        if turn == TURNS:
            break
        before = joint
        likelihoods = transition.columns(part.classes, labels[chosen])
        loss.under(likelihoods, transition.other())
        if turn == 0 and start is None and len(chosen) >= MANY:
            joint = _rough(part, likelihoods, transition.other(), voices[chosen], joint)
        joint = loss.fit(joint)
        if joint is before:  # and all that follows would be the same again
            break
    likelihood = certainty = 0.0
    for start_row in range(0, len(labels), BLOCK_ROWS):
        rows = slice(start_row, start_row + BLOCK_ROWS)
        joined, beside = joint.probabilities(evidence, rows)
        _, found = _posterior(joined, beside, transition, evidence, labels, rows)
        likelihood += float(found @ voices[rows])
        surest = joined.max(axis=1)
        certainty += float(surest @ (voices[rows] * (labels[rows] >= 0)))
    heard_of = float(heard.sum())
    agreement = float((majority[known] == labels[known]) @ heard) / heard_of
    given, believed = (
        np.bincount(which[known], heard, minlength=classes) / heard_of
        for which in (labels, majority)
    )
    entropy = -float(xlogy(given, given).sum())
    chance = float(given @ believed)
    luck = 3.0 * math.sqrt(chance * (1 - chance) / heard_of)
    informative = likelihood / heard_of + entropy > INFORMATIVE * entropy and (
        agreement - chance > max(luck, INFORMATIVE * (1 - chance))
    )
    largest = float(given.max())
    sure = certainty / heard_of - largest > SURE * (1 - largest)
    return Judged(joint, transition, likelihood / heard_of, informative, sure)


def likelihood_under(
    judged: Judged,
    evidence: Evidence,
    labels: Places,
    voices: Floats,
    sample: Places | None = None,
) -> float:
    """The mean logarithm of the given labels' probability by other evidence.

    The noise is what was judged; the joint is fitted anew, from there.

    Args:
        judged: Of the same examples.
        evidence: What else may speak of them.
        labels: int64, (b,): theirs; -1 for none.
        voices: (b,): what each counts for.
        sample: Places among them that are asked; all labeled when None.
    """
    known = np.flatnonzero(labels >= 0) if sample is None else sample[labels[sample] >= 0]
    known = known[_order(evidence, labels, known)]
    part, heard = _part(evidence, known), voices[known]
    likelihoods = judged.transition.columns(part.classes, labels[known])
    joint = JointLoss(part, heard).under(likelihoods, judged.transition.other()).fit(judged.joint)
    _, found = judge(joint, judged.transition, part, labels[known], slice(None))
    return float(found @ heard / heard.sum())


def _order(evidence: Evidence, labels: Places, which: Places) -> Places:
    """Some examples' order by what is known of them, wherever they stand: int64."""
    known = [evidence.scores] if evidence.votes is None else [evidence.scores, evidence.votes]
    columns = [values[which, column] for values in known for column in range(values.shape[1])]
    keys = _KEYS if len(which) < MANY else 2
    return np.lexsort([labels[which], *columns[:keys]])


def _rough(
    part: Evidence, likelihoods: Floats, other: float, voices: Floats, joint: Joint
) -> Joint:
    """The sizes that suit some of many examples: a start that is near where it ends."""
    some = np.arange(0, len(voices), len(voices) // FEW)
    loss = JointLoss(_part(part, some), voices[some]).under(likelihoods[some], other)
    return loss.fit(joint, levels=False)


def _part(evidence: Evidence, which: Places) -> Evidence:
    votes = None if evidence.votes is None else evidence.votes[which]
    return replace(
        evidence,
        rows=evidence.rows[which],
        classes=evidence.classes[which],
        scores=evidence.scores[which],
        votes=votes,
        typical=evidence.typical[which],
        spread=evidence.spread[which],
    )


def _clearest(joint: Joint, evidence: Evidence) -> tuple[Places, Floats]:
    """The likeliest class of each example, and by how much."""
    n = len(evidence.scores)
    majority, margin = np.empty(n, dtype=np.int64), np.empty(n)
    for start in range(0, n, BLOCK_ROWS):
        rows = slice(start, start + BLOCK_ROWS)
        # Not of probabilities: those near 1 are hard to tell apart.
        found = joint.logits(evidence, rows)
        logits = found.numpy()
        best = logits.round(9).argmax(axis=1)
        beside = np.arange(len(logits))
        majority[rows] = evidence.classes[rows][beside, best]
        first = logits[beside, best].copy()
        logits[beside, best] = -np.inf
        margin[rows] = first - found.amax(dim=1).numpy()
    return majority, margin


def pooled(joint: Joint, evidence: Evidence, rows: slice) -> Floats:
    """The evidence without label and noise: the mean of ``Q`` and the votes, float64 (b, m)."""
    joined = joint.probabilities(evidence, rows)[0]
    if evidence.votes is None:
        return joined
    found: Floats = (joined + np.exp(evidence.votes[rows].astype(np.float64))) / 2
    return found


def judge(
    joint: Joint,
    transition: Transition,
    evidence: Evidence,
    labels: Places,
    rows: slice,
) -> tuple[Floats, Floats]:
    """Bayes' rule for some examples.

    Returns:
        Their beliefs, float64 (b, m), and the logarithm of the probability of each one's label;
        0 for who has none.
    """
    return _posterior(*joint.probabilities(evidence, rows), transition, evidence, labels, rows)


def _posterior(
    joined: Floats,
    beside: Floats,
    transition: Transition,
    evidence: Evidence,
    labels: Places,
    rows: slice,
) -> tuple[Floats, Floats]:
    """:func:`judge`, of what is joined already."""
    given = labels[rows]
    product = transition.columns(evidence.classes[rows], np.maximum(given, 0))
    if (given < 0).any():
        product[given < 0] = 1.0
    product *= joined
    beside = beside * np.where(given >= 0, transition.other(), 1.0)
    total = (product.sum(axis=1) + beside).clip(1e-300)
    product /= total[:, None]
    return product, np.where(given >= 0, np.log(total), 0.0)
