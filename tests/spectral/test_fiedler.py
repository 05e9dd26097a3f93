"""The listing's set, against the dense float64 oracle, and every answer that is defined."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from oracles import dense_fiedler as oracle

from saln.errors import ConvergenceError
from saln.spectral import FiedlerResult, fiedler

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(
    not torch.cuda.is_available(), reason="no CUDA device"))]  # fmt: skip
Array = NDArray[np.float64]


def low_rank(n: int, d: int, rank: int, seed: int, *, signed: bool = False) -> Array:
    generator = np.random.default_rng(seed)
    draw = generator.standard_normal if signed else generator.random
    return np.asarray(draw((n, rank)) @ draw((rank, d)) + 0.3 * draw((n, d)))


def outliers(n: int, d: int, seed: int) -> Array:
    """Like pooled image features: one cloud off the origin, some examples far out."""
    generator = np.random.default_rng(seed)
    away = generator.random((n, 1)) ** 4
    return np.asarray((1 - away) + away * generator.exponential(size=(n, d)) ** 2)


def positions(result: FiedlerResult, k: int) -> frozenset[int]:
    return frozenset(result.ranking()[:k].tolist())


def assert_valid(result: FiedlerResult, features: Array) -> None:
    """What holds of every answer: a ranking, a unit eigenvector, the listing's eigenvalue."""
    n = len(features)
    assert sorted(result.ranking().tolist()) == list(range(n))
    vector = result.vector.cpu().numpy()
    assert np.linalg.norm(vector) == pytest.approx(1.0, abs=1e-12)
    matrix = oracle.laplacian(features)
    scale = max(1.0, np.abs(np.diag(matrix)).max())
    assert np.linalg.norm(matrix @ vector - result.value * vector) <= 1e-11 * scale * n**0.5
    if n > 1:
        assert result.value == pytest.approx(oracle.spectrum(features)[0][1], abs=1e-10 * scale)
    assert 1.0 - 1e-9 <= result.participation_ratio <= n * (1 + 1e-9)


@st.composite
def feature_sets(draw: st.DrawFn) -> tuple[Array, int, str]:
    seed = draw(st.integers(0, 2**32 - 1))
    n = draw(st.integers(1, 70))
    d = draw(st.integers(1, 90))
    rank = draw(st.integers(1, 12))
    kind = draw(st.sampled_from(["nonnegative", "signed", "outliers", "sparse", "integers"]))
    generator = np.random.default_rng(seed)
    if kind == "outliers":
        features = outliers(n, d, seed)
    elif kind == "sparse":
        features = generator.random((n, d)) * (generator.random((n, d)) < 0.2)
    elif kind == "integers":
        features = generator.integers(-2, 3, size=(n, d)).astype(np.float64)
    else:
        features = low_rank(n, d, rank, seed, signed=kind == "signed")
    if draw(st.booleans()):
        features = features * 10.0 ** generator.uniform(-6, 6, size=(n, 1))
    features = features * 10.0 ** draw(st.integers(-90, 90))
    copies = draw(st.integers(0, n // 2))
    if copies:
        features[generator.permutation(n)[:copies]] = features[generator.integers(0, n, copies)]
    zeros = draw(st.sampled_from([0, 0, 0, 1, 2]))
    features[:zeros] = 0.0
    k = draw(st.integers(1, n))
    return features, k, draw(st.sampled_from(["auto", "davidson"]))


@settings(
    max_examples=200, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)
@given(feature_sets())
def test_the_set_is_the_oracles_wherever_the_oracle_is_stable(
    case: tuple[Array, int, str],
) -> None:
    features, k, solver = case
    tensor = torch.from_numpy(features)
    try:
        result = fiedler(tensor, solver=solver)
    except ConvergenceError:
        # Refusing is right only where no solver is left to fall back on.
        assert solver == "davidson"
        result = fiedler(tensor)
    assert_valid(result, features)
    again = fiedler(tensor, solver=solver if result.solver == solver else "auto")
    assert torch.equal(result.vector, again.vector)
    expected = oracle.stable_choice(features, k)
    if expected is None:
        assert not result.determined(k)
    else:
        assert positions(result, k) == expected
