"""The cosine similarity graph of a candidate batch, as an operator.

``S = Y Y'`` with ``Y`` the feature rows divided by their norms, ``D`` the row
sums of ``S``, ``L = D - S`` (paper, section 3.5, steps 2 to 4). The paper's
graph is kept as its factor: ``d = Y (Y' 1)`` and ``L v = d v - Y (Y' v)``, so
memory is that of the features. Vectors are rows, shape (b, p, n), because a
few long rows times a tall matrix is the layout that BLAS reads once.

Options beyond the paper change what is multiplied: similarities cut at 0 are
a matrix up to ``DENSE_LIMIT`` examples and are recomputed in tiles above it;
k nearest neighbors are a sparse matrix; normalization rescales.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from saln.errors import InputError

Normalization = Literal["symmetric", "random-walk"]

DENSE_LIMIT = 4096
"""Above this many examples no n x n matrix is formed."""

_TILE = 1024
_PANELS = 8
# Row norms outside this range could overflow or vanish when multiplied in float32.
_SAFE_NORMS = (1e-12, 1e12)


@dataclass(frozen=True, eq=False, kw_only=True)
class SimilarityGraph(abc.ABC):
    """What the solvers need of a graph: ``A = diag(diagonal) - S`` and its known null vector.

    Attributes:
        diagonal: float64 (b, n): the degrees; ones for a normalized Laplacian.
        degrees: float64 (b, n): the row sums of the similarities.
        kernel: float64 (b, n): the unit vector that ``A`` sends to 0, whatever the
            signs: constant, or proportional to the root of the degrees.
        nonnegative: Whether every similarity is known to be at least 0, so that 0 is
            the smallest eigenvalue.
    """

    diagonal: Tensor
    degrees: Tensor
    kernel: Tensor
    nonnegative: bool

    @abc.abstractmethod
    def similarity(self, vectors: Tensor) -> Tensor:
        """``S v`` for each row v of ``vectors`` (b, p, n), in their dtype."""

    def scaled_product(self, scale: Tensor) -> Callable[[Tensor], Tensor]:
        """``v -> scale S (scale v)`` in float32, for ``scale`` (b, 1, n)."""
        return lambda vectors: self.similarity(vectors * scale) * scale

    @abc.abstractmethod
    def corner(self, positions: Tensor) -> Tensor:
        """``S`` between the positions (b, m) of each batch, float64 (b, m, m)."""

    def dense(self) -> Tensor:
        """``S`` itself, float64 (b, n, n), for n up to ``DENSE_LIMIT``."""
        n = self.degrees.shape[-1]
        if n > DENSE_LIMIT:
            raise InputError(
                f"{n} examples would need a dense {n} x {n} matrix; allowed is up to "
                f"{DENSE_LIMIT}; choose from fewer candidates at once"
            )
        everyone = torch.arange(n, device=self.degrees.device)
        return self.corner(everyone.expand(len(self.degrees), n))


@dataclass(frozen=True, eq=False, kw_only=True)
class FactorGraph(SimilarityGraph):
    """``S = diag(scaling) X X' diag(scaling)``, never formed."""

    factor: Tensor  # X, float64 (b, n, d)
    factor_low: Tensor  # float32 (b, n, d)
    scaling: Tensor  # float64 (b, n)
    scaling_low: Tensor  # float32 (b, n)

    def similarity(self, vectors: Tensor) -> Tensor:
        """``S v`` for each row v: two passes over the features."""
        if vectors.dtype == torch.float64:
            factor, scaling = self.factor, self.scaling.unsqueeze(1)
        else:
            factor, scaling = self.factor_low, self.scaling_low.unsqueeze(1)
        return _gram(factor, vectors * scaling) * scaling

    def scaled_product(self, scale: Tensor) -> Callable[[Tensor], Tensor]:
        """As of any graph, with both scales multiplied once."""
        both = scale * self.scaling_low[:, None]
        return lambda vectors: _gram(self.factor_low, vectors * both) * both

    def corner(self, positions: Tensor) -> Tensor:
        """``S`` between some positions of each batch."""
        batch = torch.arange(len(positions), device=positions.device)[:, None]
        # Few rows: the corner is small whatever n is.
        rows = self.factor[batch, positions] * self.scaling.gather(1, positions)[..., None]
        return rows @ rows.mT


@dataclass(frozen=True, eq=False, kw_only=True)
class MatrixGraph(SimilarityGraph):
    """A graph whose similarities are held: dense (1, n, n), or sparse COO (n, n)."""

    matrix: Tensor

    def similarity(self, vectors: Tensor) -> Tensor:
        """``S v`` for each row v."""
        matrix = self.matrix.to(vectors.dtype)
        if matrix.is_sparse:
            product: Tensor = torch.sparse.mm(matrix, vectors[0].mT)
            return product.mT[None]
        return vectors @ matrix

    def corner(self, positions: Tensor) -> Tensor:
        """``S`` between some positions."""
        at = positions[0]
        if not self.matrix.is_sparse:
            return self.matrix[:, at[:, None], at]
        part: Tensor = self.matrix.index_select(0, at).index_select(1, at).to_dense()
        return part[None]


@dataclass(frozen=True, eq=False, kw_only=True)
class TiledGraph(SimilarityGraph):
    """Similarities cut at 0 for any n: tiles of S are made, used and dropped."""

    rows: Tensor  # float64 (n, d), unit or zero
    scaling: Tensor  # float64 (1, n)

    @cached_property
    def _rows_low(self) -> Tensor:
        return self.rows.float()

    def similarity(self, vectors: Tensor) -> Tensor:
        """``S v`` for each row v: n² d work, n x 1,024 memory."""
        rows = self.rows if vectors.dtype == torch.float64 else self._rows_low
        scaling = self.scaling.to(vectors.dtype)
        scaled = (vectors * scaling)[0]
        out = torch.zeros_like(scaled)
        for start in range(0, len(rows), _TILE):
            tile = (rows[start : start + _TILE] @ rows.mT).clamp_min_(0.0)
            out[:, start : start + _TILE] = scaled @ tile.mT
        return out[None] * scaling

    def corner(self, positions: Tensor) -> Tensor:
        """``S`` between some positions."""
        rows, scaling = self.rows[positions[0]], self.scaling[0, positions[0]]
        return (rows @ rows.mT).clamp_min_(0.0)[None] * scaling[:, None] * scaling


def similarity_graph(
    features: Tensor,
    *,
    centered: bool = False,
    nonnegative: bool = False,
    neighbors: int | None = None,
    normalization: Normalization | None = None,
) -> SimilarityGraph:
    """The cosine similarity graph of feature rows (paper, section 3.5, steps 2 to 4).

    A zero row has similarity 0 to every row, itself included, as in scikit-learn.
    With the defaults this is the paper's graph.

    Args:
        features: Floating (n, d) or (b, n, d), finite, on any device, any strides.
            Sums are made in float64 whatever the dtype.
        centered: Subtract the mean row (of each batch) first.
        nonnegative: Cut similarities at 0.
        neighbors: Keep, for each example, the similarities to this many nearest
            others (ties to the lower position); an edge stays if either end keeps it.
        normalization: ``"symmetric"``: ``I - D^-1/2 S D^-1/2``. ``"random-walk"``:
            ``I - D^-1 S``; its operator is the symmetric one, whose eigenvectors are
            the random walk's times ``D^1/2``. Needs degrees that are not negative.

    Returns:
        The graph as an operator on (b, p, n) rows; b is 1 for (n, d) features.

    Raises:
        InputError: The features' shape, dtype or values are not allowed (the first
            bad row is named), ``neighbors`` is outside 1..n-1, or a degree is
            negative where a normalization needs its root.
    """
    batch = _batched(features)
    b, n, _ = batch.shape
    if neighbors is not None and not 1 <= neighbors <= n - 1:
        raise InputError(
            f"neighbors={neighbors} with {n} examples; allowed is 1 to n - 1; "
            "lower neighbors or leave it out"
        )
    if normalization not in (None, "symmetric", "random-walk"):
        raise InputError(
            f"normalization={normalization!r}; allowed are None, 'symmetric' and 'random-walk'"
        )
    factor, scaling = _unit_rows(batch, centered=centered)
    if b > 1 and (nonnegative or neighbors is not None):
        raise InputError(
            f"{b} batches at once with nonnegative or neighbors; those graphs differ in "
            "pattern and are made for one (n, d) batch at a time; call once a batch"
        )
    no_negative_feature = bool((factor if centered else batch).amin() >= 0)
    if neighbors is not None:
        rows = (factor * scaling[..., None])[0]
        matrix = _nearest(rows, neighbors, cut=nonnegative)
        degrees = torch.sparse.sum(matrix, dim=1).to_dense()[None]
        return _matrix_graph(matrix, degrees, nonnegative or no_negative_feature, normalization)
    if nonnegative and not no_negative_feature:
        rows = (factor * scaling[..., None])[0]
        if n <= DENSE_LIMIT:
            cut = (rows @ rows.mT).clamp_min_(0.0)[None]
            return _matrix_graph(cut, cut.sum(-1), True, normalization)
        ones = torch.ones_like(scaling)
        known: dict[str, Any] = {"rows": rows, "nonnegative": True}
        # The degrees are a product of the graph itself, with nothing rescaled yet.
        bare = TiledGraph(scaling=ones, diagonal=ones, degrees=ones, kernel=ones, **known)
        degrees = bare.similarity(ones[:, None])[:, 0]
        operator, rescale = _normalized(degrees, normalization)
        return TiledGraph(scaling=rescale, **operator, **known)

    degrees = _gram(factor, scaling[:, None])[:, 0] * scaling
    operator, rescale = _normalized(degrees, normalization)
    if normalization is not None:
        scaling = scaling * rescale
    factor_low, scaling_low = _low(batch if not centered else factor, factor, scaling)
    return FactorGraph(
        factor=factor,
        factor_low=factor_low,
        scaling=scaling,
        scaling_low=scaling_low,
        nonnegative=no_negative_feature,
        **operator,
    )


def _batched(features: Tensor) -> Tensor:
    if not isinstance(features, Tensor) or features.ndim not in (2, 3):
        shape = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
        raise InputError(f"features are {shape}; allowed is a tensor (n, d) or (b, n, d)")
    if not features.is_floating_point():
        raise InputError(f"features are {features.dtype}; allowed is a floating dtype; cast them")
    batch = features.detach() if features.ndim == 3 else features.detach()[None]
    if 0 in batch.shape:
        raise InputError(
            f"features are {tuple(features.shape)}; at least one example and one column are "
            "needed; leave empty batches out"
        )
    return batch


def _unit_rows(batch: Tensor, *, centered: bool) -> tuple[Tensor, Tensor]:
    """Float64 rows and the factors that give them unit norm (0 for a zero row)."""
    factor = batch.to(torch.float64).contiguous()
    if centered:
        _check_finite(batch, torch.linalg.vector_norm(factor, dim=-1))
        peak = factor.abs().amax(dim=(-2, -1), keepdim=True)
        factor = factor / torch.where(peak > 0, peak, 1.0)  # a mean of huge rows stays finite
        plain = torch.linalg.vector_norm(factor, dim=-1)
        factor = factor - factor.mean(-2, keepdim=True)
        # What is left of identical rows is rounding, not a direction.
        left = torch.linalg.vector_norm(factor, dim=-1)
        factor = torch.where((left > 1e-14 * plain)[..., None], factor, 0.0)
    norms = torch.linalg.vector_norm(factor, dim=-1)
    low, high = norms.aminmax()
    if not bool(high < 1e150):  # also NaN
        _check_finite(batch, norms)
        low = torch.zeros_like(low)
    if bool(low < 1e-150):
        # Squares of such entries would vanish or overflow: bring each row near 1 first.
        peak = factor.abs().amax(-1, keepdim=True)
        peak = torch.where(peak > 0, peak, 1.0)
        factor = factor / peak.clamp_min(1e-300)
        norms = torch.linalg.vector_norm(factor, dim=-1)
    return factor, torch.where(norms > 0, 1.0 / norms, 0.0)


def _check_finite(batch: Tensor, norms: Tensor) -> None:
    if bool(norms.isfinite().all()):
        return
    bad = (~batch.isfinite()).any(-1).nonzero()
    if len(bad):
        item, row = (int(i) for i in bad[0])
        column = int((~batch[item, row].isfinite()).nonzero()[0, 0])
        where = f"row {row}" if batch.shape[0] == 1 else f"row {row} of batch {item}"
        raise InputError(
            f"features hold {float(batch[item, row, column])} in {where}, column {column}; "
            "allowed are finite numbers; drop or repair that example"
        )


def _low(original: Tensor, factor: Tensor, scaling: Tensor) -> tuple[Tensor, Tensor]:
    """Float32 rows and factors, without a copy where the features are float32 already."""
    if original.dtype in (torch.float32, torch.float16, torch.bfloat16):
        single = original.float().contiguous()
        least, most = scaling.aminmax()
        if float(least) > _SAFE_NORMS[0] and float(most) < _SAFE_NORMS[1]:
            return single, scaling.float()
    rows = factor * scaling[..., None]
    return rows.float(), torch.where(scaling > 0, 1.0, 0.0).float()


def _gram(factor: Tensor, vectors: Tensor) -> Tensor:
    """``X X' v`` for each row v of ``vectors`` (b, p, n), with ``factor`` (b, n, d)."""
    b, n, d = factor.shape
    if b > 1 or n < 8 * _PANELS or factor.device.type != "cpu":
        return torch.bmm(torch.bmm(vectors, factor), factor.mT)
    # torch runs a matrix-vector product on one core, but a batch of them on all: cutting the
    # examples into panels is twice as fast on two cores.
    p = vectors.shape[1]
    height = n // _PANELS
    whole = height * _PANELS
    panels, rest = factor[0, :whole].view(_PANELS, height, d), factor[0, whole:]
    rows = vectors[0, :, :whole].reshape(p, _PANELS, height).transpose(0, 1)
    inner = torch.bmm(rows, panels).sum(0)
    if whole < n:
        inner = inner.addmm(vectors[0, :, whole:], rest)
    outer = torch.bmm(inner.expand(_PANELS, p, d), panels.mT)
    out = outer.transpose(0, 1).reshape(1, p, whole)
    return out if whole == n else torch.cat([out, (inner @ rest.mT)[None]], 2)


def _normalized(
    degrees: Tensor, normalization: Normalization | None
) -> tuple[dict[str, Any], Tensor]:
    """The degrees, diagonal and unit null vector of a graph, by name, and the rescaling of S."""
    ones = torch.ones_like(degrees)
    constant = ones / degrees.shape[-1] ** 0.5
    if normalization is None:
        return {"degrees": degrees, "diagonal": degrees, "kernel": constant}, ones
    floor = -1e-12 * degrees.abs().amax(-1, keepdim=True)
    if bool((degrees < floor).any()):
        position = int((degrees < floor)[0].to(torch.uint8).argmax())
        raise InputError(
            f"example {position} has degree {float(degrees[0, position]):.3g}; {normalization} "
            "normalization allowed is for degrees of at least 0; set nonnegative=True"
        )
    # An isolated example has degree 0: its row of the operator is 0.
    root = degrees.clamp_min(0.0).sqrt()
    live = root > 0
    total = torch.linalg.vector_norm(root, dim=-1, keepdim=True)
    kernel = torch.where(total > 0, root / total, constant)
    operator = {"degrees": degrees, "diagonal": live.to(torch.float64), "kernel": kernel}
    return operator, torch.where(live, 1.0 / root, 0.0)


def _matrix_graph(
    matrix: Tensor, degrees: Tensor, nonnegative: bool, normalization: Normalization | None
) -> MatrixGraph:
    operator, rescale = _normalized(degrees, normalization)
    if normalization is not None:
        if matrix.is_sparse:
            rows, columns = matrix.indices()
            weights = matrix.values() * rescale[0, rows] * rescale[0, columns]
            matrix = _sparse(rows, columns, weights, len(matrix))
        else:
            matrix = matrix * rescale[:, None] * rescale[..., None]
    return MatrixGraph(matrix=matrix, nonnegative=nonnegative, **operator)


def _nearest(rows: Tensor, neighbors: int, *, cut: bool) -> Tensor:
    """The k-nearest-neighbor similarities, symmetric, float64 sparse (n, n), without selves."""
    n = len(rows)
    keys, weights = [], []
    for start in range(0, n, _TILE):
        tile = rows[start : start + _TILE] @ rows.mT
        own = torch.arange(start, start + len(tile), device=rows.device)
        tile[own - start, own] = -torch.inf
        # A stable sort, unlike topk, gives ties to the lower position.
        nearest = tile.sort(dim=1, descending=True, stable=True)
        at = nearest.indices[:, :neighbors]
        # One key an undirected edge, so that an edge kept by both ends counts once.
        lower, upper = torch.minimum(own[:, None], at), torch.maximum(own[:, None], at)
        keys.append((lower * n + upper).flatten())
        weights.append(nearest.values[:, :neighbors].flatten())
    key, weight = torch.cat(keys), torch.cat(weights)
    edges, where = torch.unique(key, return_inverse=True)
    value = torch.full((len(edges),), -torch.inf, dtype=torch.float64, device=rows.device)
    value = value.scatter_reduce(0, where, weight, reduce="amax")
    if cut:
        value = value.clamp_min(0.0)
    lower, upper = edges // n, edges % n
    return _sparse(
        torch.cat([lower, upper]), torch.cat([upper, lower]), torch.cat([value, value]), n
    )


def _sparse(rows: Tensor, columns: Tensor, weights: Tensor, n: int) -> Tensor:
    at = torch.stack([rows, columns])
    return torch.sparse_coo_tensor(at, weights, (n, n), check_invariants=False).coalesce()
