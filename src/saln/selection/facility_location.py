"""Facility location: the kept examples that stand best for all candidates.

A monotone submodular function, so that greedy reaches at least ``1 - 1/e`` of the best
value (Nemhauser, Wolsey and Fisher, 1978), and gains only ever shrink, so that most need
not be computed again (Minoux's lazy greedy, 1978).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import normalize

from saln.selection.candidates import Candidates, Selection
from saln.selection.contract import Selector
from saln.selection.sampling import around_one

# Up to here all similarities are computed at once: quicker, and n x n is small.
DENSE_LIMIT = 4096
# Gains computed together: few enough to stay lazy, enough to be quick.
BLOCK = 16


def facility_location_positions(features: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Greedily maximizes ``sum over i of max over kept j of max(cosine(i, j), 0)``.

    Lazy and exact: what the naive greedy keeps, in its order. Equal gains go to the lower
    position; a zero row is similar to nothing. Memory is proportional to the finite features,
    (n, d), above 4,096 rows. Gives int64 (k,) positions in the order of the choice, and float64
    (n,) what each row would cover by itself, both on the CPU.
    """
    unit = normalize(around_one(features)[0], dim=1)
    n = len(unit)
    similarities = _similarities(unit)
    covered = unit.new_zeros(n)

    def gains(rows: Tensor) -> Tensor:
        return (similarities(rows) - covered).clamp_min_(0).sum(dim=1, dtype=torch.float64)

    everything = torch.arange(n, device=unit.device)
    alone = torch.cat([gains(rows) for rows in everything.split(1024)])
    bounds = alone.clone()
    positions: list[int] = []
    for _ in range(k):
        # Rows by their old gains, which bound the new ones from above. Once the best new
        # gain is above every bound that is left, it is the best of all.
        order = torch.argsort(bounds, descending=True, stable=True)
        best, best_gain = -1, -1.0
        for rows in order[: n - len(positions)].split(BLOCK):
            if float(bounds[rows[0]]) < best_gain:
                break
            fresh = gains(rows)
            bounds[rows] = fresh
            block_best = float(fresh.max())
            row = int(rows[fresh == block_best].min())
            if block_best > best_gain or (block_best == best_gain and row < best):
                best, best_gain = row, block_best
        positions.append(best)
        bounds[best] = -1.0  # after every other, whose gains are at least 0
        torch.maximum(covered, similarities(everything[best : best + 1])[0], out=covered)
    return torch.tensor(positions), alone.cpu()


def _similarities(unit: Tensor) -> Callable[[Tensor], Tensor]:
    """Rows of the matrix of cosines, cut at 0."""
    if len(unit) <= DENSE_LIMIT:
        matrix = (unit @ unit.T).clamp_min_(0)
        return lambda rows: matrix[rows]
    return lambda rows: (unit[rows] @ unit.T).clamp_min_(0)


@dataclass(frozen=True)
class FacilityLocation(Selector):
    """Keeps the candidates to which all others are most similar, taken together.

    Covers the dense parts of the features first, where k-center takes the edges.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"features"})
    is_joint: ClassVar[bool] = True
    summary: ClassVar[str] = (
        "greedy facility location: the kept examples represent all; costs cached features"
    )

    def choose(self, candidates: Candidates, k: int, generator: torch.Generator) -> Selection:
        """Keeps the greedy set; nothing is random."""
        positions, alone = facility_location_positions(candidates.need("features"), k)
        return Selection(positions, scores=alone)
