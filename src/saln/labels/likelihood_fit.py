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
import torch
from scipy.special import xlogy
from torch import Tensor

from saln._optimizers import LBFGS
from saln.labels.evidence import Evidence
from saln.labels.noise_model import Transition, learn_transition

# Where t and b start.
START = (8.0, 0.8)
# What a score means: ``s + STEEPER * log(max(s, 0) + LEAST)``. Between almost nothing and a tenth
# lies more than between two large scores.
STEEPER, LEAST = 0.2, 0.1
# More is not better: of a few dozen examples the likeliest joint has no votes, by luck.
STEPS = 30
# Of the labels' entropy, and of their agreement beyond chance, what features must explain.
INFORMATIVE = 0.02
# How sure evidence must be of a class on average, from 0 (the largest class always) to 1.
# Below it, features that take classes for one another look like labels that do: the share of wrong
# labels comes out far too high.
SURE = 0.55
# How often noise and joint are learned from each other.
TURNS = 3
# Numbers of an example by which it is told from others that are no copies.
_KEYS = 8
# Small enough that a block's temporaries, ten times its beliefs, do not count beside the evidence.
BLOCK_ROWS = 16_384

Floats = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Joint:
    """How much each kind of evidence counts.

    Attributes:
        scores: t.
        votes: b.
        levels: float64, (C,).
    """

    scores: float
    votes: float
    levels: Tensor

    @classmethod
    def start(cls, classes: int) -> Joint:
        """What learning begins with."""
        return cls(*START, torch.zeros(classes, dtype=torch.float64))

    def logits(self, evidence: Evidence, part: slice = slice(None)) -> Tensor:
        """The logarithms of ``Q``, but for one number a row: float64 (b, m)."""
        found = self.scores * link(torch.from_numpy(evidence.scores[part]).double())
        if evidence.votes is not None:
            found += self.votes * torch.from_numpy(evidence.votes[part]).double()
        return found + self.levels[torch.from_numpy(evidence.classes[part].astype(np.int64))]

    def probabilities(self, evidence: Evidence, part: slice = slice(None)) -> tuple[Floats, Floats]:
        """``Q``: of the classes that are held, (b, m), and of all others together, (b,)."""
        logits = self.logits(evidence, part)
        sizes = torch.tensor([self.scores, self.votes], dtype=torch.float64)
        beside = _left_out(evidence, sizes, self.levels, part)
        found = torch.softmax(torch.cat([logits, beside[:, None]], dim=1), dim=1).numpy()
        return found[:, :-1], found[:, -1]


def link(scores: Tensor) -> Tensor:
    """The filter's scores as logits, but for their size."""
    return scores + STEEPER * (scores.clamp_min(0.0) + LEAST).log()


def _left_out(
    evidence: Evidence, sizes: Tensor, levels: Tensor, part: slice = slice(None)
) -> Tensor:
    """The logit of all classes together that an example does not hold: (b,).

    As if their scores were normal: the mean of ``exp(t s)`` is ``exp(t mean + t^2 spread^2 / 2)``,
    and is no more than at three spreads above the mean. Their level is that of all classes: else
    large levels would favor those that are held, of which the given label is always one.
    """
    typical, spread = (
        torch.from_numpy(values[part]).double() for values in (evidence.typical, evidence.spread)
    )
    if evidence.left == 0:
        return torch.full_like(typical, -torch.inf)
    moved = sizes[0] * spread
    found = sizes[0] * link(typical) + torch.minimum(moved.square() / 2, 3 * moved)
    if evidence.votes is not None:
        found = found + sizes[1] * evidence.unvoted
    level = levels.logsumexp(dim=0) - math.log(len(levels))
    return found + level + math.log(evidence.left)


def fit(
    evidence: Evidence, likelihoods: Floats, other: float, voices: Floats, start: Joint
) -> Joint:
    """The joint under which given labels are likeliest.

    Args:
        evidence: About labeled examples.
        likelihoods: ``T(c, y_i)``: float64 (b, m).
        other: ``T(c, y_i)`` of a class that an example does not hold.
        voices: What each example counts for: (b,).
        start: Where to begin.
    """
    scores = link(torch.from_numpy(evidence.scores).double())
    votes = None if evidence.votes is None else torch.from_numpy(evidence.votes).double()
    classes = torch.from_numpy(evidence.classes.astype(np.int64))
    by_class = torch.from_numpy(likelihoods)
    counts = torch.from_numpy(voices).double()
    counts = counts / counts.sum()
    # As logarithms: neither may speak against what it says.
    sizes = torch.tensor([start.scores, start.votes], dtype=torch.float64).log().requires_grad_()
    levels = start.levels.clone().requires_grad_()
    optimizer = LBFGS(
        [sizes, levels], max_iter=STEPS, line_search_fn="strong_wolfe", tolerance_change=1e-7
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        logits = sizes[0].exp() * scores + levels[classes]
        if votes is not None:
            logits = logits + sizes[1].exp() * votes
        beside = _left_out(evidence, sizes.exp(), levels)[:, None]
        joined = torch.softmax(torch.cat([logits, beside], dim=1), dim=1)
        found = ((joined[:, :-1] * by_class).sum(dim=1) + joined[:, -1] * other).clamp_min(1e-300)
        # Classes of few examples, and evidence that says nothing, stay where they are.
        prior = levels.square().sum() / 2 + sizes.square().sum() / 1e3
        total = -(counts * found.log()).sum() + prior / len(scores)
        total.backward()
        return total

    optimizer.step(loss)
    with torch.no_grad():
        t, b = sizes.exp().clamp(1e-6, 1e4).tolist()
    return Joint(t, b, levels.detach())


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
    heard = voices[known]

    def noise(majority: Places, margin: Floats) -> Transition:
        return learn_transition(majority[known], margin[known], labels[known], classes, heard)

    majority, margin = _clearest(joint, evidence)
    transition = noise(majority, margin)
    for _ in range(TURNS):
        likelihoods = transition.columns(part.classes, labels[chosen])
        joint = fit(part, likelihoods, transition.other(), voices[chosen], joint)
        majority, margin = _clearest(joint, evidence)
        transition = noise(majority, margin)
    likelihood = certainty = 0.0
    for start_row in range(0, len(labels), BLOCK_ROWS):
        rows = slice(start_row, start_row + BLOCK_ROWS)
        likelihood += float(judge(joint, transition, evidence, labels, rows)[1] @ voices[rows])
        surest = joint.probabilities(evidence, rows)[0].max(axis=1)
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


def _order(evidence: Evidence, labels: Places, which: Places) -> Places:
    """Some examples' order by what is known of them, wherever they stand: int64."""
    known = [evidence.scores] if evidence.votes is None else [evidence.scores, evidence.votes]
    columns = [values[which, column] for values in known for column in range(values.shape[1])]
    return np.lexsort([labels[which], *columns[:_KEYS]])


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
        logits = joint.logits(evidence, rows).numpy()
        best = logits.round(9).argmax(axis=1)
        beside = np.arange(len(logits))
        majority[rows] = evidence.classes[rows][beside, best]
        first = logits[beside, best].copy()
        logits[beside, best] = -np.inf
        margin[rows] = first - logits.max(axis=1)
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
    joined, beside = joint.probabilities(evidence, rows)
    given = labels[rows]
    likelihoods = transition.columns(evidence.classes[rows], np.maximum(given, 0))
    product = joined * np.where((given >= 0)[:, None], likelihoods, 1.0)
    beside = beside * np.where(given >= 0, transition.other(), 1.0)
    total = (product.sum(axis=1) + beside)[:, None].clip(1e-300)
    return product / total, np.where(given >= 0, np.log(total[:, 0]), 0.0)
