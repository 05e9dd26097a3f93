"""Mean-centered rows of unit length, whose products are the cosines that neighbors have."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from saln.data.arguments import check_finite

# Examples whose neighbors are searched at once, and those they are compared with at once:
# 1,024 x 16,384 float32 products are 64 MiB.
QUERIES = 1024
KEYS = 16_384
# Unit rows are kept in memory up to this size, and made anew for every block above it.
RESIDENT_BYTES = 2**30

Array = npt.NDArray[Any]


class UnitRows:
    """Mean-centered rows of unit length, block by block; rows without length stay zero."""

    def __init__(self, features: Array) -> None:
        self.features = features
        self.n, self.d = features.shape
        total = np.zeros(self.d)
        for start, stop in blocks(self.n, KEYS):
            block = np.asarray(features[start:stop], dtype=np.float64)
            check_finite(block, "features", rows=range(start, stop))
            total += block.sum(axis=0)
        self.mean = total / self.n
        self.resident: Tensor | None = None
        if self.n * self.d * 4 <= RESIDENT_BYTES:
            self.resident = torch.empty(self.n, self.d)
            for start, stop in blocks(self.n, KEYS):
                self.resident[start:stop] = torch.from_numpy(self.exact(slice(start, stop)))

    def exact(self, rows: slice | npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Rows in float64."""
        block = np.asarray(self.features[rows], dtype=np.float64) - self.mean
        length = np.linalg.norm(block, axis=1, keepdims=True)
        # What centring leaves of rows that are all the same is rounding, not a direction.
        floor = 1e-12 * max(float(np.linalg.norm(self.mean)), np.finfo(np.float64).tiny)
        unit: npt.NDArray[np.float64] = np.where(
            length > floor, block / np.maximum(length, floor), 0.0
        )
        return unit

    def take(self, which: Tensor | slice) -> Tensor:
        """Rows in float32."""
        if self.resident is not None:
            return self.resident[which]
        exact = self.exact(which if isinstance(which, slice) else which.numpy())
        return torch.from_numpy(exact.astype(np.float32))


def blocks(n: int, size: int) -> Iterator[tuple[int, int]]:
    """(start, stop) pairs that cover ``range(n)``."""
    for start in range(0, n, size):
        yield start, min(start + size, n)


def nearest_rows(
    rows: UnitRows, which: Tensor, k: int, *, among: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The k rows of the largest float32 products with some rows, int64 (q,), without themselves.

    They are sought among all, or among some, int64 (m,); at most as many as there are others.
    Gives float32 (q, k) products, the largest first, and int64 (q, k), which rows they are
    with.
    """
    own = rows.take(which)
    if among is not None:
        outside = torch.ones(rows.n, dtype=torch.bool)
        outside[among] = False
    best = torch.empty(len(which), 0)
    where = torch.empty(len(which), 0, dtype=torch.int64)
    for low, high in blocks(rows.n, KEYS):
        products = own @ rows.take(slice(low, high)).T
        if among is not None:
            products[:, outside[low:high]] = -torch.inf
        inside = ((which >= low) & (which < high)).nonzero().flatten()
        products[inside, which[inside] - low] = -torch.inf
        # The best of a block join the best before it: at no time is more than a block in memory.
        near = torch.topk(products, min(k, high - low), dim=1)
        best = torch.cat([best, near.values], dim=1)
        where = torch.cat([where, near.indices + low], dim=1)
        best, order = torch.topk(best, min(k, best.shape[1]), dim=1)
        where = where.gather(1, order)
    return best, where
