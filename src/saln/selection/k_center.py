"""Core-set selection by greedy k-center, arXiv 1708.00489 (algorithm 1)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from saln.selection.candidates import Candidates, Selection
from saln.selection.contract import Selector
from saln.selection.sampling import around_one, times_power

# Up to here all distances are computed at once: quicker, and n x n is small.
DENSE_LIMIT = 4096


def k_center_positions(features: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Centers such that no row is far from its nearest: at most twice the best radius.

    The first center is the row nearest to the mean; each next one is the row farthest from the
    centers so far. Equal distances go to the lower position. Memory is proportional to the
    finite features, (n, d), above 4,096 rows. Gives int64 (k,) positions in the order of the
    choice, and (n,) distances to the nearest center, both on the CPU.
    """
    features, power = around_one(features)
    # Without the mean, squared norms are small and distances lose fewer digits.
    features = features - features.mean(dim=0)
    squares = features.square().sum(dim=1)
    to_center = _squared_distances(features, squares)
    # The lowest of those that are equally near, but for rounding: of two rows, the first.
    near = squares <= squares.min() * (1 + 64 * torch.finfo(features.dtype).eps)
    centers = [int(near.to(torch.int8).argmax())]
    nearest = to_center(centers[0])
    nearest[centers[0]] = -1.0
    while len(centers) < k:
        center = int(nearest.argmax())
        centers.append(center)
        torch.minimum(nearest, to_center(center), out=nearest)
        nearest[center] = -1.0  # below the 0 of its duplicates: never again
    distances = times_power(nearest.clamp_min(0.0).sqrt(), -power)
    return torch.tensor(centers), distances.cpu()


def _squared_distances(features: Tensor, squares: Tensor) -> Callable[[int], Tensor]:
    """The squared distances of all rows to one, as a new tensor."""
    # What rounding leaves of the distance between equal rows.
    rounding = 8 * torch.finfo(features.dtype).eps

    def from_products(products: Tensor, center: int) -> Tensor:
        total = squares + squares[center]
        distances = total - 2 * products
        return distances.where(distances > rounding * total, 0.0)

    if len(features) <= DENSE_LIMIT:
        gram = features @ features.T
        return lambda center: from_products(gram[center], center)
    return lambda center: from_products(features @ features[center], center)


@dataclass(frozen=True)
class KCenter(Selector):
    """Keeps centers that leave no candidate far from the nearest (core-set).

    Covers the features, outliers first; labels play no part.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"features"})
    is_joint: ClassVar[bool] = True
    summary: ClassVar[str] = (
        "greedy k-center (core-set): no candidate far from a kept one; costs cached features"
    )

    def choose(self, candidates: Candidates, k: int, generator: torch.Generator) -> Selection:
        """Keeps the greedy centers; nothing is random."""
        positions, distances = k_center_positions(candidates.need("features"), k)
        return Selection(positions, scores=distances)
