"""Nearest neighbors by inverted lists: nearly all of them, in a small part of the time.

The rows are parted into lists around centroids, and the neighbors of a list's rows are
sought in the lists whose centroids are nearest to its own. How many lists that takes is
measured first: the exact neighbors of a sample tell in which lists neighbors lie. What
the table then holds of the exact one is measured on another sample.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from saln.features.unit_rows import QUERIES, UnitRows, blocks, nearest_rows
from saln.randomness import derive_generator

# The share of the true neighbors that the lists searched must hold, on the first sample.
RECALL = 0.97
# Rows whose exact neighbors are sought, for the number of lists and again for the recall.
SAMPLE = 512
# Rows of the sample that the centroids are means of, for each centroid; and rounds of means.
ROWS_PER_CENTROID = 64
ROUNDS = 8
# Products that are in memory at once: 256 MiB of float32.
PRODUCTS = 2**26


class Found(NamedTuple):
    """Neighbors, nearest first.

    Attributes:
        similarities: float32, (n, k).
        indices: int64, (n, k).
        recall: The share of a sample's exact neighbors that are among them.
        lists: How many lists the rows are parted into.
        probed: How many of them are searched for each row.
    """

    similarities: npt.NDArray[np.float32]
    indices: npt.NDArray[np.int64]
    recall: float
    lists: int
    probed: int


def approximate_neighbors(rows: UnitRows, k: int, seed: int = 0) -> Found:
    """The ``k`` nearest of each row, but for a few that the lists searched do not hold.

    The same result on every run with the same seed. Memory is proportional to the rows;
    time to ``n ** 1.5`` times the lists searched.

    Args:
        rows: (n, d).
        k: 1 to n - 1.
        seed: Decides the centroids and the samples.
    """
    centroids = _centroids(rows, seed)
    own = torch.empty(rows.n, dtype=torch.int64)
    for start, stop in blocks(rows.n, 8 * QUERIES):
        own[start:stop] = (rows.quick(start, stop) @ centroids.T).argmax(dim=1)
    members = _members(own, len(centroids))
    nearness = (centroids @ centroids.T).argsort(dim=1, descending=True, stable=True)
    sample = torch.randperm(rows.n, generator=derive_generator(seed, "recall"))[: 2 * SAMPLE]
    first, second = sample.sort().values.chunk(2) if rows.n > 1 else (sample, sample)
    probed = _probes(rows, own, nearness, first, k)
    similarities = np.full((rows.n, k), -np.inf, dtype=np.float32)
    indices = np.zeros((rows.n, k), dtype=np.int64)
    while True:
        for number, mine in enumerate(members):
            if len(mine):
                _search(rows, mine, members, nearness[number], probed, similarities, indices)
        if probed == len(centroids) or np.isfinite(similarities).all():
            break
        probed = min(2 * probed, len(centroids))  # lists so short that k were not found
    exact = nearest_rows(rows, second, k, keys=8 * QUERIES)[1].numpy()
    hits = [
        len(np.intersect1d(indices[row], exact[place], assume_unique=True))
        for place, row in enumerate(second.tolist())
    ]
    return Found(similarities, indices, sum(hits) / (k * len(second)), len(centroids), probed)


def _centroids(rows: UnitRows, seed: int) -> Tensor:
    """Unit means of rows that lie together: spherical k-means on a sample."""
    count = max(1, round(math.sqrt(rows.n)))
    order = torch.randperm(rows.n, generator=derive_generator(seed, "centroids"))
    sample = rows.take(order[: ROWS_PER_CENTROID * count])
    centroids = sample[:count].clone()
    for _ in range(ROUNDS):
        nearest = torch.cat(
            [(part @ centroids.T).argmax(dim=1) for part in sample.split(8 * QUERIES)]
        )
        sums = torch.zeros_like(centroids).index_add_(0, nearest, sample)
        lengths = torch.linalg.vector_norm(sums, dim=1, keepdim=True)
        # One that nothing is near to stays where it is.
        centroids = torch.where(lengths > 0, sums / lengths.clamp_min(1e-30), centroids)
    return centroids


def _members(own: Tensor, lists: int) -> tuple[Tensor, ...]:
    parts: tuple[Tensor, ...] = own.argsort(stable=True).split(
        torch.bincount(own, minlength=lists).tolist()
    )
    return parts


def _probes(rows: UnitRows, own: Tensor, nearness: Tensor, sample: Tensor, k: int) -> int:
    """How many of the nearest lists hold the wanted share of the sample's neighbors."""
    exact = nearest_rows(rows, sample, k, keys=8 * QUERIES)[1]
    places = torch.empty_like(nearness)
    places.scatter_(1, nearness, torch.arange(len(nearness)).expand_as(nearness))
    # At which place, seen from a row's own list, the list of each of its neighbors is.
    at = places[own[sample][:, None], own[exact]].flatten().sort().values
    return int(at[math.ceil(RECALL * len(at)) - 1]) + 1


def _search(
    rows: UnitRows,
    mine: Tensor,
    members: tuple[Tensor, ...],
    nearness: Tensor,
    probed: int,
    similarities: npt.NDArray[np.float32],
    indices: npt.NDArray[np.int64],
) -> None:
    """Fills in the neighbors of one list's rows."""
    k = similarities.shape[1]
    others = torch.cat([members[number] for number in nearness[:probed].tolist()])
    others = others.sort().values  # of equals the lower index comes first, mostly
    keys = rows.take(others)
    for part in mine.split(max(1, PRODUCTS // len(others))):
        products = rows.take(part) @ keys.T
        products[torch.arange(len(part)), torch.searchsorted(others, part)] = -torch.inf
        near = torch.topk(products, min(k, len(others)), dim=1)
        place = part.numpy()
        similarities[place, : near.values.shape[1]] = near.values.numpy()
        indices[place, : near.values.shape[1]] = others[near.indices].numpy()
