"""How likely each label is right, judged by the labels of the example's neighbors.

On the graph of the nearest neighbors, the weighted share of an example's neighbors that
do not carry its label is its part of the Dirichlet energy ``y' L y``: the roughness of the
label signal on the Laplacian that the published method uses without labels. From the votes
of the neighbors a transition matrix of the label noise is learned, and Bayes' rule gives
the probability that a label is right. Nothing need be known of the noise: where there is none,
the matrix comes out next to the identity and the choice next to uniform. Where features tell
classes apart badly, neighbors disagree with right labels too; so no more doubt is spent than
the examples whose neighbors agree best call for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from saln.data.arguments import as_array, as_labels, as_whole, check_finite
from saln.errors import InputError
from saln.features.neighbors import nearest_neighbors, neighbor_table, neighbors_among
from saln.features.store import FeatureStore
from saln.messages import not_allowed
from saln.selection.near_duplicates import ROUNDING, Search, graph_of_pictures, pictures
from saln.selection.neighbor_votes import judge, what_tells_nothing

# Neighbors that vote, in a data set.
NEIGHBORS = 20
# The transition matrix of more classes than this, 32 MiB, is not made.
MOST_CLASSES = 2048
# What is believed of copies of one picture that no other picture is known to be near to.
UNSEEN = 0.5


@dataclass(frozen=True)
class NeighborBeliefs:
    """What the neighbors make of the labels.

    Attributes:
        confidence: float64, (n,): the probability that the given label is right.
        believed: int64, (n,): the likeliest class, given neighbors and label.
        transition: float64, (C, C): row c: how labels of class c come out. With more than
            2,048 classes (0, 0).
        noise_rate: The estimated share of wrong labels; NaN where nothing can be said.
        tells_nothing: Why nothing can be said of these labels by these neighbors, one
            sentence; then no label is doubted. None where something can.
    """

    confidence: Tensor
    believed: Tensor
    transition: Tensor
    noise_rate: float
    tells_nothing: str | None = None


class SuspiciousLabel(NamedTuple):
    """An example whose label the neighbors doubt.

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


def _table(indices: Any, similarities: Any, n: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """A neighbor table that somebody gave, as arrays; InputError where its entries are none."""
    where = as_array(indices, "neighbors' indices")
    near = as_array(similarities, "neighbors' similarities")
    if where.ndim != 2 or where.shape != near.shape or len(where) != n:
        raise InputError(
            f"neighbors' indices {tuple(where.shape)} and similarities {tuple(near.shape)} do "
            f"not fit {n} labels; expected (n, k) both"
        )
    if where.size and (where.dtype.kind not in "iu" or where.min() < 0 or where.max() >= n):
        raise InputError(
            f"neighbors' indices are {where.dtype} from {where.min()} to {where.max()}; give "
            f"whole numbers from 0 to {n - 1}"
        )
    near = near.astype(np.float64)
    check_finite(near, "similarities", cure="give cosines, which finite features have")
    return where.astype(np.int64), near


def _classes(labels: Any, classes: int | None) -> tuple[npt.NDArray[np.int64], int]:
    """Labels that somebody gave as numbers, and how many classes there are."""
    length = len(labels) if hasattr(labels, "__len__") else 0
    numbers, names = as_labels(labels, (length,))
    if len(numbers) == 0:
        raise InputError("there are no labels to judge; give at least one example")
    low, high = int(numbers.min()), int(numbers.max())
    if classes is None:
        return numbers, high + 1 if names is None else len(names)
    classes = as_whole(classes, "classes", 1)
    if high >= classes:
        raise InputError(
            f"labels from {low} to {high} do not fit {classes} classes; give 0 to {classes - 1}"
        )
    return numbers, classes


def label_beliefs(
    neighbor_indices: Any,
    neighbor_similarities: Any,
    labels: Any,
    classes: int | None = None,
    *,
    shared_noise: float = 0.0,
    calibrated: bool = True,
) -> NeighborBeliefs:
    """How likely each label is right, by the labels of its neighbors.

    Copies of one picture that carry one label, far nearer to each other than neighbors are,
    count as one example: whoever labeled one labeled all. Then three rounds of:

    1. Votes ``v_i(c)``: the mean of the neighbors' beliefs that they are of class ``c``,
       weighted by max(cosine, 0), smoothed by 0.05 / C. At first a neighbor believes its
       label; later, what the last round made of it.
    2. What the neighbors say of the true class: ``Q_i(c)`` in proportion to ``v_i(c)^4``.
       Classes too small to fill the places of the neighbors cannot be outvoted by those who
       are far away: of an example that is less near to its neighbors than 0.7 of how near
       these are to theirs, what is missing votes for its label, in the share of the places
       that its class leaves empty. And what a label that is the only one of its class says
       counts at least 0.003 of what the first class does, 0.4 times that for each more.
    3. The noise: among the tenth of each majority class with the widest margin between
       first and second vote, the share that carries each label is that class's row of the
       transition matrix ``T``, smoothed by 0.02 / C. An example's own label has no part in
       its votes, so that the confident show the noise without bias. A class that has the
       majority nowhere is taken to be labeled rightly.
    4. Bayes: the belief that i is of class ``c`` is in proportion to ``Q_i(c) T(c, y_i)``,
       and the label's confidence is the belief in ``y_i``.

    Last, the level of the noise: among the tenth of *all* examples with the widest margins, the
    share whose label is not the majority; classes that the features tell apart badly have little
    part in it. Where the mean doubt, one less the confidence, is above that share by more than
    its standard error (Wilson's upper bound), the odds of all labels are multiplied by the one
    number that brings it there: the order of the confidences stays, but hard examples with
    right labels are kept.

    A neighbor with a wrong label so comes to vote for the class that its own neighbors
    speak for, in the place of falling silent.

    Where neighbors tell nothing, as with features that are all the same, labels that are a
    class each, or neighbors that agree with labels no more often than by chance, no label is
    doubted and ``tells_nothing`` says why.

    Args:
        neighbor_indices: integer, (n, k): the neighbors of each example, itself left out;
            as of :func:`saln.features.neighbors.nearest_neighbors`. Arrays, tensors or lists.
        neighbor_similarities: floating, (n, k).
        labels: (n,) or (n, 1): whole numbers of any type in [0, classes), or names, which are
            numbered in alphabetical order.
        classes: The number of classes, C; one more than the largest label when None. Only
            those that occur count.
        shared_noise: How many more confident examples each row of ``T`` is given, that
            carry wrong labels at the rate of all classes together and each other class
            equally often. For few examples, whose tenth tells little about single classes.
        calibrated: Whether to do the last step, and to compare with chance. Too few examples
            tell no level; the noise rate is then what the confident of the classes show.

    Returns:
        The beliefs. Memory goes with n k, and with C^2 where C is at most 2,048.

    Raises:
        InputError: Shapes that do not fit, labels out of range, no example, or a negative
            ``shared_noise``.
    """
    if shared_noise < 0:
        raise not_allowed("shared_noise", shared_noise, "at least 0")
    numbers, count = _classes(labels, classes)
    indices, similarities = _table(neighbor_indices, neighbor_similarities, len(numbers))
    beliefs = beliefs_by_neighbors(
        indices, similarities, numbers, count, shared_noise=shared_noise, calibrated=calibrated
    )
    # Judged on the CPU; what is compared with the labels goes where they are.
    if isinstance(labels, Tensor) and labels.device.type != "cpu":
        names, device = ("confidence", "believed", "transition"), labels.device
        moved: dict[str, Any] = {name: getattr(beliefs, name).to(device) for name in names}
        return replace(beliefs, **moved)
    return beliefs


def beliefs_by_neighbors(
    indices: npt.NDArray[np.int64],
    similarities: npt.NDArray[np.float64],
    labels: npt.NDArray[np.int64],
    classes: int,
    *,
    shared_noise: float = 0.0,
    calibrated: bool = True,
    search: Search | None = None,
) -> NeighborBeliefs:
    """:func:`label_beliefs` of checked arrays; ``search`` finds neighbors beyond copies."""
    # Classes that do not occur play no part: numbers in the millions cost nothing.
    present, numbered = np.unique(labels, return_inverse=True)
    # Votes are of pictures: copies would confirm each other's wrong label.
    picture = pictures(indices, similarities, numbered)
    graph = graph_of_pictures(indices, similarities, numbered, picture, search)
    transition = torch.eye(classes if classes <= MOST_CLASSES else 0, dtype=torch.float64)
    # Of neighbors that are all equally near those that come first are taken, whatever they say.
    equal = similarities.size > 0 and float(np.median(similarities[:, -1])) > 1.0 - ROUNDING
    reason = what_tells_nothing(graph, len(present), by_chance=calibrated or equal)
    if reason is not None:
        sure = torch.ones(len(labels), dtype=torch.float64)
        return NeighborBeliefs(sure, torch.from_numpy(labels), transition, float("nan"), reason)
    # What one picture is believed to be, all its copies are.
    found = judge(graph, len(present), shared_noise=shared_noise, calibrated=calibrated)
    confidence = found.confidence
    # Nothing is known of copies that no other picture is near to, unless they are their class.
    unseen = (np.diff(graph.weights.indptr) == 0) & (graph.copies > 1) & (len(present) > 1)
    unseen &= 2 * graph.copies <= np.bincount(numbered)[graph.labels]
    confidence[unseen] = np.minimum(confidence[unseen], UNSEEN)
    if len(transition):
        # Back to the numbers that were given; a class that does not occur keeps its 1.
        there = torch.from_numpy(present)
        transition[there[:, None], there] = torch.from_numpy(found.noise.dense())
    return NeighborBeliefs(
        torch.from_numpy(confidence[picture]),
        torch.from_numpy(present[found.believed[picture]]),
        transition,
        found.noise_rate,
    )


def store_beliefs(
    store: FeatureStore | Any, labels: Any = None, *, keep: bool = True
) -> NeighborBeliefs:
    """:func:`label_beliefs` for features: a feature store, or an array.

    Of an array (n, d) the neighbors are searched each time; beside a store their table is
    written where ``keep`` says so, unless it is there. ``labels`` are the store's own when
    None. Raises as :func:`label_beliefs`, and DataError where the disk of the store is full or
    fails.
    """
    features: Any = store
    readable = None
    if isinstance(store, FeatureStore):
        labels = store.labels if labels is None else labels
        features, readable = store.features, store.readable
        if readable is not None:
            labels = as_array(labels, "labels")
    elif labels is None:
        raise InputError("coherence judges labels, and none are given; give one a row")
    elif not isinstance(store, np.ndarray):
        features = as_array(store, "features")
    length = len(labels) if hasattr(labels, "__len__") else 0
    if length != len(features):
        raise InputError(f"{len(features)} rows of features but {length} labels; give one a row")
    judged, count = _classes(labels if readable is None else labels[readable], None)
    if isinstance(store, FeatureStore):
        table = neighbor_table(store, NEIGHBORS, rows=readable, keep=keep)
    else:
        table = nearest_neighbors(features, NEIGHBORS)

    def search(
        which: npt.NDArray[np.int64], among: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        rows = features if readable is None else features[readable]
        return neighbors_among(rows, which, among, NEIGHBORS)

    indices, similarities = _table(table.indices, table.similarities, len(judged))
    beliefs = beliefs_by_neighbors(indices, similarities, judged, count, search=search)
    if readable is None:
        return beliefs
    # Of what could not be read nothing is believed, and nothing doubted.
    rows = torch.from_numpy(readable)
    confidence = torch.zeros(length, dtype=torch.float64)
    confidence[rows] = beliefs.confidence
    believed = torch.full((length,), -1, dtype=torch.int64)
    believed[rows] = beliefs.believed
    return replace(beliefs, confidence=confidence, believed=believed)


def _given(labels: Any) -> npt.NDArray[np.int64]:
    """Labels as numbers; -1 stays, which a store holds for what could not be read."""
    array = as_array(labels, "labels")
    if array.ndim == 1 and array.dtype.kind == "i":
        return array.astype(np.int64)
    return as_labels(labels, (len(array),))[0]


def suspicious_labels(
    beliefs: NeighborBeliefs, labels: Tensor | npt.NDArray[Any] | Sequence[Any], top: int = 100
) -> list[SuspiciousLabel]:
    """The examples whose labels are least likely right, the worst first.

    Args:
        beliefs: From :func:`label_beliefs`.
        labels: (n,): the labels that were judged, as they were given to it.
        top: How many at most. Labels that are believed are left out, and all where features
            or labels tell nothing.

    Raises:
        InputError: ``top`` is below 1, or there is not one label a belief.
    """
    top = as_whole(top, "top", 1)
    if len(labels) != len(beliefs.confidence):
        raise InputError(
            f"{len(labels)} labels do not fit beliefs about {len(beliefs.confidence)}; "
            "give the labels that were judged"
        )
    if beliefs.tells_nothing is not None:
        return []
    given = torch.as_tensor(_given(labels), device=beliefs.believed.device)
    # Stable: of equal confidences the lower position comes first, everywhere.
    order = torch.argsort(beliefs.confidence, stable=True)
    doubted = order[((beliefs.believed != given) & (given >= 0))[order]][:top]
    return [
        SuspiciousLabel(i, int(given[i]), int(beliefs.believed[i]), float(beliefs.confidence[i]))
        for i in doubted.tolist()
    ]
