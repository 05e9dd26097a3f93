"""What the labels of its neighbors say of an example's own.

Everything is sparse: an example is only ever of a class that it is labeled as, or that one of
its neighbors may be of. Memory goes with examples times neighbors, whatever the number of
classes.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.special import expit, logit

from saln.selection.near_duplicates import Graph

# Votes count for the beliefs by their fourth power: neighbors agree with each other.
SHARPNESS = 4.0
# The share of a majority class, and of all examples, widest margins first, that the noise is
# learned from.
CONFIDENT_SHARE = 0.1
# Added to the votes and to the matrix's rows, spread over the classes: nothing is impossible.
VOTE_SMOOTHING = 0.05
TRANSITION_SMOOTHING = 0.02
ROUNDS = 3
# Each other example of its class takes this share away of what a label counts at least.
MISSED = 0.4
# Candidates are clean where at most this share of those with the widest margins, two fifths of
# all, is not labeled as the majority; the fewer, the cleaner.
CLEAN = 0.12
CLEAN_SHARE = 0.4
# Where this share has no neighbor, or no other of its class, the rest says nothing.
NEARLY_ALL = 0.9
# Standard errors that neighbors must agree above chance.
CHANCE_ERRORS = 3.0
# Beliefs below this do not vote.
LEAST_BELIEF = 1e-6
# Votes and margins that agree to this many decimals are equal.
DECIMALS = 9
# Rows whose votes are worked out at once.
BLOCK_ROWS = 2**14

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


class Benefit(NamedTuple):
    """What a label gets of a class that is too small to be among the neighbors."""

    # Neighbors less near than this, measured by how near their own neighbors are to them, say
    # little about it
    reach: float
    # What the label of the only example of its class counts at least, against the first of
    # the votes
    alone: float


# Among candidates nearly every class is small, and what is said for one is said for wrong
# labels, too: little, unless the candidates look clean.
IN_DATA_SET = Benefit(0.7, 0.003)
IN_BATCH = Benefit(0.6, 0.0005)
IN_CLEAN_BATCH = Benefit(1.0, 0.3)


class Judgement(NamedTuple):
    """What is believed of each picture's label."""

    confidence: Floats  # float64, (m,): the probability that the label is right
    believed: Ints  # int64, (m,): the likeliest class
    noise: Noise  # How labels come about
    noise_rate: float  # The estimated share of wrong labels


class Noise:
    """The transition matrix of the labels, from counts (C, C) of (class, label), smoothed.

    Rows are drawn towards noise that knows no class; a class without counts is labeled rightly.
    ``rate`` is the share of the counted that are labeled otherwise; every row gets ``shared``
    additional counts at that rate.
    """

    def __init__(self, counts: Any, rate: float, shared: float) -> None:
        self.classes = counts.shape[0]
        self.counts = sparse.csr_array(counts)
        self.rate, self.shared = rate, shared
        self.seen: Floats = self.counts.sum(axis=1) + shared
        self._share = np.divide(1.0, self.seen, out=np.zeros(self.classes), where=self.seen > 0)

    def _smooth(self, share: Floats, times: float) -> Floats:
        added = TRANSITION_SMOOTHING * times / self.classes
        smooth: Floats = (share + added) / (1 + TRANSITION_SMOOTHING)
        return smooth

    def _alike(self, same: npt.NDArray[np.bool_]) -> Floats:
        other = self.rate / max(self.classes - 1, 1)
        return np.where(same, 1.0 - self.rate, other)

    def of(self, true: Ints, given: Ints) -> Floats:
        """How often a label of class ``true`` comes out as ``given``, pair by pair."""
        same = true == given
        counted = np.asarray(self.counts[true, given]).ravel() + self.shared * self._alike(same)
        share = np.where(self.seen[true] > 0, counted * self._share[true], same)
        return self._smooth(share, 1.0)

    def into(self) -> Floats:
        """(C,): the sum of each column: how often all classes together come out as a label."""
        share: Floats = self.counts.T @ self._share + (self.seen == 0)
        rest = self.shared * self._share
        off, own = self._alike(np.array([False, True]))
        share += off * (rest.sum() - rest) + own * rest
        return self._smooth(share, self.classes)

    def dense(self) -> Floats:
        """(C, C)."""
        every = np.arange(self.classes)
        return np.stack([self.of(np.full(self.classes, row), every) for row in every])


class _Votes(NamedTuple):
    """Votes for the classes of some pictures: those that neighbors believe in, and the label."""

    rows: Ints  # Of each entry, ascending
    classes: Ints  # Of each entry, ascending within a row
    shares: Floats  # Of the row's votes, 0 to 1
    starts: Ints  # Of each row's entries; none is empty
    heard: npt.NDArray[np.bool_]  # (rows,): whether there is any vote


def _first(values: Floats, votes: _Votes) -> tuple[Floats, Ints]:
    """The largest value of each row, and at which entry; of equals the lowest class."""
    # Rows are runs of entries: reduceat works on each without a dense matrix.
    first = np.maximum.reduceat(values, votes.starts)
    at_first = np.flatnonzero(values == first[votes.rows])
    return first, at_first[np.unique(votes.rows[at_first], return_index=True)[1]]


def _first_two(votes: _Votes) -> tuple[Ints, Floats]:
    """The class with the most votes, and by how much it leads the second."""
    # Equal but for rounding is equal: then the lowest class comes first, on every machine.
    shares = votes.shares.round(DECIMALS)
    first, place = _first(shares, votes)
    others = shares.copy()
    others[place] = 0.0
    second = np.maximum.reduceat(others, votes.starts)
    return votes.classes[place], (first - second).round(DECIMALS)


def _confident_counts(majority: Ints, margin: Floats, labels: Ints, classes: int) -> Any:
    """Counts of (majority class, label) among the most confident of each majority class."""
    # By class, widest margin first; a row's rank within its class is its place less the class's.
    order = np.lexsort((-margin, majority))
    members = np.bincount(majority, minlength=classes)
    rank = np.arange(len(order)) - (members.cumsum() - members)[majority[order]]
    confident = order[rank < np.ceil(CONFIDENT_SHARE * members)[majority[order]]]
    ones = np.ones(len(confident))
    pairs = (ones, (majority[confident], labels[confident]))
    return sparse.coo_array(pairs, shape=(classes, classes))


def _widest_disagree(
    majority: Ints, margin: Floats, labels: Ints, share: float = CONFIDENT_SHARE
) -> tuple[int, int]:
    """How many of the share of all with the widest margins are not labeled as the majority."""
    widest = np.argsort(-margin, kind="stable")[: math.ceil(share * len(labels))]
    return int((majority[widest] != labels[widest]).sum()), len(widest)


def _wilson_upper(hits: int, trials: int) -> float:
    """A share and one standard error, as Wilson's interval: above 0 where there are no hits."""
    middle = (hits + 0.5) / (trials + 1)
    return middle + math.sqrt(hits * (trials - hits) / trials + 0.25) / (trials + 1)


def _odds_for_doubt(logits: Floats, doubt: float) -> float:
    """The logarithm, at least 0, of what the odds must be multiplied by for this mean doubt."""
    low, high = 0.0, 0.0
    # The mean doubt falls as the odds rise: double until it is below, then halve the interval.
    while float(expit(-logits - high).mean()) > doubt:
        low, high = high, 2.0 * high + 1.0
    for _ in range(50):
        middle = (low + high) / 2
        if float(expit(-logits - middle).mean()) > doubt:
            low = middle
        else:
            high = middle
    return high


def _strangeness(graph: Graph, members: Ints, reach: float) -> Floats:
    """How much of its votes each picture's class is too small, and too far away, to be given.

    0 for those that are as near to their neighbors as these are to theirs, and for classes
    that could fill all places; towards 1 for those that are near to nothing.
    """
    weights = graph.weights
    places = np.diff(weights.indptr)
    nearness = weights.sum(axis=1) / np.maximum(places, 1)
    # How near the neighbors are to their own neighbors, on average.
    links = sparse.csr_array((np.ones(weights.nnz), weights.indices, weights.indptr), weights.shape)
    usual = links @ nearness / np.maximum(places, 1)
    is_far = (reach * usual > nearness) & (places > 0)
    far = 1.0 - np.divide(nearness, reach * usual, out=np.ones_like(usual), where=is_far)
    empty = 1.0 - (members[graph.labels] - 1) / np.maximum(places, 1)
    strange: Floats = far * empty.clip(0.0)
    return strange


def what_tells_nothing(graph: Graph, classes: int, *, by_chance: bool) -> str | None:
    """Why neighbors say nothing about these labels, one sentence; None where they do.

    With ``by_chance`` they must agree with labels more often than by chance: by three standard
    errors.
    """
    weights, labels = graph.weights, graph.labels
    m = len(labels)
    if classes == 1:
        return None  # and nothing is to be said
    members = np.bincount(labels, minlength=classes)
    single = int((members[labels] == 1).sum())
    if single > NEARLY_ALL * m:
        return (
            f"the labels tell nothing: {single:,} of {m:,} examples are the only one of their "
            "class; give labels that name what several examples have in common"
        )
    unheard = m - int((weights.sum(axis=1) > 0).sum())
    if unheard > NEARLY_ALL * m:
        return (
            f"the features tell nothing: {unheard:,} of {m:,} examples are near to no other, as "
            "where all features are the same, 0, or too small for their precision; look at how "
            "they were made"
        )
    if not by_chance:
        return None
    tails = np.repeat(np.arange(m), np.diff(weights.indptr))
    near = weights.data > 0
    agree = float((labels[tails] == labels[weights.indices])[near].mean())
    chance = float(((members[labels] - 1) / max(m - 1, 1)).mean())
    # Neighbors are mostly mutual: of two links one is new.
    error = math.sqrt(2 * chance * (1 - chance) / int(near.sum()))
    if agree > chance + CHANCE_ERRORS * error:
        return None
    return (
        f"the features tell nothing about the labels: neighbors share a label in {agree:.1%} of "
        f"cases, and {chance:.1%} would by chance; look whether features and labels are in the "
        "same order, and how both were made"
    )


def _posterior(
    votes: _Votes, labels: Ints, strange: Floats, alone: Floats, noise: Noise, into: Floats
) -> Floats:
    """The belief in the class of each entry, by Bayes' rule."""
    given = labels[votes.rows]
    is_own = votes.classes == given
    far = strange[votes.rows]
    heard = votes.heard.astype(np.float64)[votes.rows]
    shares = heard * (np.where(is_own, far, 0.0) + (1 - far) * votes.shares)
    floor = (VOTE_SMOOTHING / noise.classes) / (heard + VOTE_SMOOTHING)
    said = (shares / (heard + VOTE_SMOOTHING) + floor) ** SHARPNESS
    # A label that nobody else has still says something, however the votes are.
    at_least = alone * np.maximum.reduceat(said, votes.starts)
    said = np.where(is_own, np.maximum(said, at_least[votes.rows]), said)
    come = noise.of(votes.classes, given)
    # Classes without an entry have the smoothing's votes alone: they count in the sum.
    rest = (into[labels] - np.add.reduceat(come, votes.starts)).clip(0.0)
    whole = np.add.reduceat(said * come, votes.starts)
    whole += floor[votes.starts] ** SHARPNESS * rest
    posterior: Floats = said * come / whole[votes.rows]
    return posterior


class _Beliefs(NamedTuple):
    """What is believed after a round."""

    shares: Any  # (m, C) sparse: the belief in each class, where it is not next to nothing
    confidence: Floats  # (m,): in the label
    rival: Ints  # (m,): the likeliest of the other classes
    rival_belief: Floats  # (m,): in that one


class _Electorate:
    """Pictures that vote on each other's classes, in blocks: memory goes with a block's entries."""

    def __init__(self, graph: Graph, classes: int) -> None:
        m = len(graph.labels)
        self.weights, self.labels = graph.weights, graph.labels
        self.own = sparse.csr_array((np.ones(m), self.labels, np.arange(m + 1)), shape=(m, classes))
        self.total: Floats = self.weights.sum(axis=1)
        everyone = np.arange(m)
        self.blocks = [everyone[start : start + BLOCK_ROWS] for start in range(0, m, BLOCK_ROWS)]

    def _votes(self, block: Ints, shares: Any) -> _Votes:
        # The label is an entry in any case: so little that it counts for nothing.
        found = sparse.csr_array(self.weights[block] @ shares + 1e-100 * self.own[block])
        found.sort_indices()
        sizes, total = np.diff(found.indptr), self.total[block]
        rows = np.repeat(np.arange(len(sizes)), sizes)
        heard = total > 0
        share = found.data / np.where(heard, total, 1.0)[rows]
        return _Votes(rows, found.indices.astype(np.int64), share, found.indptr[:-1], heard)

    def majorities(self, shares: Any) -> tuple[Ints, Floats]:
        """The class with the most votes of each, and its margin."""
        m = len(self.labels)
        majority, margin = np.empty(m, dtype=np.int64), np.empty(m)
        for block in self.blocks:
            majority[block], margin[block] = _first_two(self._votes(block, shares))
        return majority, margin

    def believe(self, shares: Any, strange: Floats, alone: Floats, noise: Noise) -> _Beliefs:
        """The next round's beliefs, from the votes, the labels and how labels come about."""
        m, into = len(self.labels), noise.into()
        confidence, rival, rival_belief = np.empty(m), self.labels.copy(), np.zeros(m)
        after = []
        for block in self.blocks:
            votes = self._votes(block, shares)
            labels = self.labels[block]
            is_own = votes.classes == labels[votes.rows]
            posterior = _posterior(votes, labels, strange[block], alone[block], noise, into)
            confidence[block] = posterior[is_own]
            rival_belief[block], place = _first(np.where(is_own, -1.0, posterior), votes)
            rival[block] = votes.classes[place]
            # Where each row of what is kept begins: how many entries are kept before it.
            kept = posterior >= LEAST_BELIEF
            starts = np.concatenate([[0], np.cumsum(kept)])[[*votes.starts, len(kept)]]
            rows = (posterior[kept], votes.classes[kept], starts)
            after.append(sparse.csr_array(rows, shape=(len(block), noise.classes)))
        found = sparse.csr_array(sparse.vstack(after, format="csr"))
        return _Beliefs(found, confidence, rival, rival_belief)


def judge(graph: Graph, classes: int, *, shared_noise: float, calibrated: bool) -> Judgement:
    """Judges the label of each picture, as :func:`saln.label_beliefs`; each class has one."""
    labels = graph.labels
    voters = _Electorate(graph, classes)
    heard = np.flatnonzero(voters.total > 0)
    if not len(heard):  # then every label is believed
        return Judgement(
            np.ones(len(labels)), labels.copy(), Noise(voters.own.T @ voters.own, 0.0, 0.0), 0.0
        )
    members = np.bincount(labels, minlength=classes)
    benefit = IN_DATA_SET if calibrated else IN_BATCH
    strange = _strangeness(graph, members, benefit.reach)
    strange_if_clean = _strangeness(graph, members, IN_CLEAN_BATCH.reach)
    alone: Floats = np.power(MISSED, members[labels] - 1, dtype=np.float64)
    shares = voters.own
    for _ in range(ROUNDS):
        majority, margin = voters.majorities(shares)
        # Strangers say how far away they are, and nothing about the noise.
        margin *= 1.0 - strange
        heard_of = majority[heard], margin[heard], labels[heard]
        counts = _confident_counts(*heard_of, classes)
        noise_rate = 1.0 - float(counts.tocsr().diagonal().sum() / counts.sum())
        noise = Noise(counts, noise_rate, shared_noise)
        clean = 0.0
        if not calibrated:
            disagree, widest = _widest_disagree(*heard_of, CLEAN_SHARE)
            clean = max(0.0, 1.0 - disagree / widest / CLEAN)
        far = strange + clean * (strange_if_clean - strange)
        least = alone * (benefit.alone + clean * (IN_CLEAN_BATCH.alone - benefit.alone))
        beliefs = voters.believe(shares, far, least, noise)
        shares = beliefs.shares
    if not calibrated:
        believed = np.where(beliefs.confidence >= beliefs.rival_belief, labels, beliefs.rival)
        return Judgement(beliefs.confidence, believed, noise, noise_rate)
    confidence, believed, noise_rate = _calibrated(beliefs, labels, *_widest_disagree(*heard_of))
    return Judgement(confidence, believed, noise, noise_rate)


def _calibrated(
    beliefs: _Beliefs, labels: Ints, disagree: int, widest: int
) -> tuple[Floats, Ints, float]:
    """Confidence and believed classes at the noise that the widest margins show, and that rate."""
    confidence, rival_belief = beliefs.confidence, beliefs.rival_belief
    believed = np.where(confidence >= rival_belief, labels, beliefs.rival)
    logits = logit(confidence.clip(1e-15, 1 - 1e-15))
    log_odds = _odds_for_doubt(logits, _wilson_upper(disagree, widest))
    if log_odds > 0:
        raised = confidence * math.exp(log_odds)
        believed = np.where(raised >= rival_belief, labels, beliefs.rival)
        confidence = expit(logits + log_odds)
    return confidence, believed, disagree / widest
