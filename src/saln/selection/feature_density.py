"""Rare examples first: the lowest density of the features among the candidates (PFB)."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from torch import Tensor

from saln.selection.candidates import Candidates, Selection
from saln.selection.contract import Selector
from saln.selection.hyperparameters import Bounds, check_hyperparameters
from saln.selection.sampling import top_k

_BLOCK = 1024  # Rows whose distances to all others are held at once


def log_density(features: Tensor, *, channels: int = 32) -> Tensor:
    """The log of each row's kernel density by the others, up to a constant: float64, (n,).

    Gaussian kernels at the other rows, with Silverman's bandwidth along each channel, of means of
    ``channels`` groups of adjacent features: densities of many dimensions tell nothing.

    Args:
        features: floating, (n, d).
        channels: At least 1; all features where there are fewer.
    """
    groups = features.double().tensor_split(min(channels, features.shape[1]), dim=1)
    rows = torch.stack([group.mean(dim=1) for group in groups], dim=1)
    n, d = rows.shape
    if n == 1:  # no others
        return torch.zeros(1, dtype=torch.float64, device=rows.device)
    width = rows.std(dim=0, correction=0) * (4 / ((d + 2) * n)) ** (1 / (d + 4))
    scaled = rows / width.where(width > 0, 1.0)
    found = []
    for block, own in zip(scaled.split(_BLOCK), torch.arange(n).split(_BLOCK), strict=True):
        # Without products of matrices, whose rounding would tell copies apart.
        distances = torch.cdist(block, scaled, compute_mode="donot_use_mm_for_euclid_dist")
        distances[torch.arange(len(own)), own] = torch.inf
        found.append(torch.logsumexp(-distances.square() / 2, dim=1))
    return torch.cat(found)


class FeatureDensity(Selector):
    """Keeps the candidates where features are sparse, which are the rare ones.

    The importance of PFB (arXiv 2506.23674), ``1 / (f + r)``: ``f`` is an example's density, ``r``
    its own random share of the largest density, so that among the rare chance decides. PFB
    estimates the density of what was kept before, with centers that move as its network's first
    layers change; frozen features do not change, so here it is that of the step's candidates.

    Args:
        channels: To how many the features are reduced by means of neighboring ones, from 1.
        randomness: The largest ``r``, as a share of the largest density, in [0, 1].

    Raises:
        InputError: An argument that is not allowed.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"features"})
    is_joint: ClassVar[bool] = True
    summary: ClassVar[str] = (
        "rare examples: the lowest density of the features (PFB's rule); costs features once"
    )

    def __init__(
        self,
        channels: Annotated[int, Bounds(low=1)] = 32,
        *,
        randomness: Annotated[float, Bounds(low=0, high=1)] = 0.01,
    ) -> None:
        self.channels = channels
        self.randomness = randomness
        check_hyperparameters(self)

    def choose(self, candidates: Candidates, k: int, generator: torch.Generator) -> Selection:
        """Keeps the most important; the scores are the log of the importance."""
        logs = log_density(candidates.need("features"), channels=self.channels).cpu()
        drawn = torch.rand(len(logs), generator=generator, dtype=torch.float64)
        # In logarithms, of the largest density: far from all others it is too small for a float.
        scores = -torch.logaddexp(logs - logs.max(), (self.randomness * drawn).log())
        return Selection(top_k(scores, k), scores=scores)
