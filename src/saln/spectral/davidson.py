"""The lowest eigenpairs of ``A = diag(a) - S`` beside its known null vector, certified.

Outer loop, float64: a block Davidson method. It starts from the exact
eigenvectors of the low-degree corner of ``A`` (where the vector sits on common
features), takes two steps with the diagonal alone, and then adds, round by round,
corrections of the wanted Ritz pairs.

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
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from saln.spectral.graph import SimilarityGraph

MISS_PROBABILITY = 1e-9
"""The most that the probability of a missed lower eigenvalue may be."""

_PROBES = 3
_CORNER = 10
_BASIS_LIMIT = 28
_EPS = torch.finfo(torch.float64).eps
# Conjugate gradients in float32 gain about this much before rounding stops them.
_INNER_GAIN = 3e-5
# A row that loses all but this share of its length to the basis lay in it.
_LOST = 1e-11
# How far above the wanted values, as a share of the gap, the certificate reaches.
_MARGIN = 0.03
# Steps of the diagonal alone before the first inner loop, whose cubic gain wants a good pair.
_PLAIN_STEPS = 2


class LowestPairs(NamedTuple):
    """The ``w`` lowest eigenpairs on the complement of the kernel, and one more value."""

    values: Tensor  # float64 (b, w + 1), ascending; the last is a Ritz value, from above
    vectors: Tensor  # float64 (b, w, n), orthonormal rows
    residuals: Tensor  # float64 (b, w), norms of ``A v - value v``
    converged: Tensor  # bool (b,): every residual is as small as rounding lets it be
    certified: Tensor  # bool (b,): no eigenvalue was missed, but for ``MISS_PROBABILITY``
    products: int  # How many block products with S were made, float32 ones included

    def single(self, item: int) -> LowestPairs:
        """Those of one batch of several, with b = 1."""
        parts = {name: part for name, part in self._asdict().items() if name != "products"}
        return self._replace(**{name: part[item : item + 1] for name, part in parts.items()})


def lowest_pairs(
    graph: SimilarityGraph,
    wanted: int,
    *,
    start: Tensor | None = None,
    rounds: int = 12,
    inner_steps: int = 60,
) -> LowestPairs:
    """The lowest eigenpairs of the graph's operator beside its kernel.

    Never raises for want of convergence: the pairs say what is known about them. The graph is of b
    batches of n examples, n at least ``wanted + 2``; ``start``, float64 (b, p, n) with p > wanted,
    takes the place of the low-degree corner's. Rounds and their inner steps are the most of each.
    """
    search = _Search(graph, wanted, _corner_start(graph, wanted + 1) if start is None else start)
    search.rayleigh_ritz()
    search.expand_plainly()
    best = torch.full_like(search.scale, torch.inf)
    for _ in range(rounds):
        search.rayleigh_ritz()
        worst = search.residuals.amax(-1)
        # Residuals stop falling at rounding level; only near the tolerance is that an end.
        stalled = (worst > 0.3 * best) & (worst <= 50 * search.tolerance)
        if bool((search.certified & ((worst <= search.tolerance) | stalled)).all()):
            break
        best = torch.minimum(best, worst)
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
        self.scale = graph.diagonal.abs().amax(-1).clamp_min_(1.0)
        self.tolerance = 2e-14 * self.scale
        self.least = 1e-3 * self.scale.unsqueeze(1)
        self.certified = torch.zeros_like(self.scale, dtype=torch.bool)
        self.below = torch.full_like(self.scale, -torch.inf)
        self.products = 1  # the degrees
        self.kernel = graph.kernel.unsqueeze(1)
        self.diagonal = graph.diagonal.unsqueeze(1)
        self.basis = self.images = start[:, :0]
        self.append(start)

    def apply(self, rows: Tensor) -> Tensor:
        self.products += 1
        return self.diagonal * rows - self.graph.similarity(rows)

    def append(self, rows: Tensor) -> None:
        """Add rows to the basis, made orthonormal to it, to the kernel and to each other."""
        against = torch.cat([self.kernel, self.basis], 1)
        columns = against.mT
        size = torch.linalg.vector_norm(rows, dim=-1)
        rows = torch.baddbmm(rows, torch.bmm(rows, columns), against, alpha=-1)
        lost = torch.linalg.vector_norm(rows, dim=-1) <= _LOST * size
        if bool(lost.any()):  # the row lay in the basis; what is left of it is rounding
            fresh = _probes(*rows.shape[1:], rows.device).double()
            rows = torch.where(lost.unsqueeze(2), fresh, rows)
        rows = _orthonormal(rows)
        # Twice is enough: what the first pass left of the basis is rounding.
        rows = torch.baddbmm(rows, torch.bmm(rows, columns), against, alpha=-1)
        if float(rows.square().sum(-1).amin()) < 0.5:
            # Rows that lay in each other, made orthogonal, are rounding, which may be the kernel.
            rows = self._replaced(rows, against)
        rows = _orthonormal(rows)
        room = rows.shape[2] - against.shape[1]
        rows = rows[:, :room] if rows.shape[1] > room else rows
        self.basis = torch.cat([self.basis, rows], 1)
        self.images = torch.cat([self.images, self.apply(rows)], 1)

    def _replaced(self, rows: Tensor, against: Tensor) -> Tensor:
        """The rows with random ones for those that lie in ``against``; beside it, orthonormal."""
        count, n = rows.shape[1:]
        lost = rows.square().sum(-1) < 0.5
        # Not the probes that stood for lost rows before.
        fresh = _probes(2 * count, n, rows.device)[count:].double()
        rows = torch.where(lost.unsqueeze(2), fresh, rows)
        for _ in range(3):
            rows = torch.baddbmm(rows, torch.bmm(rows, against.mT), against, alpha=-1)
            rows = _orthonormal(rows)
        return rows

    def rayleigh_ritz(self) -> None:
        """The best pairs in the basis; a basis grown too long is cut back to its best part."""
        w = self.wanted
        # The operator seen from the basis: a small dense problem.
        values, turns = torch.linalg.eigh(torch.bmm(self.basis, self.images.mT))
        long = self.basis.shape[1] > _BASIS_LIMIT
        keep = turns.mT[:, : w + 4 if long else w + 1]
        vectors, images = torch.bmm(keep, self.basis), torch.bmm(keep, self.images)
        if long:
            self.basis, self.images = vectors, images
            vectors, images = vectors[:, : w + 1], images[:, : w + 1]
        self.values, self.vectors = values[:, : w + 1], vectors
        self.residual_rows = torch.addcmul(images, self.values.unsqueeze(2), vectors, value=-1)
        self.residuals = torch.linalg.vector_norm(self.residual_rows[:, :w], dim=-1)
        top = self.values[:, w - 1 : w]
        room = (self.values[:, w:] - top).clamp_min_(0.0)
        # Where the certificate reaches to, and the preconditioner: the diagonal above that.
        self.shift = top + _MARGIN * room
        self.mass = torch.maximum(self.graph.diagonal - self.shift, room.clamp_min_(self.least))

    def expand_plainly(self) -> None:
        """Add the residuals divided by the diagonal, then theirs: a digit for each product."""
        w = self.wanted
        mass, theta = self.mass.unsqueeze(1), self.values[:, :w].unsqueeze(2)
        rows = self.residual_rows[:, :w]
        for _ in range(_PLAIN_STEPS):
            self.append(rows / mass)
            rows = torch.addcmul(self.images[:, -w:], theta, self.basis[:, -w:], value=-1)

    def expand(self, inner_steps: int) -> None:
        """Add corrections to the basis; the certificate is tried where it is still missing."""
        w, shift = self.wanted, self.shift
        # No more digits are asked of the inner loop than the outer one can use.
        gains = (0.3 * self.tolerance.unsqueeze(1) / self.residuals.clamp_min(1e-300)).clamp_(
            _INNER_GAIN, 0.1
        )
        sides, shifts = -self.residual_rows[:, :w], self.values[:, :w]
        probes = 0 if bool(self.certified.all()) else _PROBES
        if probes:
            shifts = torch.cat([shifts, shift.expand(-1, probes)], 1)
            gains = torch.cat(
                [gains, gains.new_full((len(gains), probes), _probe_gain(self.kernel.shape[2]))], 1
            )
        inner = _Inner(self.graph, self.mass, shifts, sides, self.vectors[:, :w], gains, probes)
        inner.run(inner_steps)
        self.products += inner.steps
        rows = inner.directions(w).double()
        if probes:
            # The pair above the wanted ones is only followed: its value gives the gap.
            rows = torch.cat([rows, inner.inverse_iterate()], 1)
        self.append(rows)
        if probes:
            found = inner.solved[:, w:].all(1).squeeze(1)
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
        root = mass.sqrt().unsqueeze(1)
        self.scale: Tensor = (1.0 / root).float()
        self.product = graph.scaled_product(self.scale)
        weight = (graph.diagonal.unsqueeze(1) - shifts.unsqueeze(2)) / mass.unsqueeze(1)
        self.weight = weight.float()
        # x = y / root lies beside v where y lies beside v / root.
        beside = torch.cat([graph.kernel.unsqueeze(1), found], 1) / root
        self.beside_columns = torch.linalg.qr(_unit(beside).float().mT).Q
        self.beside = self.beside_columns.mT
        rows = _unit(sides / root).float()
        if probes:
            noise = _probes(probes, rows.shape[-1], rows.device)
            rows = torch.cat([rows, noise.expand(len(rows), -1, -1)], 1)
        self.residual = self._project(rows)
        self.solution = torch.zeros_like(self.residual)
        self.direction = self.residual
        # A number a row keeps the rows' last dimension, of size 1.
        self.square = (self.residual * self.residual).sum(-1, keepdim=True)
        self.target = (self.square * gains.square().float().unsqueeze(2)).clamp_min_(1e-30)
        self.solved = self.square <= self.target
        self.negative = torch.zeros_like(self.solved)
        self.steps = 0

    def run(self, limit: int) -> None:
        """Step until every row is solved, or has met negative curvature."""
        at_rest = self.solved
        while self.steps < limit and not bool(at_rest.all()):
            p = self.direction
            image = self._project(self.weight * p - self.product(p))
            curvature = (p * image).sum(-1, keepdim=True).div_(self.square)
            if float(curvature.amin()) > 1e-6:
                self._advance(image, curvature.reciprocal_(), None)
                at_rest = self.solved
            else:
                # A solved row's curvature is rounding; any other's shows a lower eigenvalue.
                self.negative |= ~self.solved & (curvature <= 1e-6)
                active = ~(self.solved | self.negative)
                self._advance(image, torch.where(active, curvature.reciprocal(), 0.0), active)
                at_rest = self.solved | self.negative
            self.steps += 1

    def _advance(self, image: Tensor, step: Tensor, active: Tensor | None) -> None:
        p = self.direction
        self.solution = torch.addcmul(self.solution, step, p)
        self.residual = torch.addcmul(self.residual, step, image, value=-1)
        square = (self.residual * self.residual).sum(-1, keepdim=True)
        direction = torch.addcmul(self.residual, square / self.square, p)
        if active is not None:
            # A row at rest keeps its direction: that of negative curvature is used.
            square = torch.where(active, square, self.square)
            direction = torch.where(active, direction, p)
        self.square, self.direction = square, direction
        self.solved |= square <= self.target

    def _project(self, rows: Tensor) -> Tensor:
        along = torch.bmm(rows, self.beside_columns)
        return torch.baddbmm(rows, along, self.beside, alpha=-1)

    def inverse_iterate(self) -> Tensor:
        """What inverse iteration makes of a random start beside the pairs found, (b, 1 or 0, n)."""
        # It leans to the lowest pair that is left, so its Ritz value gives the gap.
        return self.scale * self.solution[:, -1:]

    def directions(self, wanted: int) -> Tensor:
        """What to add to the basis: the corrections, and what a probe found below."""
        rows = self.solution
        if bool(self.negative.any()):
            rows = torch.where(self.negative, self.direction, rows)
        if not bool(self.negative[:, wanted:].any()):
            rows = rows[:, :wanted]
        return self.scale * rows


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
    unit: Tensor = rows / norms.clamp_min_(torch.finfo(rows.dtype).tiny)
    return unit  # a zero row stays zero


def _orthonormal(rows: Tensor) -> Tensor:
    return _unit(rows) if rows.shape[1] == 1 else torch.linalg.qr(rows.mT).Q.mT


@lru_cache(maxsize=8)
def _probes(count: int, n: int, device: torch.device) -> Tensor:
    """Gaussian rows (count, n) from a fixed seed: the same input gives the same answer."""
    generator = torch.Generator().manual_seed(0x5A17)
    return _unit(torch.randn(count, n, generator=generator)).to(device)


def _probe_gain(n: int) -> float:
    """The residual that each probe must reach for all to miss with ``MISS_PROBABILITY``."""
    each: float = MISS_PROBABILITY ** (1.0 / _PROBES)
    return each / math.sqrt(2.0 * n / math.pi)
