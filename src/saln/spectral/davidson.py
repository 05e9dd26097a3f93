"""The lowest eigenpairs of ``A = diag(a) - S`` beside its known null vector, certified.

Outer loop, float64: a block Davidson method. It starts from the exact
eigenvectors of the low-degree corner of ``A`` (where the vector sits on common
features), and each round adds corrections of the wanted Ritz pairs.

Inner loop, float32: the corrections solve ``(A - theta) t = -residual`` beside
the pairs found, by conjugate gradients with the diagonal ``a - theta`` as
preconditioner. Where the curvature turns negative there is an eigenvalue
below: that direction is added to the basis instead, so a wrong pair is left.

Certificate: a small residual shows *an* eigenpair. So a few random right-hand
sides are solved for in the same products, with ``A - sigma`` beside the ``w`` Ritz
vectors, sigma a little above the largest Ritz value wanted. After k steps without
negative curvature the residual is ``p(H) b`` with ``p(0) = 1`` and all roots of p
positive, so ``|p| >= 1`` on every eigenvalue of H that is not positive: the part
of b along such an eigenvector is still whole in the residual. A residual of tau
|b| therefore means that b had no more than tau of it, which for a random b and one
fixed direction has probability below ``sqrt(2 n / pi) tau``. With a few independent
probes, each down to a tau that is easy in float32, the product is below
``MISS_PROBABILITY``. By Courant and Fischer, ``A`` then has no more than ``w``
eigenvalues below sigma, and those found are the lowest ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from saln.spectral.graph import SimilarityGraph

__all__ = ["MISS_PROBABILITY", "LowestPairs", "lowest_pairs"]

MISS_PROBABILITY = 1e-9
"""The most that the probability of a missed lower eigenvalue may be."""

_PROBES = 3
_CORNER = 32
_BASIS_LIMIT = 28
_EPS = torch.finfo(torch.float64).eps
# Conjugate gradients in float32 gain about this much before rounding stops them.
_INNER_GAIN = 1e-5
# How far above the wanted values, as a share of the gap, the certificate reaches.
_MARGIN = 0.1


@dataclass(frozen=True, eq=False)
class LowestPairs:
    """The ``w`` lowest eigenpairs on the complement of the kernel, and one more value.

    Attributes:
        values: float64 (b, w + 1), ascending; the last is a Ritz value, from above.
        vectors: float64 (b, w, n), orthonormal rows.
        residuals: float64 (b, w), norms of ``A v - value v``.
        converged: bool (b,): every residual is as small as rounding lets it be.
        certified: bool (b,): no eigenvalue was missed, but for ``MISS_PROBABILITY``.
        products: How many block products with S were made, float32 ones included.
    """

    values: Tensor
    vectors: Tensor
    residuals: Tensor
    converged: Tensor
    certified: Tensor
    products: int


def lowest_pairs(
    graph: SimilarityGraph,
    wanted: int,
    *,
    start: Tensor | None = None,
    rounds: int = 12,
    inner_steps: int = 60,
) -> LowestPairs:
    """The lowest eigenpairs of the graph's operator beside its kernel.

    Args:
        graph: The operator, for b batches of n examples.
        wanted: How many pairs, at least 1; n must be at least ``wanted + 2``.
        start: float64 (b, p, n) start rows in place of the low-degree corner's.
        rounds: At most so many outer rounds.
        inner_steps: At most so many inner steps a round.

    Returns:
        The pairs found, with what is known about them; never raises for want of
        convergence.
    """
    search = _Search(graph, wanted, start)
    certified = torch.zeros_like(search.scale, dtype=torch.bool)
    best: Tensor | None = None
    stalled = torch.zeros_like(certified)
    for _ in range(rounds):
        search.rayleigh_ritz()
        worst = search.residuals.amax(-1)
        small = worst <= search.tolerance
        if best is not None:
            # Residuals stop falling at rounding level; only below 1e-12 is that an end.
            stalled = (worst > 0.3 * best) & (worst <= 50 * search.tolerance)
        best = worst if best is None else torch.minimum(best, worst)
        done = (small | stalled) & certified
        if bool(done.all()):
            break
        certified = search.expand(certified, inner_steps)
    else:
        search.rayleigh_ritz()
        worst = search.residuals.amax(-1)
    return LowestPairs(
        values=search.values[:, : wanted + 1],
        vectors=search.vectors[:, :wanted],
        residuals=search.residuals,
        converged=worst <= 50 * search.tolerance,
        certified=certified,
        products=search.products,
    )


class _Search:
    """The growing basis of one block Davidson run. Rows are vectors; b batches at once."""

    def __init__(self, graph: SimilarityGraph, wanted: int, start: Tensor | None) -> None:
        self.graph = graph
        self.wanted = wanted
        self.kernel = graph.kernel[:, None]
        self.n = graph.kernel.shape[-1]
        self.scale = graph.diagonal.abs().amax(-1).clamp_min(1.0)
        self.tolerance = 2e-14 * self.scale
        self.products = 1  # the degrees
        self.basis = self.kernel[:, :0]
        self.images = self.basis
        self.values = self.residuals = self.vectors = self.vector_images = self.basis
        self.append(_corner_start(graph, wanted + 1) if start is None else start)

    def apply(self, rows: Tensor) -> Tensor:
        self.products += 1
        return self.graph.diagonal[:, None] * rows - self.graph.similarity(rows)

    def append(self, rows: Tensor) -> None:
        """Add rows to the basis, made orthonormal to it, to the kernel and to each other."""
        against = torch.cat([self.kernel, self.basis], 1)
        rows = _unit(rows)
        for _ in range(2):
            rows = rows - (rows @ against.mT) @ against
            rows = torch.linalg.qr(rows.mT).Q.mT
        room = self.n - against.shape[1]
        rows = rows[:, :room]
        self.basis = torch.cat([self.basis, rows], 1)
        self.images = torch.cat([self.images, self.apply(rows)], 1)

    def rayleigh_ritz(self) -> None:
        """The best pairs in the basis; a basis grown too long is cut back to its best part."""
        w = self.wanted
        small = self.basis @ self.images.mT
        values, turns = torch.linalg.eigh((small + small.mT) / 2)
        keep = turns[..., : w + 4 if self.basis.shape[1] > _BASIS_LIMIT else w + 1].mT
        vectors, images = keep @ self.basis, keep @ self.images
        if self.basis.shape[1] > _BASIS_LIMIT:
            self.basis, self.images = vectors, images
        self.values = values[:, : w + 1]
        self.vectors, self.vector_images = vectors[:, : w + 1], images[:, : w + 1]
        self.residual_rows = self.vector_images - self.values[..., None] * self.vectors
        self.residuals = torch.linalg.vector_norm(self.residual_rows[:, :w], dim=-1)

    def expand(self, certified: Tensor, inner_steps: int) -> Tensor:
        """Add corrections to the basis; the certificate is tried where it is still missing."""
        w = self.wanted
        top = self.values[:, w - 1 : w]
        room = (self.values[:, w : w + 1] - top).clamp_min(0.0)
        shift = top + _MARGIN * room
        mass = torch.maximum(
            self.graph.diagonal - shift, torch.maximum(room, 1e-3 * self.scale[:, None])
        )
        # No more digits are asked of the inner loop than the outer one can use.
        gains = (0.1 * self.tolerance[:, None] / self.residuals.clamp_min(1e-300)).clamp(
            _INNER_GAIN, 0.1
        )
        sides, shifts = -self.residual_rows[:, :w], self.values[:, :w]
        probes = 0 if bool(certified.all()) else _PROBES
        if probes:
            noise = _probes(probes, self.n, mass.device) * mass[:, None].sqrt()
            sides = torch.cat([sides, noise], 1)
            shifts = torch.cat([shifts, shift.expand(-1, probes)], 1)
            gains = torch.cat([gains, gains.new_full((len(gains), probes), _probe_gain(self.n))], 1)
        inner = _Inner(self.graph, mass, shifts, sides, self.vectors[:, :w], gains)
        inner.run(inner_steps)
        self.products += inner.steps
        # The pair above the wanted ones is only followed: its value gives the gap.
        above = self.residual_rows[:, w : w + 1] / mass[:, None]
        self.append(torch.cat([inner.directions(w), above], 1))
        if not probes:
            return certified
        return certified | inner.solved[:, w:].all(-1)


class _Inner:
    """Conjugate gradients in float32, in coordinates scaled by the root of ``mass``.

    Each row of ``sides`` is a system of its own: ``(A - shift) x = side`` beside
    the kernel and the vectors ``found``, until its residual has shrunk by its gain.
    """

    def __init__(
        self,
        graph: SimilarityGraph,
        mass: Tensor,
        shifts: Tensor,
        sides: Tensor,
        found: Tensor,
        gains: Tensor,
    ) -> None:
        self.graph = graph
        root = mass.sqrt()[:, None]
        self.scale = (1.0 / root).float()
        self.weight = ((graph.diagonal[:, None] - shifts[..., None]) / mass[:, None]).float()
        beside = torch.cat([graph.kernel[:, None], found], 1) * root
        self.beside = torch.linalg.qr(_unit(beside).mT).Q.mT.float()
        self.residual = self._project(_unit(sides / root).float())
        self.solution = torch.zeros_like(self.residual)
        self.direction = self.residual
        self.square = (self.residual * self.residual).sum(-1)
        self.target = self.square * (gains * gains).float()
        self.negative = torch.zeros_like(self.square, dtype=torch.bool)
        self.solved = self.square <= self.target
        self.steps = 0

    def run(self, limit: int) -> None:
        """Step until every row is solved, or has met negative curvature."""
        while self.steps < limit:
            self._step()
            if bool((self.solved | self.negative).all()):
                return

    def _step(self) -> None:
        p = self.direction
        image = self.weight * p - self.scale * self.graph.similarity(self.scale * p)
        image = self._project(image)
        curvature = (p * image).sum(-1)
        active = ~(self.solved | self.negative)
        self.negative |= active & (curvature <= 1e-6 * (p * p).sum(-1))
        active &= ~self.negative
        length = torch.where(active, self.square / curvature, 0.0)
        self.solution = torch.addcmul(self.solution, length[..., None], p)
        self.residual = torch.addcmul(self.residual, length[..., None], image, value=-1)
        square = torch.where(active, (self.residual * self.residual).sum(-1), self.square)
        ratio = torch.where(active, square / self.square, 1.0)
        # A row that is done keeps its direction: the one of negative curvature is used.
        self.direction = torch.addcmul(
            ratio[..., None] * p, active.float()[..., None], self.residual
        )
        self.square = square
        self.solved |= active & (square <= self.target)
        self.steps += 1

    def _project(self, rows: Tensor) -> Tensor:
        projected: Tensor = rows - (rows @ self.beside.mT) @ self.beside
        return projected

    def directions(self, wanted: int) -> Tensor:
        """What to add to the basis: the corrections, and what a probe found below."""
        rows = torch.where(self.negative[..., None], self.direction, self.solution)
        if not bool(self.negative[:, wanted:].any()):
            rows = rows[:, :wanted]
        directions: Tensor = (self.scale * rows).double()
        return directions


def _corner_start(graph: SimilarityGraph, count: int) -> Tensor:
    """Eigenvectors of ``A``'s corner of lowest diagonal, as rows (b, count, n)."""
    diagonal = graph.diagonal
    b, n = diagonal.shape
    size = min(max(_CORNER, count), n)
    lowest = diagonal.sort(dim=-1, stable=True).indices[:, :size]
    unit = torch.zeros(b, size, n, dtype=torch.float64, device=diagonal.device)
    unit.scatter_(2, lowest[..., None], 1.0)
    corner = graph.similarity(unit).gather(2, lowest[:, None].expand(-1, size, -1))
    corner = torch.diag_embed(diagonal.gather(1, lowest)) - (corner + corner.mT) / 2
    turns: Tensor = torch.linalg.eigh(corner).eigenvectors[..., :count].mT
    return turns @ unit


def _unit(rows: Tensor) -> Tensor:
    norms = torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
    return rows / torch.where(norms > 0, norms, 1.0)


@lru_cache(maxsize=8)
def _probes(count: int, n: int, device: torch.device) -> Tensor:
    """Gaussian rows (count, n) from a fixed seed: the same input gives the same answer."""
    generator = torch.Generator().manual_seed(0x5A17)
    return torch.randn(count, n, generator=generator, dtype=torch.float64).to(device)


def _probe_gain(n: int) -> float:
    """The residual that each probe must reach for all to miss with ``MISS_PROBABILITY``."""
    each: float = MISS_PROBABILITY ** (1.0 / _PROBES)
    return each / math.sqrt(2.0 * n / math.pi)
