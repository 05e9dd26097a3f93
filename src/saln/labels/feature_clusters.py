"""The share of wrong labels where mistakes follow the image, by the clusters of the features.

From labels and features alone such mistakes cannot be told from clean labels of weak features: an
assumption about the features has to be made. Here it is the cluster assumption (Chapelle and Zien,
2005), which replaces the anchor points of Liu and Tao (2016): each class has a cluster of its own.
Spherical k-means from the labels' class means (seeding by labels: Basu and others, 2002) leaves
the mistakes behind, because it moves to where the features are dense. Nothing is changed unless

- likelihood has all but silenced the neighbors' votes, as it does where the filter alone predicts
  the mistakes, and hardly ever else;
- the votes agree with the clusters: so the features do have clusters of these classes;
- the labels agree with the clusters much less than the votes do. Right labels that are hard to
  predict agree with them nearly as much.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from saln.labels.descriptions import Outcome, noise_interval
from saln.labels.evidence import Gatherer, Signal, search_space
from saln.labels.likelihood_fit import BLOCK_ROWS
from saln.messages import Placeholder, parameter
from saln.spectral.label_filter import one_hot

# The weight of the votes below which they are silenced; 0.7 is usual.
SILENCED = 0.4
# Agreement beyond chance between votes and clusters from which there are clusters of the classes.
CLUSTERED = 0.52
# Of that agreement, the part that labels must lack, and how many times what votes lack themselves.
# Of the clean labels that were tried none lacked more than 0.22 and 0.73 times.
LACKING, TIMES = 0.24, 0.78
# Two or three classes may happen to follow the largest clusters: brightness, for example.
FEWEST_CLASSES = 4
STEPS = 5
# Examples of all labels together that are added to each label's.
SHARED = 30.0

Floats = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]


class ClusteredShare(NamedTuple):
    """The share of wrong labels, of each label (C,), of all, and what that is at least and most."""

    rates: Floats
    rate: float
    low: float
    high: float


def following() -> str:
    """The message where the share is from here."""
    given = parameter("noise_rate", Placeholder("SHARE"))
    return (
        "the mistakes seem to follow the examples, so their share is estimated by the features' "
        f"clusters; check some of the labels and give the share that is wrong: {given}"
    )


def clustered_share(gatherer: Gatherer, outcome: Outcome, wrong: float) -> ClusteredShare | None:
    """The shares of labels outside their class's cluster; None where ``wrong`` is to stay.

    Args:
        gatherer: Features, labels and neighbors.
        outcome: What judging ended with.
        wrong: The share of wrong labels by likelihood.
    """
    silenced = gatherer.table is not None and outcome.judged.joint.votes < SILENCED
    if not (silenced and outcome.informative and gatherer.classes >= FEWEST_CLASSES):
        return None
    known = np.flatnonzero(gatherer.labels >= 0)
    labels, voices = gatherer.labels[known], gatherer.weight[known]
    rows = search_space(gatherer.rows, gatherer.filter)[known]
    clusters = _clusters(rows, labels, gatherer.classes, voices)
    given = (gatherer.labels >= 0).astype(np.float32)
    signal = Signal(np.maximum(gatherer.labels, 0)[:, None], given[:, None])
    held = outcome.evidence.classes
    best = gatherer.votes_by(signal, held).argmax(axis=1)
    votes = held[np.arange(len(held)), best].astype(np.int64)[known]
    clustered = _beyond_chance(votes, clusters, gatherer.classes, voices)
    if clustered < CLUSTERED:
        return None
    lacking = 1.0 - _beyond_chance(labels, clusters, gatherer.classes, voices) / clustered
    # Of mistakes at random, which likelihood sees as well, labels lack up to 4/3 of their share.
    if not max(LACKING, TIMES * (1.0 - clustered), 2 * wrong) <= lacking < 1.0:
        return None
    outside = _clusters(rows, clusters, gatherer.classes, voices) != labels  # settled by now
    share = float(np.average(outside, weights=voices))
    wrongs, counts = (
        np.bincount(labels, weights, gatherer.classes) for weights in (voices * outside, voices)
    )
    low, high = noise_interval(share, len(known), len(known))
    return ClusteredShare(
        (wrongs + SHARED * share) / (counts + SHARED),
        share,
        # The votes restore so many labels, and the clusters are wrong about some examples.
        min(lacking, low),
        min(1.0, max(high, 2 * share - lacking)),
    )


def _clusters(
    rows: npt.NDArray[np.float32], labels: Places, classes: int, voices: Floats
) -> Places:
    """Some steps of spherical k-means from labels or clusters: int64, (n,)."""
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(1e-12)
    found = labels
    for _ in range(STEPS):
        spoken = one_hot(found, classes).multiply(voices[:, None]).astype(np.float32).tocsr()
        centers = torch.nn.functional.normalize(torch.from_numpy(spoken.T @ units), dim=1)
        found = np.empty_like(labels)
        for start in range(0, len(units), BLOCK_ROWS):
            part = slice(start, start + BLOCK_ROWS)
            found[part] = (torch.from_numpy(units[part]) @ centers.T).argmax(dim=1).numpy()
    return found


def _beyond_chance(one: Places, other: Places, classes: int, voices: Floats) -> float:
    """Cohen's kappa of two choices of classes."""
    first, second = (np.bincount(which, voices, classes) / voices.sum() for which in (one, other))
    chance = float(first @ second)
    agreed = float(np.average(one == other, weights=voices))
    return (agreed - chance) / max(1.0 - chance, 1e-12)
