"""How labels come out: a transition matrix, learned from the examples that are beyond doubt.

Likelihood alone cannot tell features that take classes for one another from labels that do. The
examples whose evidence is clearest can: of them the features are sure, so that what their labels
disagree is noise. An example's own label has no part in its evidence, so they tell it without
bias.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse
from scipy.special import betaln, gammaln

# The shares of a class's examples, widest margin first, that tell its noise, and how it falls.
SHARES = (0.1, 0.03, 0.01)
# Examples below which a share tells nothing of a class alone.
ENOUGH = 50
# Standard errors that a narrower share is given.
ERRORS = 1.5
# The fewest examples of a small class that are used, and the largest share of it.
FEWEST = 30
LARGEST_SHARE = 0.4
# How many examples of all classes together are added to each class's: for how many labels of it
# are wrong, and for which classes those tell. What the counts are likeliest under is taken.
SHARED = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)
# What each label keeps of all others: nothing is impossible.
POSSIBLE = 0.002
# Classes up to which the matrix is looked up in full.
DENSE = 2048

Floats = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Transition:
    """``T(c, y)``: the share of the examples of class c that are labeled y.

    A row is ``right`` on the diagonal, ``seen`` where labels were seen, and the same ``rest``
    everywhere, so that 10,000 classes take no 10,000 x 10,000 numbers.

    Attributes:
        seen: CSR, (C, C), float64.
        right: float64, (C,).
        rest: float64, (C,).
        anchors: How many examples it was learned from.
    """

    seen: scipy.sparse.csr_array
    right: Floats
    rest: Floats
    anchors: int

    @cached_property
    def dense(self) -> Floats:
        """(C, C). Rows sum to 1."""
        full: Floats = self.seen.toarray() + self.rest[:, None]
        np.fill_diagonal(full, self.right)
        return full

    def columns(self, classes: npt.NDArray[np.integer[Any]], labels: Places) -> Floats:
        """``T(classes[i, j], labels[i])``: float64 (b, m)."""
        beside = np.broadcast_to(labels[:, None], classes.shape)
        if len(self.right) <= DENSE:
            # One index into the flat matrix takes a third of the time of two.
            places = classes.astype(np.int64) * len(self.right) + labels[:, None]
            columns: Floats = self.dense.ravel().take(places)
            return columns
        seen = np.asarray(self.seen[classes.ravel(), beside.ravel()]).reshape(classes.shape)
        found: Floats = np.where(classes == beside, self.right[classes], seen + self.rest[classes])
        return found

    def other(self) -> float:
        """``T(c, y)`` of a class of which nothing is known but that it is not y."""
        return float(self.rest.mean())

    def wrong(self) -> Floats:
        """Each class's share of wrong labels: (C,)."""
        return 1.0 - self.right


def upper(hits: float, trials: float) -> float:
    """A share and its standard errors, as Wilson's interval: above 0 where there are no hits."""
    z = ERRORS * ERRORS
    spread = math.sqrt(max(hits * (trials - hits), 0.0) / trials + z / 4)
    return (hits + z / 2 + ERRORS * spread) / (trials + z)


def _likeliest(likelihood: Callable[[float], float]) -> float:
    return max(SHARED, key=likelihood)


def _level_likelihood(known: Floats, total: Floats, rate: float, shared: float) -> float:
    """Of wrong labels in each class, where rates of classes are spread by ``1 / shared``."""
    rate = min(max(rate, 1e-6), 1 - 1e-6)
    a, b = shared * rate, shared * (1 - rate)
    return float((betaln(known + a, total - known + b) - betaln(a, b)).sum())


def _shape_likelihood(
    off: scipy.sparse.csr_array, known: Floats, each: float, shared: float
) -> float:
    """Of which classes wrong labels tell, where that is spread by ``1 / shared``."""
    rows = gammaln(shared) - gammaln(shared + known)
    return float(rows.sum() + (gammaln(off.data + each) - gammaln(each)).sum())


def learn_transition(
    majority: Places, margin: Floats, labels: Places, classes: int, voices: Floats
) -> Transition:
    """The matrix, from the tenth of each believed class whose margins are widest.

    Where features tell a class apart badly, disagreement falls towards the widest margins; the
    level is then that of the narrower shares, with their standard error.

    Args:
        majority: int64, (n,): the likeliest class by all but the own label.
        margin: float64, (n,): between the two likeliest classes.
        labels: int64, (n,).
        classes: C.
        voices: float, (n,): what each example counts for: copies have one voice together.
    """
    order = np.lexsort((-np.round(margin, 9), majority))
    heard = voices[order].astype(np.float64)
    members = np.bincount(majority, voices, minlength=classes)
    sizes = np.bincount(majority, minlength=classes)
    starts = np.cumsum(sizes) - sizes
    before = np.cumsum(heard) - heard
    # By voices, so that copies do not stand for their class.
    rank = before - before[np.minimum(starts, len(order) - 1)][majority[order]]
    some = np.maximum(SHARES[0] * members, np.minimum(FEWEST, LARGEST_SHARE * members))
    taken = order[rank < some[majority[order]] - 1e-9]
    counts = scipy.sparse.csr_array(
        (voices[taken].astype(np.float64), (majority[taken], labels[taken])),
        shape=(classes, classes),
    )
    counts.sum_duplicates()
    total = np.asarray(counts.sum(axis=1)).ravel()
    agreed = counts.diagonal()
    known = np.maximum(total - agreed, 0.0)
    rate = known.sum() / max(total.sum(), 1.0)
    off = scipy.sparse.csr_array(counts - scipy.sparse.diags_array(agreed, format="csr"))
    off.eliminate_zeros()
    level = _likeliest(lambda shared: _level_likelihood(known, total, rate, shared))
    wrong = (known + level * rate) / (total + level)
    others = max(classes - 1, 1)
    alike = _likeliest(lambda shared: _shape_likelihood(off, known, shared / others, shared))
    agrees = labels[order] == majority[order]
    for c in np.flatnonzero(wrong > 0):
        for share in SHARES[1:]:
            if share * members[c] >= ENOUGH:
                part = slice(starts[c], starts[c] + sizes[c])
                chosen = heard[part] * (rank[part] < share * members[c] - 1e-9)
                wrong[c] = min(wrong[c], upper(float(chosen @ ~agrees[part]), chosen.sum()))
    # What is seen, and what is not, in proportion; then the level of the class.
    scale = wrong / (known + alike)
    rest = scale * alike / others
    seen = scipy.sparse.csr_array(scipy.sparse.diags_array(scale, format="csr") @ off)
    right = (1.0 - wrong + POSSIBLE / classes) / (1 + POSSIBLE)
    rest = (rest + POSSIBLE / classes) / (1 + POSSIBLE)
    return Transition(seen / (1 + POSSIBLE), right, rest, round(total.sum()))
