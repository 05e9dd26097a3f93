"""The paper's listing in float64: slow, dense, and independent of the library."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics.pairwise import cosine_similarity

Array = NDArray[np.float64]


def laplacian(features: Array) -> Array:
    """``D - S`` of the cosine similarities, as in the paper's listing."""
    features = np.asarray(features, dtype=np.float64)
    # scikit-learn leaves rows with a norm below 10 eps as they are, which is no cosine; the
    # cosine does not change with a row's scale, so every row is brought near 1 first.
    peak = np.abs(features).max(axis=1, keepdims=True)
    similarity = cosine_similarity(features / np.where(peak > 0, peak, 1.0))
    return np.diag(similarity.sum(axis=1)) - similarity


def spectrum(features: Array) -> tuple[Array, Array]:
    """All eigenvalues and eigenvectors (columns) of the Laplacian."""
    features = np.asarray(features, dtype=np.float64)
    return _spectrum(features.tobytes(), features.shape)


@functools.lru_cache(maxsize=1)  # of one example it is asked three times
def _spectrum(content: bytes, shape: tuple[int, ...]) -> tuple[Array, Array]:
    return np.linalg.eigh(laplacian(np.frombuffer(content).reshape(shape)))


def second(features: Array) -> tuple[float, Array]:
    """The second smallest eigenvalue and its eigenvector: the listing's column 1."""
    values, vectors = spectrum(features)
    return float(values[1]), vectors[:, 1]


def chosen(features: Array, k: int) -> frozenset[int]:
    """The k positions that the listing keeps."""
    _, vector = second(features)
    return frozenset(np.argsort(np.abs(vector))[-k:].tolist())


def stable_choice(features: Array, k: int, *, trials: int = 3) -> frozenset[int] | None:
    """The listing's k positions, or None where its rule does not settle them.

    That is where a 1e-9 relative change of the input moves them; where the eigenvalue is
    repeated but for rounding (by symmetry, so that no change of the input parts it); and
    where the k-th and the next magnitude are equal but for rounding.
    """
    features = np.asarray(features, dtype=np.float64)
    if k == len(features):
        return frozenset(range(k))
    values, vectors = spectrum(features)
    if np.diff(values)[:2].min() < 1e-11 * max(1.0, np.abs(values).max()):
        return None
    sizes = np.sort(np.abs(vectors[:, 1]))[::-1]
    if k < len(features) and sizes[k - 1] - sizes[k] < 1e-12:
        return None
    choice = chosen(features, k)
    generator = np.random.default_rng(0)
    for _ in range(trials):
        signs = generator.choice([-1.0, 1.0], size=features.shape)
        if chosen(features * (1.0 + 1e-9 * signs), k) != choice:
            return None
    return choice
