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
_CORNER = 20
_BASIS_LIMIT = 28
_EPS = torch.finfo(torch.float64).eps
# Conjugate gradients in float32 gain about this much before rounding stops them.
_INNER_GAIN = 3e-5
# How far above the wanted values, as a share of the gap, the certificate reaches.
_MARGIN = 0.03
# Float32 rounds: at most so many, and none once residuals are near their rounding.
_LOW_ROUNDS = 1
_LOW_FLOOR = 2e-6


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
        start: float64 (b, p, n) start rows in place of the low-degree corner's; p is at
            least ``wanted + 1``.
        rounds: At most so many outer rounds.
        inner_steps: At most so many inner steps a round.

    Returns:
        The pairs found, with what is known about them; never raises for want of
        convergence.
    """
    search = _Search(graph, wanted, _corner_start(graph, wanted + 1) if start is None else start)
    # Round by round in float32 while the residual is above its rounding, then in float64.
    for _ in range(_LOW_ROUNDS):
        search.rayleigh_ritz()
        if bool((search.residuals.amax(-1) <= _LOW_FLOOR * search.scale).all()):
            break
        search.expand(inner_steps)
    else:
        search.rayleigh_ritz()
    search.sharpen()
    best: Tensor | None = None
    stalled = torch.zeros_like(search.certified)
    for _ in range(rounds):
        search.rayleigh_ritz()
        worst = search.residuals.amax(-1)
        small = worst <= search.tolerance
        if best is not None:
            # Residuals stop falling at rounding level; only below 1e-12 is that an end.
            stalled = (worst > 0.3 * best) & (worst <= 50 * search.tolerance)
        best = worst if best is None else torch.minimum(best, worst)
        done = (small | stalled) & search.certified
        if bool(done.all()):
            break
        search.expand(inner_steps)
    else:
        search.rayleigh_ritz()
        worst = search.residuals.amax(-1)
    return LowestPairs(
        values=search.values[:, : wanted + 1],
        vectors=search.vectors[:, :wanted],
        residuals=search.residuals,
        converged=worst <= 50 * search.tolerance,
        # The values may only have fallen since; a little rounding aside.
        certified=search.certified & (search.values[:, wanted - 1] <= search.below),
        products=search.products,
    )


class _Search:
    """The growing basis of one block Davidson run. Rows are vectors; b batches at once."""

    def __init__(self, graph: SimilarityGraph, wanted: int, start: Tensor) -> None:
        self.graph = graph
        self.wanted = wanted
        self.n = graph.kernel.shape[-1]
        self.scale = graph.diagonal.abs().amax(-1).clamp_min(1.0)
        self.tolerance = 2e-14 * self.scale
        self.certified = torch.zeros_like(self.scale, dtype=torch.bool)
        self.below = torch.full_like(self.scale, -torch.inf)
        self.above: Tensor | None = None
        self.products = 1  # the degrees
        self._begin(start.float())

    def _begin(self, rows: Tensor) -> None:
        self.kernel = self.graph.kernel[:, None].to(rows.dtype)
        self.diagonal = self.graph.diagonal[:, None].to(rows.dtype)
        self.basis = self.images = rows[:, :0]
        self.append(rows)

    def sharpen(self) -> None:
        """Go on in float64 from the wanted vectors; the value above them stays as it is known."""
        self.above = self.values[:, self.wanted :]
        self._begin(self.vectors[:, : self.wanted].double())

    def apply(self, rows: Tensor) -> Tensor:
        self.products += 1
        return self.diagonal * rows - self.graph.similarity(rows)

    def append(self, rows: Tensor) -> None:
        """Add rows to the basis, made orthonormal to it, to the kernel and to each other."""
        against = torch.cat([self.kernel, self.basis], 1)
        rows = _unit(rows)
        for _ in range(2):
            rows = rows - (rows @ against.mT) @ against
            rows = _unit(rows) if rows.shape[1] == 1 else torch.linalg.qr(rows.mT).Q.mT
        room = self.n - against.shape[1]
        rows = rows[:, :room]
        self.basis = torch.cat([self.basis, rows], 1)
        self.images = torch.cat([self.images, self.apply(rows)], 1)

    def rayleigh_ritz(self) -> None:
        """The best pairs in the basis; a basis grown too long is cut back to its best part."""
        w = self.wanted
        small = (self.basis @ self.images.mT).double()
        if small.shape[-1] == 1:
            values, turns = small[..., 0], torch.ones_like(small)
        else:
            values, turns = torch.linalg.eigh((small + small.mT) / 2)
        keep = turns[..., : w + 4 if self.basis.shape[1] > _BASIS_LIMIT else w + 1].mT
        keep = keep.to(self.basis.dtype)
        vectors, images = keep @ self.basis, keep @ self.images
        if self.basis.shape[1] > _BASIS_LIMIT:
            self.basis, self.images = vectors, images
        if self.above is not None:
            # A Ritz value is an upper bound, so the lower of two is the better one.
            nearest = values[:, w : w + 1] if values.shape[1] > w else self.above
            self.above = torch.minimum(self.above, nearest)
            values = torch.cat([values[:, :w], self.above], 1)
        self.values = values[:, : w + 1]
        self.vectors, self.vector_images = vectors[:, : w + 1], images[:, : w + 1]
        theta = self.values[:, : vectors.shape[1], None].to(self.basis.dtype)
        self.residual_rows = self.vector_images - theta * self.vectors
        self.residuals = torch.linalg.vector_norm(self.residual_rows[:, :w], dim=-1).double()

    def expand(self, inner_steps: int) -> None:
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
        probes = 0 if bool(self.certified.all()) else _PROBES
        if probes:
            shifts = torch.cat([shifts, shift.expand(-1, probes)], 1)
            gains = torch.cat([gains, gains.new_full((len(gains), probes), _probe_gain(self.n))], 1)
        inner = _Inner(self.graph, mass, shifts, sides, self.vectors[:, :w], gains, probes)
        inner.run(inner_steps)
        self.products += inner.steps
        rows = inner.directions(w).to(self.basis.dtype)
        if self.above is None:
            # The pair above the wanted ones is only followed: its value gives the gap.
            above = self.residual_rows[:, w : w + 1] / mass[:, None].to(rows.dtype)
            rows = torch.cat([rows, above, inner.inverse_iterate()], 1)
        self.append(rows)
        if probes:
            found = inner.solved[:, w:].all(-1)
            self.below = torch.where(found & ~self.certified, shift[:, 0], self.below)
            self.certified |= found


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
        probes: int,
    ) -> None:
        root = mass.sqrt()[:, None]
        self.scale = (1.0 / root).float()
        self.product = graph.scaled_product(self.scale)
        self.weight = ((graph.diagonal[:, None] - shifts[..., None]) / mass[:, None]).float()
        # x = y / root lies beside v where y lies beside v / root.
        beside = torch.cat([graph.kernel[:, None], found], 1) / root
        self.beside = torch.linalg.qr(_unit(beside).float().mT).Q.mT
        rows = _unit(sides / root).float()
        if probes:
            noise = _probes(probes, rows.shape[-1], rows.device)
            rows = torch.cat([rows, noise.expand(len(rows), -1, -1)], 1)
        self.residual = self._project(rows)
        self.solution = torch.zeros_like(self.residual)
        self.direction = self.residual
        self.square = (self.residual * self.residual).sum(-1)
        self.target = (self.square * (gains * gains).float()).clamp_min(1e-30)
        self.negative = torch.zeros_like(self.square, dtype=torch.bool)
        self.solved = self.square <= self.target
        self.steps = 0

    def run(self, limit: int) -> None:
        """Step until every row is solved, or has met negative curvature."""
        while self.steps < limit and not bool((self.solved | self.negative).all()):
            p = self.direction
            image = self._project(self.weight * p - self.product(p))
            curvature = torch.linalg.vecdot(p, image) / self.square
            if float(curvature.amin()) > 1e-6:
                self._advance(image, curvature.reciprocal(), None)
            else:
                # A solved row's curvature is rounding; any other's shows a lower eigenvalue.
                self.negative |= ~self.solved & (curvature <= 1e-6)
                active = ~(self.solved | self.negative)
                self._advance(image, torch.where(active, curvature.reciprocal(), 0.0), active)
            self.steps += 1

    def _advance(self, image: Tensor, length: Tensor, active: Tensor | None) -> None:
        p, step = self.direction, length[..., None]
        self.solution = torch.addcmul(self.solution, step, p)
        self.residual = torch.addcmul(self.residual, step, image, value=-1)
        square = torch.linalg.vecdot(self.residual, self.residual)
        ratio = square / self.square
        direction = torch.addcmul(self.residual, ratio[..., None], p)
        if active is not None:
            # A row at rest keeps its direction: that of negative curvature is used.
            square = torch.where(active, square, self.square)
            direction = torch.where(active[..., None], direction, p)
        self.square, self.direction = square, direction
        self.solved = self.solved | (square <= self.target)

    def _project(self, rows: Tensor) -> Tensor:
        return torch.baddbmm(rows, rows @ self.beside.mT, self.beside, alpha=-1)

    def inverse_iterate(self) -> Tensor:
        """What inverse iteration makes of a random start beside the pairs found, (b, 1 or 0, n).

        It leans to the lowest pair that is left, so its Ritz value gives the gap.
        """
        iterate: Tensor = self.scale * self.solution[:, -1:]
        return iterate

    def directions(self, wanted: int) -> Tensor:
        """What to add to the basis: the corrections, and what a probe found below."""
        rows = self.solution
        if bool(self.negative.any()):
            rows = torch.where(self.negative[..., None], self.direction, rows)
        if not bool(self.negative[:, wanted:].any()):
            rows = rows[:, :wanted]
        directions: Tensor = self.scale * rows
        return directions


def _corner_start(graph: SimilarityGraph, count: int) -> Tensor:
    """Eigenvectors of ``A``'s corner of lowest diagonal, as rows (b, count, n)."""
    diagonal = graph.diagonal
    b, n = diagonal.shape
    size = min(max(_CORNER, count), n)
    lowest = diagonal.sort(dim=-1, stable=True).indices[:, :size]
    corner = torch.diag_embed(diagonal.gather(1, lowest)) - graph.corner(lowest)
    turns = torch.linalg.eigh(corner).eigenvectors[..., :count].mT
    rows = torch.zeros(b, count, n, dtype=torch.float64, device=diagonal.device)
    return rows.scatter_(2, lowest[:, None].expand(-1, count, -1), turns)


def _unit(rows: Tensor) -> Tensor:
    norms = torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
    return rows / torch.where(norms > 0, norms, 1.0)


@lru_cache(maxsize=8)
def _probes(count: int, n: int, device: torch.device) -> Tensor:
    """Gaussian rows (count, n) from a fixed seed: the same input gives the same answer."""
    generator = torch.Generator().manual_seed(0x5A17)
    return _unit(torch.randn(count, n, generator=generator)).to(device)


def _probe_gain(n: int) -> float:
    """The residual that each probe must reach for all to miss with ``MISS_PROBABILITY``."""
    each: float = MISS_PROBABILITY ** (1.0 / _PROBES)
    return each / math.sqrt(2.0 * n / math.pi)
