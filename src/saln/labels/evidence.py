"""What the others say of an example's class: the filter's scores and the neighbors' votes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse
import torch
from torch import Tensor

from saln.features.neighbors import NeighborTable, nearest_neighbors
from saln.labels.duplicate_groups import duplicate_groups
from saln.labels.feature_blocks import FeatureBlocks, batches
from saln.spectral.label_filter import LabelFilter, transposed_product

# With more classes than this, each example keeps those that speak for it most, and its own.
ALL_CLASSES = 64
KEPT_CLASSES = 32
# Votes: how many neighbors, and the power of the cosine that each counts by.
NEIGHBORS = 50
SHARPNESS = 4
# Added to each class's share of the votes, over all classes: nothing is impossible.
VOTE_SMOOTHING = 0.05
# Directions of the largest variation in which neighbors are sought, and the power of their
# eigenvalues that each is divided by: the largest would else decide alone who is near.
SEARCH_WIDTH = 128
EVENED = 0.25
# Rows up to which the search is exact, and up to which there is one.
EXACT_ROWS = 20_000
NEIGHBOR_ROWS = 200_000
BLOCK_ENTRIES = 2**20
# Classes up to which beliefs in full are summed faster than beliefs without zeros.
DENSE_CLASSES = 256

Places = npt.NDArray[np.int64]
Singles = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Signal:
    """What each example says for the others: shares of its classes.

    Attributes:
        classes: integer, (n, m).
        shares: float32, (n, m); rows of zeros cast no vote.
    """

    classes: npt.NDArray[np.integer[Any]]
    shares: Singles

    def sparse(self, which: slice | Places, classes: int) -> scipy.sparse.csr_array:
        """Some rows as CSR, (b, C); rows that cast no vote are empty."""
        shares = self.shares[which].astype(np.float64)
        held = shares > 0
        indptr = np.concatenate([[0], np.cumsum(held.sum(axis=1))])
        columns = self.classes[which][held].astype(np.int64)
        return scipy.sparse.csr_array((shares[held], columns, indptr), shape=(len(shares), classes))


@dataclass(frozen=True)
class Evidence:
    """For each example the classes that are possible, and what speaks for each.

    Attributes:
        rows: int64, (b,): which examples.
        classes: integer, (b, m), as narrow as the number of classes allows.
        scores: float32, (b, m): of the filter.
        votes: float32, (b, m): logarithms; None without neighbors.
        left: How many classes each example leaves out.
        typical: float32, (b,): the mean score of the classes left out.
        spread: float32, (b,): their scores' standard deviation.
        unvoted: The logarithm of no votes.
    """

    rows: Places
    classes: npt.NDArray[np.integer[Any]]
    scores: Singles
    votes: Singles | None
    left: int
    typical: Singles
    spread: Singles
    unvoted: float


def find_neighbors(rows: FeatureBlocks, found: LabelFilter) -> tuple[NeighborTable, list[Places]]:
    """The neighbors of every example, where features vary most, and near duplicates."""
    projected = search_space(rows, found)
    if projected.size == 0 or rows.n < 2:  # features that are all the same have no neighbors
        none = np.empty((rows.n, 0))
        return NeighborTable(none.astype(np.int32), none.astype(np.float32), 0.0), []
    engine: Any = "exact" if rows.n <= EXACT_ROWS else "approximate"
    table = nearest_neighbors(projected, min(NEIGHBORS, rows.n - 1), engine=engine)
    groups = duplicate_groups(table.indices, table.similarities)
    return _beyond_copies(table, groups, projected), groups


def search_space(rows: FeatureBlocks, found: LabelFilter) -> Singles:
    """The directions of the largest variation, evened: (n, at most 128)."""
    width = min(len(found.values), SEARCH_WIDTH)
    projected = np.empty((rows.n, width), dtype=np.float32)
    if width == 0:
        return projected
    evened = (found.values[0] / found.values[:width]) ** EVENED
    for part, block in rows.blocks():
        # Of length about 1: what is very small or large is no number in float32.
        scaled = found.project(block, width) / (found.scale / found.count) ** 0.5
        scaled *= evened.to(scaled)
        projected[part] = scaled.float().numpy()
    return projected


def _beyond_copies(table: NeighborTable, groups: list[Places], projected: Singles) -> NeighborTable:
    """Gives groups that know hardly anybody else the neighbors of the group as a whole."""
    indices, similarities = np.array(table.indices), np.array(table.similarities)
    k = indices.shape[1]
    lengths = np.linalg.norm(projected, axis=1).clip(1e-12)
    for group in groups:
        strangers = (~np.isin(indices[group], group)).sum(axis=1)
        others = len(projected) - len(group)
        if others == 0 or strangers.min() >= min(others, k // 2):
            continue
        middle = (projected[group] / lengths[group, None]).mean(axis=0)
        cosines = (projected @ middle) / (lengths * max(float(np.linalg.norm(middle)), 1e-12))
        cosines[group] = -np.inf
        near = np.argsort(-cosines, kind="stable")[: min(k, others)]
        indices[group[:, None], np.arange(len(near))] = near
        similarities[group[:, None], np.arange(len(near))] = cosines[near]
    return NeighborTable(indices, similarities, table.seconds, table.recall)


class Gatherer:
    """Gathers evidence about examples, for one set of features and labels.

    Args:
        rows: Features.
        labels: int64, (n,): places of classes; -1 for none.
        classes: C.
        found: The filter; what it holds of labels is changed by :meth:`speak`.
        table: Neighbors; None to do without.
        groups: Near duplicates.
    """

    def __init__(
        self,
        rows: FeatureBlocks,
        labels: Places,
        classes: int,
        found: LabelFilter,
        table: NeighborTable | None,
        groups: list[Places],
    ) -> None:
        self.rows, self.labels, self.classes = rows, labels, classes
        self.filter, self.table = found, table
        self.groups = groups
        self.group = np.arange(rows.n)
        self.weight = np.ones(rows.n)
        for group in self.groups:
            self.group[group] = group[0]
            self.weight[group] = 1.0 / len(group)  # a group has one voice
        grouped = np.zeros(rows.n, dtype=bool)
        for group in self.groups:
            grouped[group] = True
        self.singles = np.flatnonzero(~grouped)
        own = (labels >= 0).astype(np.float32)
        self.signal = Signal(np.maximum(labels, 0)[:, None], own[:, None])
        kept = classes if classes <= ALL_CLASSES else KEPT_CLASSES
        self.kept = kept
        self.size = max(1, min(rows.block_rows, BLOCK_ENTRIES // max(classes, 2 * NEIGHBORS)))

    def speak(self, signal: Signal) -> None:
        """Puts beliefs in the place of the labels, for the filter and for the votes."""
        products = torch.zeros(self.rows.d, self.classes, dtype=torch.float64)
        weights = torch.zeros(self.classes, dtype=torch.float64)
        dense = self.classes <= min(self.rows.d, DENSE_CLASSES)
        for part, block in self.rows.blocks():
            sparse = signal.sparse(part, self.classes)
            weights += torch.from_numpy(np.asarray(sparse.sum(axis=0)).ravel())
            if dense:
                products += block.T @ torch.from_numpy(sparse.toarray()).to(block)
            else:
                products += transposed_product(sparse, block)
        self.filter.signal(products, weights)
        self.signal = signal

    def leverages(self, which: Places, penalties: list[float]) -> Tensor:
        """Of some examples: (b, penalties)."""
        # Written where it stays: many small results between large blocks would keep the heap's
        # memory from going back to the system.
        found: Tensor | None = None
        for start in range(0, len(which), self.size):
            part = self.rows.take(which[start : start + self.size])
            values = self.filter.leverages(part, penalties)
            if found is None:
                found = values.new_empty(len(which), len(penalties))
            found[start : start + len(values)] = values
        return torch.empty(0, len(penalties)) if found is None else found

    def gather(
        self,
        penalty: float,
        leverages: Tensor,
        singles: Places,
        groups: list[Places],
        place: Places,
    ) -> Evidence:
        """Evidence about some examples.

        Args:
            penalty: Of the filter.
            leverages: (b,), in the order of ``place``.
            singles: Examples of no group.
            groups: Whole groups.
            place: int64, (n,): where in the result each of them is to stand.
        """
        count = len(singles) + sum(map(len, groups))
        kept = self.kept
        # Two rounds' evidence is held at once, so each number is no wider than it must be.
        number = np.min_scalar_type(-self.classes)
        every = np.broadcast_to(np.arange(self.classes, dtype=number), (count, self.classes))
        all_classes = kept == self.classes
        classes = every if all_classes else np.empty((count, kept), dtype=number)
        scores = np.empty((count, kept), dtype=np.float32)
        votes = None if self.table is None else np.empty((count, kept), dtype=np.float32)
        typical, spread = np.zeros((2, count), dtype=np.float32)
        rows = np.empty(count, dtype=np.int64)
        weights = self.filter.weights(penalty)
        for which, inside in batches(singles, groups, self.size):
            at = place[which]
            rows[at] = which
            block = self.rows.take(which)
            signal = self.signal.sparse(which, self.classes)
            smoothed = self.filter.smoothed(block, weights)
            alone = self.filter.alone(smoothed, leverages[torch.from_numpy(at)], signal)
            alone += self._missed(signal, slice(0, len(which))).to(alone)
            for part in inside:
                alone[part] = self.filter.without_group(
                    block[part], smoothed[part], signal[part], penalty
                )
                alone[part] += self._missed(signal, part, together=True).to(alone)
            voted = None if self.table is None else self._votes(which, self.table, self.signal)
            if not all_classes:
                chosen = self._likeliest(alone, voted, self.labels[which])
                classes[at] = chosen.numpy()
                typical[at], spread[at] = _left_out(alone, chosen)
                alone = alone.gather(1, chosen)
                voted = None if voted is None else voted.gather(1, chosen)
            scores[at] = alone.float().numpy()
            if votes is not None and voted is not None:
                votes[at] = voted.log().numpy()
        unvoted = math.log(VOTE_SMOOTHING / self.classes / (1 + VOTE_SMOOTHING))
        return Evidence(rows, classes, scores, votes, self.classes - kept, typical, spread, unvoted)

    def _missed(self, signal: Any, part: slice, together: bool = False) -> Tensor:
        """What the shares of the classes lack without some examples: (b, C).

        By that alone the others would tell an example's class: the one that they have less of.
        """
        own = torch.from_numpy(signal[part].toarray())
        labeled = (own.sum(dim=1, keepdim=True) > 0).double()
        if together:
            own, labeled = own.sum(dim=0, keepdim=True), labeled.sum(dim=0, keepdim=True)
        left = (self.filter.count - labeled).clamp_min(1.0)
        return (own - labeled * self.filter.shares) / left

    def votes_by(self, signal: Signal, classes: npt.NDArray[np.integer[Any]]) -> Singles:
        """The shares of the neighbors' votes by a signal, of some classes: (n, m); else 0."""
        found = np.zeros(classes.shape, dtype=np.float32)
        if self.table is None:
            return found
        for start in range(0, len(classes), self.size):
            which = np.arange(start, min(start + self.size, len(classes)))
            voted = self._votes(which, self.table, signal).numpy()
            found[which] = np.take_along_axis(voted, classes[which].astype(np.int64), axis=1)
        return found

    def _votes(self, which: Places, table: NeighborTable, signal: Signal) -> Tensor:
        """The shares of the neighbors' votes, smoothed: (b, C)."""
        near = np.asarray(table.indices[which]).astype(np.int64)
        weight = np.maximum(np.asarray(table.similarities[which]), 0.0) ** SHARPNESS
        # Of their own group none has a voice.
        weight = weight * self.weight[near] * (self.group[near] != self.group[which][:, None])
        shares = torch.from_numpy(signal.shares[near] * weight[:, :, None])
        columns = torch.from_numpy(signal.classes[near].astype(np.int64))
        found = torch.zeros(len(which), self.classes)
        found.scatter_add_(1, columns.flatten(1), shares.float().flatten(1))
        total = found.sum(dim=1, keepdim=True)
        share = found / total.clamp_min(torch.finfo(torch.float32).tiny)
        # Who has no neighbor has the votes of all classes alike.
        share = torch.where(total > 0, share, torch.full_like(share, 1 / self.classes))
        return (share + VOTE_SMOOTHING / self.classes) / (1 + VOTE_SMOOTHING)

    def _likeliest(self, alone: Tensor, voted: Tensor | None, labels: Places) -> Tensor:
        """The classes that each example keeps, its own among them: int64 (b, m), sorted."""
        wanted = alone if voted is None else alone + voted
        wanted = wanted.clone()
        known = torch.from_numpy(labels >= 0).nonzero().flatten()
        wanted[known, torch.from_numpy(labels)[known]] = torch.inf
        # Of the largest, whatever their order: in a quarter of the time of torch.topk.
        found = np.argpartition(wanted.numpy(), self.classes - self.kept, axis=1)
        found = np.sort(found[:, self.classes - self.kept :], axis=1)
        return torch.from_numpy(found)


def _left_out(scores: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the classes that are not chosen: (b,) each."""
    wide = scores.double()
    taken, left = wide.gather(1, chosen), scores.shape[1] - chosen.shape[1]
    mean = (wide.sum(dim=1) - taken.sum(dim=1)) / left
    squares = (wide.square().sum(dim=1) - taken.square().sum(dim=1)) / left
    return mean, (squares - mean.square()).clamp_min(0.0).sqrt()
