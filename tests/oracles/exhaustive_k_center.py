"""k-center by its definition: greedy with loops, and the best radius of all sets."""

from __future__ import annotations

import itertools

import numpy as np


def distances(features: np.ndarray) -> np.ndarray:
    features = np.asarray(features, dtype=np.float64)
    return np.array([[np.linalg.norm(a - b) for b in features] for a in features])


def greedy(features: np.ndarray, k: int) -> list[int]:
    """From the row nearest to the mean; then always the farthest."""
    features = np.asarray(features, dtype=np.float64)
    apart = distances(features)
    center = features.mean(axis=0)
    away = np.array([np.linalg.norm(row - center) for row in features])
    kept = [int(np.flatnonzero(away <= away.min() * (1 + 1e-12))[0])]
    while len(kept) < k:
        best, best_distance = -1, -1.0
        for i in range(len(features)):
            if i in kept:
                continue
            nearest = min(apart[i][j] for j in kept)
            if nearest > best_distance + 1e-12:
                best, best_distance = i, nearest
        kept.append(best)
    return kept


def radius(features: np.ndarray, kept: list[int]) -> float:
    return float(distances(features)[:, kept].min(axis=1).max())


def best_radius(features: np.ndarray, k: int) -> float:
    apart = distances(features)
    return min(
        float(apart[:, list(kept)].min(axis=1).max())
        for kept in itertools.combinations(range(len(apart)), k)
    )
