"""Near duplicates, which would vote for each other."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy.sparse
from scipy.sparse.csgraph import connected_components

# The distance of near duplicates, at most, as a share of the usual nearest neighbor's.
NEARER = 0.2
# And their cosine is at least this.
SIMILAR = 0.9
# Larger groups are no duplicates but what the features are like.
LARGEST = 4096


def duplicate_groups(
    indices: npt.NDArray[np.integer],
    similarities: npt.NDArray[np.floating],
) -> list[npt.NDArray[np.int64]]:
    """Groups of two and more, each sorted, in the order of their first examples.

    What counts as near follows from the data: a fifth of the median distance of the nearest
    neighbors that are no copies. Features of few dimensions, whose cosines are all near 1, form
    no groups by that alone.

    Args:
        indices: (n, k): neighbors, nearest first.
        similarities: (n, k): cosines.
    """
    n, k = indices.shape
    if k == 0:
        return []
    distances = np.sqrt(np.maximum(2.0 - 2.0 * similarities.astype(np.float64), 0.0))
    typical = _typical(distances)
    near = (distances < NEARER * typical) & (similarities >= SIMILAR)
    rows, columns = np.nonzero(near)
    graph = scipy.sparse.coo_array(
        (np.ones(len(rows), dtype=np.int8), (rows, indices[rows, columns])), shape=(n, n)
    )
    count, group = connected_components(graph, directed=False)
    sizes = np.bincount(group, minlength=count)
    order = np.argsort(group, kind="stable")
    parts = np.split(order, np.cumsum(sizes)[:-1])
    found = [part for part in parts if 1 < len(part) <= min(LARGEST, n // 2)]
    return sorted(found, key=lambda part: int(part[0]))


def _typical(distances: npt.NDArray[np.float64]) -> float:
    """The median over examples of the distance to the nearest that is no copy."""
    last = float(np.median(distances[:, -1]))
    copy = distances < 0.05 * last
    first = np.where(copy.all(axis=1), distances.shape[1] - 1, (~copy).argmax(axis=1))
    return float(np.median(np.take_along_axis(distances, first[:, None], axis=1)))
