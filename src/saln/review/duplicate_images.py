"""Near duplicates: which examples are as good as the same, and what that does to a data set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.sparse
from scipy.sparse.csgraph import connected_components

from saln.review.review_table import ReviewTable

# Nearest neighbors whose thumbnails are compared; more give hardly any more pairs.
COMPARED = 10
# The cosine of the thumbnails' edges that near duplicates have at least. It gives 519 groups of
# CIFAR-10's 60,000 images and 45 of 7,349 pets; of all 261 that were looked at at most 3 hold
# different pictures.
SAME = 0.8
# Where pictures are alike by nature, such as digits: this part of the usual distance to 1.
NEARER = 0.25
# Cells at each side that hold a frame, if there is one: without them pictures must agree, too.
FRAME = 2
_BLOCK = 4096

Places = npt.NDArray[np.int64]


class DuplicateGroups(NamedTuple):
    """The groups of near duplicates of a table by what they do, each the rows of one group."""

    inside: tuple[Places, ...]  # In one class and one split: they only repeat
    across_classes: tuple[Places, ...]  # With different labels, of which at most one is right
    # In several splits: what is trained on is tested on; may be in ``across_classes``, too
    across_splits: tuple[Places, ...]


def duplicate_kinds(table: ReviewTable) -> DuplicateGroups:
    """Sorts the groups of the column ``group`` by what they do."""
    inside, classes, splits = [], [], []
    order = np.argsort(table.group, kind="stable")
    order = order[table.group[order] >= 0]
    for rows in np.split(order, np.flatnonzero(np.diff(table.group[order])) + 1):
        if len(rows) < 2:
            continue
        labels = {table.given[row] for row in rows.tolist()} - {""}
        where = {table.splits[row] for row in rows.tolist()}
        if len(labels) > 1:
            classes.append(rows)
        if len(where) > 1:
            splits.append(rows)
        if len(labels) <= 1 and len(where) == 1:
            inside.append(rows)
    return DuplicateGroups(tuple(inside), tuple(classes), tuple(splits))


def group_duplicates(
    neighbors: npt.NDArray[np.integer],
    thumbnails: npt.NDArray[np.uint8] | None = None,
    groups: Sequence[Places] = (),
) -> Places:
    """Numbers groups of near duplicates: those known by features, and those that look the same.

    The features find candidates, the thumbnails decide: features of a network hardly tell a
    picture that was saved again from another one of the same thing, edges of thumbnails do.
    ``neighbors`` are (n, k), nearest first, negative ones none; ``thumbnails`` gray, (n, s, s), or
    None for examples that are no images; ``groups`` rows that are near duplicates by features.
    Gives int64, (n,): the group's number, from 0 in the order of first examples; -1: in none.
    """
    n = len(neighbors)
    pairs = [np.stack([group[:-1], group[1:]]) for group in groups]
    if thumbnails is not None and n > 1 and neighbors.shape[1]:
        pairs.append(_same_pictures(neighbors[:, :COMPARED], thumbnails))
    if not pairs:
        return np.full(n, -1, dtype=np.int64)
    ends = np.concatenate(pairs, axis=1)
    graph = scipy.sparse.coo_array((np.ones(ends.shape[1], dtype=np.int8), tuple(ends)), (n, n))
    _, component = connected_components(graph, directed=False)
    first, inverse, sizes = np.unique(
        component, return_index=True, return_inverse=True, return_counts=True
    )[1:]
    # Numbered in the order of first examples, those alone left out.
    several = np.flatnonzero(sizes > 1)
    number = np.full(len(sizes), -1, dtype=np.int64)
    number[several[np.argsort(first[several])]] = np.arange(len(several))
    return number[inverse]


def _same_pictures(neighbors: npt.NDArray[np.integer], thumbnails: npt.NDArray[np.uint8]) -> Places:
    """Pairs of rows whose thumbnails' edges agree: (2, m)."""
    edges, inner = _edges(thumbnails)
    lengths = [_lengths(edges[:, :inner]), _lengths(edges)]
    agreement = np.empty(neighbors.shape, dtype=np.float32)
    for start in range(0, len(neighbors), _BLOCK):
        part = slice(start, start + _BLOCK)
        own = edges[part].astype(np.float32)
        for column, near in enumerate(neighbors[part].T):
            others = edges[near].astype(np.float32)
            middle = np.einsum("ij,ij->i", own[:, :inner], others[:, :inner])
            whole = middle + np.einsum("ij,ij->i", own[:, inner:], others[:, inner:])
            cosines = [
                dot / (length[part] * length[near])
                for dot, length in zip((middle, whole), lengths, strict=True)
            ]
            agreement[part, column] = np.where(near >= 0, np.minimum(*cosines), -1.0)
    best = agreement.max(axis=1)[(neighbors >= 0).any(axis=1)]
    usual = 1.0 - float(np.median(best)) if len(best) else 1.0
    rows, columns = np.nonzero(agreement >= max(SAME, 1.0 - NEARER * usual))
    return np.stack([rows, neighbors[rows, columns].astype(np.int64)])


def _edges(pictures: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.int16], int]:
    """Differences of cells side by side, (n, m), and how many come first that are in no frame."""
    side = pictures.shape[1]
    inside = np.zeros((side, side), dtype=bool)
    inside[FRAME:-FRAME, FRAME:-FRAME] = True
    free = [inside[1:] & inside[:-1], inside[:, 1:] & inside[:, :-1]]
    # A quarter of the memory that ready cosines would take.
    edges = np.empty((len(pictures), 2 * side * (side - 1)), dtype=np.int16)
    for start in range(0, len(pictures), _BLOCK):
        gray = pictures[start : start + _BLOCK].astype(np.int16)
        down, across = np.diff(gray, axis=1), np.diff(gray, axis=2)
        parts = [down[:, free[0]], across[:, free[1]], down[:, ~free[0]], across[:, ~free[1]]]
        np.concatenate(parts, axis=1, out=edges[start : start + _BLOCK])
    return edges, int(free[0].sum() + free[1].sum())


def _lengths(edges: npt.NDArray[np.int16]) -> npt.NDArray[np.float32]:
    """(n,): lengths of rows; of flat pictures, which are like nothing, infinite."""
    squares = np.einsum("ij,ij->i", edges, edges, dtype=np.float32)
    return np.where(squares > 0, np.sqrt(squares), np.inf).astype(np.float32)
