"""Core-set selection by greedy k-center, arXiv 1708.00489 (algorithm 1)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from saln.selection.candidates import Candidates, Selection
from saln.selection.contract import Selector
from saln.selection.draws import around_one, times_power

__all__ = ["KCenter", "k_center_positions"]

# Up to here all distances are computed at once: quicker, and n x n is small.
DENSE_LIMIT = 4096


def k_center_positions(features: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Centres such that no row is far from its nearest: at most twice the best radius.

    The first centre is the row nearest to the mean; each next one is the row farthest
    from the centres so far. Equal distances go to the lower position. Memory is
    proportional to the features above 4,096 rows.

    Args:
        features: floating, (n, d), finite; half precision is computed in float32.
        k: 1 to n.

    Returns:
        int64 (k,) positions in the order of the choice, and (n,) distances to the
        nearest centre, both on the CPU.
    """
    features, power = around_one(features)
    # Without the mean, squared norms are small and distances lose fewer digits.
    features = features - features.mean(dim=0)
    squares = features.square().sum(dim=1)
    to_centre = _squared_distances(features, squares)
    # The lowest of those that are equally near, but for rounding: of two rows, the first.
    near = squares <= squares.min() * (1 + 64 * torch.finfo(features.dtype).eps)
    centres = [int(near.to(torch.int8).argmax())]
    nearest = to_centre(centres[0])
    nearest[centres[0]] = -1.0
    while len(centres) < k:
        centre = int(nearest.argmax())
        centres.append(centre)
        torch.minimum(nearest, to_centre(centre), out=nearest)
        nearest[centre] = -1.0  # below the 0 of its duplicates: never again
    distances = times_power(nearest.clamp_min(0.0).sqrt(), -power)
    return torch.tensor(centres), distances.cpu()


def _squared_distances(features: Tensor, squares: Tensor) -> Callable[[int], Tensor]:
    """The squared distances of all rows to one, as a new tensor."""
    # What rounding leaves of the distance between equal rows.
    rounding = 8 * torch.finfo(features.dtype).eps

    def from_products(products: Tensor, centre: int) -> Tensor:
        total = squares + squares[centre]
        distances = total - 2 * products
        return distances.where(distances > rounding * total, 0.0)

    if len(features) <= DENSE_LIMIT:
        gram = features @ features.T
        return lambda centre: from_products(gram[centre], centre)
    return lambda centre: from_products(features @ features[centre], centre)


@dataclass(frozen=True)
class KCenter(Selector):
    """Keeps centres that leave no candidate far from the nearest (core-set).

    Covers the features, outliers first; labels play no part.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"features"})
    is_joint: ClassVar[bool] = True
    summary: ClassVar[str] = (
        "greedy k-center (core-set): no candidate far from a kept one; costs cached features"
    )

    def choose(self, candidates: Candidates, k: int, generator: torch.Generator) -> Selection:
        """Keeps the greedy centres; nothing is random."""
        positions, distances = k_center_positions(candidates.need("features"), k)
        return Selection(positions, scores=distances)
