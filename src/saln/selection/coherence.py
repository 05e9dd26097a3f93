"""Coherence: how likely each label is right, judged by the labels of its neighbours.

On the graph of the nearest neighbours, the weighted share of an example's neighbours that
do not carry its label is its part of the Dirichlet energy ``y' L y``: the roughness of the
label signal on the Laplacian that the published method uses without labels. From the votes
of the neighbours a transition matrix of the label noise is learned, and Bayes' rule gives
the probability that a label is right. Nothing is told about the noise: where there is none,
the matrix comes out next to the identity and the choice next to uniform. Where features tell
classes apart badly, neighbours disagree with right labels too; so no more doubt is spent than
the examples whose neighbours agree best call for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import normalize

from saln.errors import InputError
from saln.features.neighbours import neighbour_table
from saln.features.store import FeatureStore
from saln.selection.candidates import Candidates, Selection
from saln.selection.contract import Selector
from saln.selection.jest import gumbel_top_k

__all__ = [
    "BatchCoherence",
    "Coherence",
    "LabelBeliefs",
    "SuspiciousLabel",
    "candidate_neighbours",
    "label_beliefs",
    "store_beliefs",
    "suspicious_labels",
]

# Votes count for the beliefs by their fourth power: neighbours agree with each other.
SHARPNESS = 4.0
# The share of a majority class, and of all examples, widest margins first, that the noise is
# learned from.
CONFIDENT_SHARE = 0.1
# Added to the votes and to the matrix's rows, spread over the classes: nothing is impossible.
VOTE_SMOOTHING = 0.05
TRANSITION_SMOOTHING = 0.02
ROUNDS = 3
# Neighbours that vote, in a data set; among candidates, and their shared noise.
NEIGHBOURS = 20
CANDIDATE_NEIGHBOURS = 10
CANDIDATE_SHARED_NOISE = 5.0
# Votes and margins that agree to so many decimals are equal.
DECIMALS = 9
# Rows whose votes are worked out at once, times classes: 32 MiB of float64.
BLOCK_ENTRIES = 2**22


@dataclass(frozen=True)
class LabelBeliefs:
    """What the neighbours make of the labels.

    Attributes:
        confidence: float64, (n,): the probability that the given label is right.
        believed: int64, (n,): the likeliest class, given neighbours and label.
        transition: float64, (C, C): row c: how labels of class c come out.
        noise_rate: The estimated share of wrong labels.
    """

    confidence: Tensor
    believed: Tensor
    transition: Tensor
    noise_rate: float


class SuspiciousLabel(NamedTuple):
    """An example whose label the neighbours doubt.

    Attributes:
        example: Its position among the labels.
        given: Its label.
        believed: The class that it is believed to be of.
        confidence: The probability that the given label is right.
    """

    example: int
    given: int
    believed: int
    confidence: float


def _check(indices: Tensor, similarities: Tensor, labels: Tensor, classes: int) -> None:
    n = len(labels)
    if indices.ndim != 2 or indices.shape != similarities.shape or len(indices) != n:
        raise InputError(
            f"neighbours' indices {tuple(indices.shape)} and similarities "
            f"{tuple(similarities.shape)} do not fit {n} labels; expected (n, k) both"
        )
    if labels.dtype != torch.int64:
        raise InputError(f"labels are {labels.dtype}, expected int64; call .long()")
    if n == 0:
        raise InputError("there are no labels to judge; give at least one example")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise InputError(
            f"labels from {low} to {high} do not fit {classes} classes; give 0 to {classes - 1}"
        )


def _votes(indices: Tensor, weights: Tensor, beliefs: Tensor) -> Tensor:
    """The weighted mean of the neighbours' beliefs, smoothed."""
    n, classes = len(indices), beliefs.shape[1]
    votes = torch.zeros(n, classes, dtype=torch.float64, device=beliefs.device)
    for column in range(indices.shape[1]):  # the gather of all at once would be k times larger
        votes += weights[:, column, None] * beliefs[indices[:, column]]
    total = votes.sum(dim=1, keepdim=True)
    votes = votes / total.clamp_min(torch.finfo(torch.float64).tiny)
    return (votes + VOTE_SMOOTHING / classes) / (total.sign() + VOTE_SMOOTHING)


def _confident_counts(majority: Tensor, margin: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Counts of (majority class, label) among the most confident of each majority class."""
    order = torch.argsort(margin, descending=True, stable=True)
    order = order[torch.argsort(majority[order], stable=True)]
    members = torch.bincount(majority, minlength=classes)
    rank = torch.arange(len(order), device=order.device)
    rank = rank - (members.cumsum(0) - members)[majority[order]]
    confident = order[rank < torch.ceil(CONFIDENT_SHARE * members)[majority[order]]]
    pairs = majority[confident] * classes + labels[confident]
    return torch.bincount(pairs, minlength=classes * classes).view(classes, classes).double()


def _transition(counts: Tensor, noise_rate: float, shared_noise: float) -> Tensor:
    """Rows of shares from rows of counts, drawn towards noise that knows no class."""
    classes = len(counts)
    identity = torch.eye(classes).to(counts)
    others = (1 - identity) / max(classes - 1, 1)
    alike = (1 - noise_rate) * identity + noise_rate * others
    seen = counts.sum(dim=1, keepdim=True) + shared_noise
    rows = (counts + shared_noise * alike) / seen.clamp_min(torch.finfo(torch.float64).tiny)
    rows = torch.where(seen > 0, rows, identity)
    return (rows + TRANSITION_SMOOTHING / classes) / (1 + TRANSITION_SMOOTHING)


def _widest_disagree(majority: Tensor, margin: Tensor, labels: Tensor) -> tuple[int, int]:
    """How many of all examples' tenth of widest margins are not labelled as the majority."""
    widest = torch.argsort(margin, descending=True, stable=True)
    widest = widest[: math.ceil(CONFIDENT_SHARE * len(labels))]
    return int((majority[widest] != labels[widest]).sum()), len(widest)


def _wilson_upper(hits: int, trials: int) -> float:
    """A share and one standard error, as Wilson's interval: above 0 where there are no hits."""
    middle = (hits + 0.5) / (trials + 1)
    return middle + math.sqrt(hits * (trials - hits) / trials + 0.25) / (trials + 1)


def _odds_for_doubt(logits: Tensor, doubt: float) -> float:
    """The logarithm, at least 0, of what the odds must be multiplied by for this mean doubt."""
    low, high = 0.0, 0.0
    while float(torch.sigmoid(-logits - high).mean()) > doubt:
        low, high = high, 2.0 * high + 1.0
    for _ in range(50):
        middle = (low + high) / 2
        if float(torch.sigmoid(-logits - middle).mean()) > doubt:
            low = middle
        else:
            high = middle
    return high


def label_beliefs(
    neighbour_indices: Tensor,
    neighbour_similarities: Tensor,
    labels: Tensor,
    classes: int,
    *,
    shared_noise: float = 0.0,
    calibrated: bool = True,
) -> LabelBeliefs:
    """How likely each label is right, by the labels of its neighbours.

    Three rounds of:

    1. Votes ``v_i(c)``: the mean of the neighbours' beliefs that they are of class ``c``,
       weighted by max(cosine, 0), smoothed by 0.05 / C. At first a neighbour believes its
       label; later, what the last round made of it.
    2. What the neighbours say of the true class: ``Q_i(c)`` in proportion to ``v_i(c)^4``.
    3. The noise: among the tenth of each majority class with the widest margin between
       first and second vote, the share that carries each label is that class's row of the
       transition matrix ``T``, smoothed by 0.02 / C. An example's own label has no part in
       its votes, so that the confident tell the noise without bias. A class that has the
       majority nowhere is taken to be labelled rightly.
    4. Bayes: the belief that i is of class ``c`` is in proportion to ``Q_i(c) T(c, y_i)``,
       and the label's confidence is the belief in ``y_i``.

    Last, the level of the noise: among the tenth of *all* examples with the widest margins, the
    share whose label is not the majority; classes that the features tell apart badly have little
    part in it. Where the mean doubt, one less the confidence, is above that share by more than
    its standard error (Wilson's upper bound), the odds of all labels are multiplied by the one
    number that brings it there: the order of the confidences stays, but hard examples with
    right labels are kept.

    A neighbour with a wrong label so comes to vote for the class that its own neighbours
    tell, in the place of falling silent.

    Args:
        neighbour_indices: integer, (n, k): the neighbours of each example, itself left out.
        neighbour_similarities: floating, (n, k).
        labels: int64, (n,), in [0, classes).
        classes: The number of classes, C.
        shared_noise: How many more confident examples each row of ``T`` is given, that
            carry wrong labels at the rate of all classes together and each other class
            equally often. For few examples, whose tenth tells little about single classes.
        calibrated: Whether to do the last step. Too few examples tell no level; the noise rate
            is then what the confident of the classes show.

    Returns:
        The beliefs. Memory: two (n, C) matrices of float32 beside blocks.

    Raises:
        InputError: Shapes that do not fit, labels out of range, no example, or a negative
            ``shared_noise``.
    """
    if shared_noise < 0:
        raise InputError(f"shared_noise={shared_noise} is not allowed; give at least 0")
    _check(neighbour_indices, neighbour_similarities, labels, classes)
    n = len(labels)
    device = labels.device
    everyone = torch.arange(n, device=device)
    beliefs = torch.zeros(n, classes, dtype=torch.float32, device=device)
    beliefs[everyone, labels] = 1.0
    blocks = torch.split(everyone, max(1, BLOCK_ENTRIES // classes))

    def votes_of(block: Tensor) -> Tensor:
        weights = neighbour_similarities[block].double().clamp_min(0.0)
        return _votes(neighbour_indices[block].long(), weights, beliefs)

    transition, noise_rate = torch.empty(0), 0.0
    majority, margin = torch.empty(0), torch.empty(0)
    confidence = torch.empty(n, dtype=torch.float64, device=device)
    for _ in range(ROUNDS):
        majority = torch.empty(n, dtype=torch.int64, device=device)
        margin = torch.empty(n, dtype=torch.float64, device=device)
        votes = torch.empty(0)
        for block in blocks:
            votes = votes_of(block)
            # Equal but for rounding is equal: then the lowest class and the lowest index come
            # first, on every machine.
            rounded = votes.round(decimals=DECIMALS)
            first = torch.topk(rounded, min(2, classes), dim=1)
            majority[block] = rounded.argmax(dim=1)  # topk promises no order among equals
            margin[block] = (first.values[:, 0] - first.values[:, -1]).round(decimals=DECIMALS)
        counts = _confident_counts(majority, margin, labels, classes)
        noise_rate = 1.0 - float(counts.diagonal().sum() / counts.sum())
        transition = _transition(counts, noise_rate, shared_noise)
        after = torch.empty_like(beliefs)
        for block in blocks:
            if len(blocks) > 1:
                votes = votes_of(block)
            posterior = votes**SHARPNESS * transition[:, labels[block]].T
            posterior = posterior / posterior.sum(dim=1, keepdim=True)
            confidence[block] = posterior.gather(1, labels[block, None]).squeeze(1)
            after[block] = posterior.float()
        beliefs = after
    if calibrated:
        disagree, widest = _widest_disagree(majority, margin, labels)
        noise_rate = disagree / widest
        logits = torch.logit(confidence, eps=1e-15)
        log_odds = _odds_for_doubt(logits, _wilson_upper(disagree, widest))
        if log_odds > 0:
            confidence = torch.sigmoid(logits + log_odds)
            beliefs[everyone, labels] *= math.exp(log_odds)
    return LabelBeliefs(confidence, beliefs.argmax(dim=1), transition, noise_rate)


def store_beliefs(store: FeatureStore, labels: npt.NDArray[np.int64] | None = None) -> LabelBeliefs:
    """:func:`label_beliefs` for a feature store; its neighbour table is kept in its folder.

    Args:
        store: The features.
        labels: int64, (n,): the labels to judge; the store's own when None.

    Raises:
        InputError: As :func:`label_beliefs`.
        DataError: The store's folder cannot be written to.
    """
    given = torch.from_numpy(np.array(store.labels if labels is None else labels))
    readable = store.readable
    rows = None if readable is None else torch.from_numpy(readable)
    table = neighbour_table(store, NEIGHBOURS, rows=readable)
    indices, similarities = (
        torch.from_numpy(np.array(array)) for array in (table.indices, table.similarities)
    )
    judged = given if rows is None else given[rows]
    beliefs = label_beliefs(indices, similarities, judged, int(judged.max()) + 1)
    if rows is None:
        return beliefs
    # Of what could not be read nothing is believed, and nothing doubted.
    confidence = torch.zeros(len(given), dtype=beliefs.confidence.dtype)
    confidence[rows] = beliefs.confidence
    believed = given.clone()
    believed[rows] = beliefs.believed
    return replace(beliefs, confidence=confidence, believed=believed)


def suspicious_labels(
    beliefs: LabelBeliefs, labels: Tensor, top: int = 100
) -> list[SuspiciousLabel]:
    """The examples whose labels are least likely right, the worst first.

    Args:
        beliefs: From :func:`label_beliefs`.
        labels: int64, (n,): the labels that were judged.
        top: How many at most. Labels that are believed are left out.

    Raises:
        InputError: ``top`` is below 1, or there is not one label a belief.
    """
    if top < 1:
        raise InputError(f"top={top} is not allowed; give at least 1")
    if len(labels) != len(beliefs.confidence):
        raise InputError(
            f"{len(labels)} labels do not fit beliefs about {len(beliefs.confidence)}; "
            "give the labels that were judged"
        )
    order = torch.argsort(beliefs.confidence, stable=True)
    doubted = order[(beliefs.believed != labels)[order]][:top]
    return [
        SuspiciousLabel(i, int(labels[i]), int(beliefs.believed[i]), float(beliefs.confidence[i]))
        for i in doubted.tolist()
    ]


def candidate_neighbours(features: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The ``k`` nearest of each candidate among the others, by cosine of centred features.

    Args:
        features: floating, (n, d); half precision is computed in float32.
        k: At least 1; all others where there are fewer.

    Returns:
        int64 (n, k) positions and floating (n, k) similarities, nearest first.
    """
    if features.dtype not in (torch.float32, torch.float64):
        features = features.float()
    n = len(features)
    unit = normalize(features - features.mean(dim=0), dim=1)
    similarities = unit @ unit.T
    similarities.fill_diagonal_(-torch.inf)
    nearest = torch.topk(similarities, min(k, n - 1), dim=1)
    return nearest.indices, nearest.values


def _keep(confidence: Tensor, k: int, generator: torch.Generator) -> Selection:
    tiny = torch.finfo(torch.float64).tiny
    logits = confidence.double().clamp_min(tiny).log()
    return Selection(gumbel_top_k(logits, k, generator), scores=confidence.cpu())


class Coherence(Selector):
    """Keeps examples in proportion to the probability that their label is right.

    The probability comes with the candidates: :func:`label_beliefs` gives it for a whole
    data set, once, from the neighbours of every example
    (:func:`saln.features.neighbours.nearest_neighbours`).
    """

    requires: ClassVar[frozenset[str]] = frozenset({"label_confidence"})
    summary: ClassVar[str] = (
        "in proportion to how likely the label is right, by its neighbours (ours); costs features "
        "and one neighbour search before the first step"
    )

    def choose(self, candidates: Candidates, k: int, generator: torch.Generator) -> Selection:
        """Draws by Gumbel-top-k.

        Raises:
            InputError: A confidence below 0.
        """
        confidence = candidates.need("label_confidence")
        if bool((confidence < 0).any()):
            row = int((confidence < 0).nonzero()[0])
            raise InputError(
                f"label_confidence of candidate {row} is {float(confidence[row]):g}; "
                "give probabilities, 0 to 1"
            )
        return _keep(confidence, k, generator)


@dataclass(frozen=True)
class BatchCoherence(Selector):
    """:class:`Coherence` with the neighbours sought among the candidates alone.

    Needs no table of the data set. Sees less: the candidates of one step are few a class.

    Args:
        neighbours: How many vote for each candidate.

    Raises:
        InputError: ``neighbours`` is below 1.
    """

    neighbours: int = CANDIDATE_NEIGHBOURS

    requires: ClassVar[frozenset[str]] = frozenset({"features", "labels"})
    is_joint: ClassVar[bool] = True
    summary: ClassVar[str] = (
        "as coherence, by neighbours among the candidates; costs features and a small matrix a step"
    )

    def __post_init__(self) -> None:
        if self.neighbours < 1:
            raise InputError(f"neighbours={self.neighbours} is not allowed; give at least 1")

    def choose(self, candidates: Candidates, k: int, generator: torch.Generator) -> Selection:
        """Judges the labels by :func:`label_beliefs` and draws by Gumbel-top-k."""
        labels = candidates.need("labels")
        indices, similarities = candidate_neighbours(candidates.need("features"), self.neighbours)
        # The classes that are there, numbered anew: others could get no vote.
        present, numbered = torch.unique(labels, return_inverse=True)
        beliefs = label_beliefs(
            indices, similarities, numbered, len(present),
            shared_noise=CANDIDATE_SHARED_NOISE, calibrated=False,
        )  # fmt: skip
        return _keep(beliefs.confidence, k, generator)
