"""Changes to the published criterion that might repair it; tried in `criteria.py`.

Each is a selector on the features of the candidates, by dense eigenvectors. The published
one takes the largest entries of the second eigenvector of ``D - S``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import normalize

from saln.selection import Candidates, Selection, Selector
from saln.selection.sampling import gumbel_top_k

__all__ = ["VARIANTS"]

NEIGHBORS = 10


@dataclass(frozen=True)
class SpectralVariant(Selector):
    """A graph, a Laplacian, some eigenvectors, and a way to choose by them.

    Args:
        centered: Subtract the mean of the features before the cosines.
        neighbors: Keep only each example's nearest, symmetrically; all when None.
        normalized: ``I - D^-1/2 S D^-1/2`` in the place of ``D - S``.
        vectors: How many eigenvectors above the first are used.
        rule: ``largest``: of the leverage (the squared entries' sum); ``leverage``: drawn
            in proportion to it; ``k-means``: the nearest to each of k centers.
    """

    centered: bool = False
    neighbors: int | None = None
    normalized: bool = False
    vectors: int = 1
    rule: str = "largest"

    requires: ClassVar[frozenset[str]] = frozenset({"features"})
    is_joint: ClassVar[bool] = True
    summary: ClassVar[str] = "a changed form of the published criterion"

    def choose(self, candidates: Candidates, k: int, generator: torch.Generator) -> Selection:
        """Chooses by the eigenvectors."""
        embedding = self._embedding(candidates.need("features").double())
        leverage = embedding.square().sum(dim=1)
        if self.rule == "largest":
            positions = torch.argsort(leverage, descending=True, stable=True)[:k]
        elif self.rule == "leverage":
            positions = gumbel_top_k(leverage.clamp_min(1e-300).log(), k, generator)
        else:
            positions = _nearest_to_centers(embedding, k, generator)
        return Selection(positions, scores=leverage)

    def _embedding(self, features: Tensor) -> Tensor:
        if self.centered:
            features = features - features.mean(dim=0)
        unit = normalize(features, dim=1)
        similarity = (unit @ unit.T).clamp_min(0.0) if self.centered else unit @ unit.T
        if self.neighbors is not None:
            others = similarity - 2 * torch.eye(len(unit), dtype=torch.float64)
            near = torch.topk(others, min(self.neighbors, len(unit) - 1), dim=1).indices
            mask = torch.zeros_like(similarity).scatter_(1, near, 1.0)
            similarity = similarity * torch.maximum(mask, mask.T)
        degree = similarity.sum(dim=1).clamp_min(1e-9)
        laplacian = torch.diag(degree) - similarity
        if self.normalized:
            laplacian = laplacian / (degree[:, None] * degree[None, :]).sqrt()
        vectors: Tensor = torch.linalg.eigh(laplacian).eigenvectors
        return vectors[:, 1 : 1 + self.vectors]


def _nearest_to_centers(rows: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """The row nearest to each of ``k`` centers of Lloyd's algorithm; no row twice."""
    centers = rows[torch.randperm(len(rows), generator=generator)[:k]].clone()
    for _ in range(10):
        nearest = torch.cdist(rows, centers).argmin(dim=1)
        counts = torch.bincount(nearest, minlength=k)[:, None]
        sums = torch.zeros_like(centers).index_add_(0, nearest, rows)
        centers = torch.where(counts > 0, sums / counts.clamp_min(1), centers)
    distance = torch.cdist(rows, centers)
    kept = []
    for center in range(k):
        row = int(distance[:, center].argmin())
        kept.append(row)
        distance[row] = torch.inf
    return torch.tensor(kept)


VARIANTS: dict[str, Callable[[], Selector]] = {
    "spectral-normalized": lambda: SpectralVariant(normalized=True),
    "spectral-centered": lambda: SpectralVariant(centered=True, normalized=True),
    "spectral-neighbors": lambda: SpectralVariant(
        centered=True, neighbors=NEIGHBORS, normalized=True
    ),
    "spectral-leverage": lambda: SpectralVariant(
        centered=True, neighbors=NEIGHBORS, normalized=True, vectors=16, rule="leverage"
    ),
    "spectral-k-means": lambda: SpectralVariant(
        centered=True, neighbors=NEIGHBORS, normalized=True, vectors=16, rule="k-means"
    ),
}
