"""Copies of one picture, which vote once: whoever labeled one labeled all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.sparse.csgraph import connected_components

# Two examples are copies where they are this much nearer than the last neighbor usually is;
# nearness as one less the cosine, which goes with the squared distance.
COPY_SHARE = 0.02
# What the rounding of float32 leaves of a cosine of 1: less says nothing.
ROUNDING = 1e-6

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
# From some examples, and one of each picture, those among them, to the neighbors of the first
# among the second: indices and cosines, (q, k) both.
Search = Callable[[Ints, Ints], tuple[Ints, Floats]]


class Graph(NamedTuple):
    """The neighbors of each picture."""

    # (m, m) sparse: max(cosine, 0) of a picture's neighbors, in its row. Entries of 0 are
    # there: a neighbor that is far away is still known to be the nearest.
    weights: Any
    labels: Ints  # int64, (m,): the label of each picture
    copies: Ints  # int64, (m,): how many examples are copies of it


def pictures(indices: Ints, similarities: Floats, labels: Ints) -> Ints:
    """Which picture each example is a copy of: int64, (n,), numbered from 0.

    Copies are near each other, far nearer than neighbors are in this data set, and carry the
    same label: where labels differ, they were given apart. Where most examples have that many
    copies, as where features take few values, they are no copies but the data's own grain.
    Neighbors, (n, k), stand nearest first.
    """
    n = len(labels)
    if indices.shape[1] == 0:
        return np.arange(n)
    apart = 1.0 - similarities
    near = COPY_SHARE * float(np.median(apart[:, -1]))
    rows, columns = np.nonzero(apart < near) if near > ROUNDING else (indices[:0, 0],) * 2
    others = indices[rows, columns]
    alike = labels[rows] == labels[others]
    if not alike.any():
        return np.arange(n)
    pairs = sparse.coo_array((np.ones(alike.sum()), (rows[alike], others[alike])), shape=(n, n))
    found: Ints = connected_components(pairs, directed=False)[1].astype(np.int64)
    return found


def graph_of_pictures(
    indices: Ints,
    similarities: Floats,
    labels: Ints,
    picture: Ints,
    search: Search | None = None,
) -> Graph:
    """The graph between pictures: of copies the nearest pair counts, and copies know no other.

    A picture whose neighbors are mostly, or all, copies of itself has those sought that are no
    copies. Where ``search`` is None, its neighbors are the pictures that have one of its copies
    among their neighbors. ``picture`` is of :func:`pictures`.
    """
    n, k = indices.shape
    count = int(picture.max()) + 1
    weights = np.maximum(similarities, 0.0)
    if count == n:
        starts = np.arange(n + 1) * k
        return Graph(
            sparse.csr_array((weights.reshape(-1), indices.reshape(-1), starts), shape=(n, n)),
            labels,
            np.ones(n, dtype=np.int64),
        )
    tails = np.repeat(picture, k)
    heads, values = picture[indices.reshape(-1)], weights.reshape(-1)
    # Of two pictures the nearest copies; no picture is its own neighbor.
    tails, heads, values = _nearest_pairs(tails, heads, values)
    few = (2 * np.bincount(tails, minlength=count) < k) & (np.bincount(picture) > 1)
    if search is None:
        back = few[heads]
        more = heads[back], tails[back], values[back]
    else:
        members = np.unique(picture, return_index=True)[1]
        found, cosines = search(members[few], members)
        pairs = np.repeat(np.flatnonzero(few), found.shape[1]), picture[found.reshape(-1)]
        more = *pairs, cosines.reshape(-1).clip(0.0)
    edges = (np.concatenate(both) for both in zip((tails, heads, values), more, strict=True))
    tails, heads, values = _nearest_pairs(*edges)
    # The k nearest of each.
    order = np.lexsort((heads, -values, tails))
    starts = np.searchsorted(tails[order], np.arange(count + 1))
    order = order[np.arange(len(order)) - starts[tails[order]] < k]
    starts = np.searchsorted(tails[order], np.arange(count + 1))
    label = np.empty(count, dtype=np.int64)
    label[picture] = labels
    return Graph(
        sparse.csr_array((values[order], heads[order], starts), shape=(count, count)),
        label,
        np.bincount(picture, minlength=count),
    )


def _nearest_pairs(tails: Ints, heads: Ints, values: Floats) -> tuple[Ints, Ints, Floats]:
    """Each pair once, with its largest value; none with itself."""
    order = np.lexsort((-values, heads, tails))
    tails, heads, values = tails[order], heads[order], values[order]
    first = np.ones(len(order), dtype=bool)
    first[1:] = (np.diff(tails) != 0) | (np.diff(heads) != 0)
    first &= tails != heads
    return tails[first], heads[first], values[first]
