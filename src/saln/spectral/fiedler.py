"""The vector of the second smallest Laplacian eigenvalue, from the features alone.

The paper's listing (section 3.6, algorithm 1) forms the similarity matrix, its
Laplacian and all n eigenvectors, and uses one. Here that one is found in memory
proportional to the features, and is known to be the right one:

    features -> graph, an operator -> Davidson, certified ------------------> result
                                   -> dense: small n, repeated, in doubt ->
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from saln.errors import ConvergenceError, InputError
from saln.spectral.davidson import LowestPairs, lowest_pairs
from saln.spectral.dense import dense_pairs
from saln.spectral.graph import (
    DENSE_LIMIT,
    FactorGraph,
    Normalization,
    SimilarityGraph,
    similarity_graph,
)

Solver = Literal["auto", "dense", "davidson"]

# Below this LAPACK's subset solver is faster than the iteration, by measurement
# (benchmarks/fiedler.py; they meet between 240 and 330 examples).
_DENSE_BELOW = 256
# Eigenvalues nearer than this share of the largest degree count as one.
_REPEATED = 1e-10
# Above the dense limit an eigenvalue repeated more often than this is refused.
_MOST_EQUALS = 8
_EPS = torch.finfo(torch.float64).eps


@dataclass(frozen=True, eq=False)
class FiedlerResult:
    """The eigenpair of the second smallest eigenvalue, and how far to trust it.

    From (n, d) features the numbers are Python's and ``vector`` is (n,). From
    (b, n, d) features ``vector`` is (b, n), every number is a tensor (b,), every text
    a tuple of b, and ``result[i]`` is the result of batch i.

    Attributes:
        value: The second smallest eigenvalue, counted with multiplicity.
        vector: float64 unit vector, on the features' device; its largest entry (the
            first of equals) is positive. Where the eigenvalue is repeated it is the
            projection onto the eigenspace, beside the constant vector, of the example
            that lies most in it, the lowest position among equals.
        residual: ``|L v - value v|``, computed in float64.
        iterations: Products with the similarity matrix; 0 for a dense or closed form.
        solver: ``"davidson"``, ``"dense"`` or ``"closed form"``.
        gap: Distance from ``value`` to the nearest other eigenvalue; 0 where repeated. From
            the iteration it is a Ritz estimate, from above, within a quarter on image
            features; the certificate shows that 3% of it at least is there.
        participation_ratio: ``1 / sum(v ** 4)``: about how many examples the vector
            sits on, from 1 to n. Near 1, the largest entry is one outlier and the
            ranking of the others is that of small tails.
        degenerate: The eigenvalue is numerically repeated, so the listing's own vector
            is one of many, and the choice among equals is by position.
        accuracy: Entries of ``vector`` are right to within this: residual over the gap
            to the rest of the spectrum.
        certificate: Why it is the second smallest and not another: ``"dense"`` (all
            were found), ``"probes"`` (random probes saw no other below; they miss with
            probability under 1e-9) or ``"closed form"``.
        fallback: Why the dense solver took over from the iteration, or None.
    """

    value: Any
    vector: Tensor
    residual: Any
    iterations: Any
    solver: Any
    gap: Any
    participation_ratio: Any
    degenerate: Any
    accuracy: Any
    certificate: Any
    fallback: Any

    def __getitem__(self, item: int) -> FiedlerResult:
        """The result of one batch of several."""
        if self.vector.ndim == 1:
            raise InputError("this result is of one batch; index results of (b, n, d) features")

        def pick(value: Any) -> Any:
            one = value[item]
            return one.item() if isinstance(one, Tensor) and one.ndim == 0 else one

        return FiedlerResult(**{f.name: pick(getattr(self, f.name)) for f in fields(self)})

    def ranking(self) -> Tensor:
        """All positions from the largest ``|v|`` to the smallest, int64, shape as ``vector``.

        Magnitudes that are equal within ``accuracy`` are ordered by position, lower
        first. The paper's choice of k examples is ``ranking()[:k]``.
        """
        magnitude = self.vector.abs()
        size, order = magnitude.sort(dim=-1, descending=True, stable=True)
        # Of two next to each other, the second begins a group where both cannot be equal.
        tie = torch.as_tensor(self.accuracy, dtype=size.dtype, device=size.device)
        new = size[..., :-1] - size[..., 1:] > 2 * tie[..., None]
        if bool(new.all()):
            return order
        group = torch.nn.functional.pad(new.long().cumsum(-1), (1, 0))
        # Sorting the positions, then the groups, keeps positions in order in each group.
        by_position = order.argsort(dim=-1)
        rank_group = group.gather(-1, by_position)
        return rank_group.argsort(dim=-1, stable=True)

    def determined(self, k: int, *, relative_change: float = 1e-9) -> Any:
        """Whether the choice of k stands under a small relative change of the features.

        A bound, not a trial: True is a guarantee to first order, False may be caution.
        Features change in each entry by at most the share ``relative_change``, so the
        Laplacian by at most ``4 n relative_change``, and the vector by that over the gap
        (Davis and Kahan).

        Args:
            k: How many are chosen, 1 to n.
            relative_change: The largest relative change of an entry.

        Returns:
            A bool, or a bool tensor (b,) for several batches. False where the
            eigenvalue is repeated or the k-th and next magnitudes are too close.

        Raises:
            InputError: k is outside 1..n.
        """
        n = self.vector.shape[-1]
        if not 1 <= k <= n:
            raise InputError(f"k={k} with {n} examples; allowed is 1 to {n}")
        size = self.vector.abs().sort(dim=-1, descending=True).values
        margin = size[..., k - 1] - size[..., k] if k < n else torch.full_like(size[..., 0], 2.0)
        gap = torch.as_tensor(self.gap, dtype=size.dtype, device=size.device)
        tie = torch.as_tensor(self.accuracy, dtype=size.dtype, device=size.device)
        change = 4 * n * relative_change
        moved = torch.where(gap > 4 * change, 4 * change / gap.clamp_min(1e-300), 1.0)
        stands = (margin > 2 * (tie + moved)) if k < n else torch.ones_like(margin).bool()
        return bool(stands) if stands.ndim == 0 else stands


def fiedler(
    features: Tensor,
    *,
    centered: bool = False,
    nonnegative: bool = False,
    neighbors: int | None = None,
    normalization: Normalization | None = None,
    solver: Solver = "auto",
) -> FiedlerResult:
    """The eigenpair that the paper's listing chooses by, without its n x n matrices.

    ``L = D - S`` with ``S`` the cosine similarities, and of ``L`` the eigenvector of
    the second smallest eigenvalue (paper, sections 3.5 and 3.6, algorithm 1), as
    float64 arithmetic on the given features defines it. With negative similarities
    that is not the Fiedler vector, and 0 may lie anywhere in the spectrum; the
    answer is still the listing's. Deterministic: no global random state is read or
    changed.

    Args:
        features: Floating (n, d), or (b, n, d) for b batches solved together.
        centered: Beyond the paper: subtract the mean row first.
        nonnegative: Beyond the paper: cut similarities at 0.
        neighbors: Beyond the paper: keep this many nearest neighbors of each example.
        normalization: Beyond the paper: ``"symmetric"`` or ``"random-walk"``.
        solver: ``"auto"``: dense for small n, else Davidson with dense as the fallback
            up to n = 4,096. ``"dense"`` and ``"davidson"`` insist on one; a Davidson
            run that ends without a certified answer then raises.

    Returns:
        The eigenpair with its residual, gap, certificate and participation ratio. For
        n = 1 the vector is [1.] and the value 0.

    Raises:
        InputError: Features or options are not allowed; see ``similarity_graph``.
        ConvergenceError: No certified answer was found, above n = 4,096 or with
            ``solver="davidson"``.
    """
    if solver not in ("auto", "dense", "davidson"):
        raise InputError(f"solver={solver!r}; allowed are 'auto', 'dense' and 'davidson'")
    with torch.inference_mode():
        graph = similarity_graph(
            features,
            centered=centered,
            nonnegative=nonnegative,
            neighbors=neighbors,
            normalization=normalization,
        )
        n = graph.kernel.shape[-1]
        if solver == "dense" and n > DENSE_LIMIT:
            raise InputError(
                f"solver='dense' with {n} examples; allowed is up to {DENSE_LIMIT}; use 'auto'"
            )
        answers = _solve(graph, solver)
        if normalization == "random-walk":
            answers = list(map(_random_walk, _singles(graph), answers))
    # Copied here, the vectors are tensors like any other, not inference mode's.
    if features.ndim == 2:
        return replace(answers[0], vector=answers[0].vector.clone())
    return _stacked(answers)


class _Pair(NamedTuple):
    """An eigenpair, and how far apart its eigenspace is from the rest of the spectrum.

    ``gap`` is the distance to the nearest other eigenvalue, 0 where repeated; ``apart`` to the
    nearest that is not numerically equal. ``residual`` is None where it is not known yet.
    """

    value: float
    vector: Tensor
    gap: float
    apart: float
    degenerate: bool
    residual: float | None = None


def _singles(graph: SimilarityGraph) -> list[SimilarityGraph]:
    """The graph of each batch; only factors come as several."""
    if len(graph.kernel) == 1 or not isinstance(graph, FactorGraph):
        return [graph]
    return [
        replace(graph, **{n: v[i : i + 1] for n, v in vars(graph).items() if n != "nonnegative"})
        for i in range(len(graph.kernel))
    ]


def _solve(graph: SimilarityGraph, solver: Solver) -> list[FiedlerResult]:
    n, singles = graph.kernel.shape[-1], _singles(graph)
    closed = [_closed_form(single) for single in singles]
    wanted = 1 if graph.nonnegative else 2
    small = n <= wanted + 2
    if small or solver == "dense" or (solver == "auto" and n < _DENSE_BELOW):
        return [done or _dense(single, None) for single, done in zip(singles, closed, strict=True)]
    if None not in closed:
        return [done for done in closed if done is not None]
    pairs = lowest_pairs(graph, wanted)  # of all batches at once
    return [
        done or _from_pairs(single, pairs.single(i), solver)
        for i, (single, done) in enumerate(zip(singles, closed, strict=True))
    ]


def _closed_form(graph: SimilarityGraph) -> FiedlerResult | None:
    if graph.kernel.shape[-1] == 1:
        pair = _Pair(0.0, torch.ones_like(graph.kernel[0]), float("inf"), float("inf"), False)
        return _result(graph, pair, "closed form")
    if graph.nonnegative and isinstance(graph, FactorGraph):
        alone = graph.scaling[0] == 0
        if bool(alone.any()):
            # Without neighbors an example is a component of its own: 0 is repeated, and
            # no other example can lie more in that eigenspace than this one does.
            pair = _Pair(0.0, _nearest(graph, _first(alone)), 0.0, 1.0, True)
            return _result(graph, pair, "closed form")
    return None


def _nearest(graph: SimilarityGraph, at: int) -> Tensor:
    """What is nearest to the unit vector of one example beside the kernel, not of unit length."""
    vector = -graph.kernel[0, at] * graph.kernel[0]
    vector[at] += 1.0
    return vector


def _from_pairs(graph: SimilarityGraph, pairs: LowestPairs, solver: Solver) -> FiedlerResult:
    n = graph.kernel.shape[-1]
    reason = _doubt(graph, pairs)
    if reason is not None and solver == "auto":
        if n <= DENSE_LIMIT:
            return _dense(graph, reason)
        uniform = _uniform(graph)
        if uniform is not None:
            return uniform
        # As many pairs at once as there are equals have a gap above them.
        for wanted in range(2, _MOST_EQUALS + 1):
            pairs = lowest_pairs(graph, wanted, rounds=30, inner_steps=400)
            reason = _doubt(graph, pairs)
            if reason is None:
                break
    if reason is not None:
        raise ConvergenceError(
            f"{reason} for {n} candidates after {pairs.products} products (residual "
            f"{float(pairs.residuals.amax()):.3g}); the dense solver is allowed up to "
            f"{DENSE_LIMIT}; choose from fewer candidates at once, or drop duplicate rows"
        )
    pair = _choose(graph, pairs.values[0], pairs.vectors[0], pairs.residuals[0].tolist())
    return _result(graph, pair, "davidson", products=pairs.products)


def _doubt(graph: SimilarityGraph, pairs: LowestPairs) -> str | None:
    """Why the second smallest eigenvalue is not among the pairs for certain; None where it is."""
    if not bool(pairs.converged):
        return "the iteration did not converge"
    values = pairs.values[0]
    tolerance = _tolerance(graph)
    answer, cluster, _ = _second(values, tolerance, graph.nonnegative)
    if answer is not None and cluster[-1] == len(values) - 1:
        return "the eigenvalue is repeated"
    if not bool(pairs.certified):
        # The value above was last seen in float32.
        if float(values[-1] - values[-2]) <= 1e4 * tolerance:
            return "the eigenvalue is repeated, or nearly"
        return "the eigenvalue found was not shown to be the lowest"
    return None


def _second(
    values: Tensor, tolerance: float, nonnegative: bool
) -> tuple[int | None, list[int], bool]:
    """Which of the ascending values beside the kernel is second smallest, the kernel's 0 counted.

    Gives its index (None: the kernel itself), the indices numerically equal to it, and whether
    the kernel's 0 is among the equals.
    """
    known = [(float(v), i) for i, v in enumerate(values)]
    merged: list[tuple[float, int | None]] = [(0.0, None), *known]
    if not nonnegative:  # else 0 is first; rounding may say otherwise
        merged.sort(key=lambda pair: pair[0])
    target, index = merged[1]
    # Values that differ by less than the tolerance chain into one.
    cluster, low, high = [], target, target
    kernel_in = abs(target) <= tolerance
    for v, i in known:
        if low - tolerance <= v <= high + tolerance:
            cluster.append(i)
            low, high = min(low, v), max(high, v)
    if index is None and not cluster:
        return None, [], True
    return (cluster[0] if index is None else index), cluster, kernel_in


def _choose(
    graph: SimilarityGraph, values: Tensor, vectors: Tensor, residuals: list[float] | None = None
) -> _Pair:
    """The pair from the lowest ones beside the kernel; the last value shows the gap."""
    answer, cluster, kernel_in = _second(values, _tolerance(graph), graph.nonnegative)
    found = [float(v) for v in values]
    if answer is None:
        gap = min((abs(v) for v in found), default=float("inf"))
        return _Pair(0.0, graph.kernel[0].clone(), gap, gap, False)
    outside = [v for i, v in enumerate(found) if i not in cluster]
    apart = min((abs(v - found[i]) for v in outside for i in cluster), default=float("inf"))
    degenerate = len(cluster) > 1 or kernel_in
    gap = 0.0 if degenerate else min(apart, abs(found[answer]))
    if len(cluster) > 1:
        return _Pair(found[answer], _canonical(vectors[cluster]), gap, apart, degenerate)
    residual = None if residuals is None else residuals[answer]
    return _Pair(found[answer], vectors[answer], gap, apart, degenerate, residual)


def _canonical(space: Tensor) -> Tensor:
    """The member of an eigenspace (orthonormal rows) that does not hang on its basis."""
    # Squared lengths of the projections of all examples onto the space.
    share = (space * space).sum(0)
    return space[:, _first(share >= share.max() - 1e-9)] @ space


def _first(marks: Tensor) -> int:
    return int(marks.to(torch.uint8).argmax())


def _dense(graph: SimilarityGraph, fallback: str | None) -> FiedlerResult:
    n = graph.kernel.shape[-1]
    # Three show the gap; all are sought only where the second smallest is repeated among them.
    for count in (min(n - 1, 3), n - 1):
        values, vectors = dense_pairs(graph, count)
        answer, cluster, _ = _second(values, _tolerance(graph), graph.nonnegative)
        if answer is None or cluster[-1] < count - 1:
            break
    return _result(graph, _choose(graph, values, vectors), "dense", fallback=fallback)


def _uniform(graph: SimilarityGraph) -> FiedlerResult | None:
    """The closed form where the operator is a multiple of the identity beside its kernel."""
    kernel = graph.kernel[0]
    generator = torch.Generator().manual_seed(0)
    probe = torch.randn(len(kernel), generator=generator, dtype=torch.float64).to(kernel.device)
    probe = probe - (probe @ kernel) * kernel
    probe = probe / torch.linalg.vector_norm(probe)
    image = _apply(graph, probe)
    value = float(probe @ image)
    if float(torch.linalg.vector_norm(image - value * probe)) > _tolerance(graph):
        return None
    at = _first(kernel.abs() <= kernel.abs().min() + 1e-12)
    pair = _Pair(value, _nearest(graph, at), 0.0, float("inf"), True)
    return _result(graph, pair, "closed form")


def _random_walk(graph: SimilarityGraph, one: FiedlerResult) -> FiedlerResult:
    """The random walk's eigenvector of the same value: ``D^-1/2`` times the symmetric one."""
    root = graph.degrees[0].clamp_min(0.0).sqrt()
    vector = _signed(torch.where(root > 0, one.vector / root.clamp_min(1e-300), one.vector))
    live = root[root > 0]
    return replace(
        one,
        vector=vector,
        participation_ratio=float(1.0 / (vector**4).sum()),
        accuracy=one.accuracy * float(live.max() / live.min()) if len(live) else one.accuracy,
    )


def _apply(graph: SimilarityGraph, vector: Tensor) -> Tensor:
    """The operator's product with one vector."""
    return graph.diagonal[0] * vector - graph.similarity(vector[None, None])[0, 0]


def _result(
    graph: SimilarityGraph,
    pair: _Pair,
    solver: str,
    *,
    products: int = 0,
    fallback: str | None = None,
) -> FiedlerResult:
    """Everything a result says, from the pair alone."""
    vector, residual = _signed(pair.vector), pair.residual
    if residual is None:
        image = _apply(graph, vector)
        residual = float(torch.linalg.vector_norm(image - pair.value * vector))
    # No residual is smaller than its own rounding.
    rounding = 4 * _EPS * float(graph.diagonal.abs().amax())
    # Twice, because the gap may be a Ritz value from above.
    error = 2 * max(residual, rounding) / pair.apart if pair.apart > 0 else 1.0
    return FiedlerResult(
        value=pair.value,
        vector=vector,
        residual=residual,
        iterations=products,
        solver=solver,
        gap=pair.gap,
        participation_ratio=float(1.0 / (vector**4).sum()),
        degenerate=pair.degenerate,
        accuracy=min(1.0, 16 * _EPS + error),
        certificate={"davidson": "probes"}.get(solver, solver),
        fallback=fallback,
    )


def _signed(vector: Tensor) -> Tensor:
    vector = vector / torch.linalg.vector_norm(vector)
    # The sign of an eigenvector is free: the first of the largest entries is made positive.
    size = vector.abs()
    return -vector if float(vector[_first(size >= size.max() - 1e-12)]) < 0 else vector


def _tolerance(graph: SimilarityGraph) -> float:
    return _REPEATED * max(1.0, float(graph.diagonal.abs().amax()))


def _stacked(answers: list[FiedlerResult]) -> FiedlerResult:
    device = answers[0].vector.device

    def column(name: str) -> Any:
        values = [getattr(one, name) for one in answers]
        if name == "vector":
            return torch.stack(values)
        if name in ("solver", "certificate", "fallback"):
            return tuple(values)
        numbers = {"iterations": torch.int64, "degenerate": torch.bool}
        return torch.tensor(values, dtype=numbers.get(name, torch.float64), device=device)

    return FiedlerResult(**{f.name: column(f.name) for f in fields(answers[0])})
