"""Features of many kinds, for tests of eigenvectors."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

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
