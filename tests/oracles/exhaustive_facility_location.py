"""Facility location by its definition: naive greedy, and the best value of all sets."""

from __future__ import annotations

import itertools

import numpy as np


def similarities(features: np.ndarray) -> np.ndarray:
    features = np.asarray(features, dtype=np.float64)
    n = len(features)
    matrix = np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            norms = np.linalg.norm(features[i]) * np.linalg.norm(features[j])
            if norms > 0:
                matrix[i, j] = max(float(features[i] @ features[j]) / norms, 0.0)
    return matrix


def value(matrix: np.ndarray, kept: list[int]) -> float:
    return float(matrix[:, kept].max(axis=1).sum()) if kept else 0.0


def greedy(matrix: np.ndarray, k: int) -> tuple[list[int], list[float]]:
    """Every gain in every step; and by how much each decision was won."""
    kept: list[int] = []
    margins: list[float] = []
    for _ in range(k):
        gains = {
            j: value(matrix, [*kept, j]) - value(matrix, kept)
            for j in range(len(matrix))
            if j not in kept
        }
        ranked = sorted(gains, key=lambda j: (-gains[j], j))
        runner_up = gains[ranked[1]] if len(ranked) > 1 else -np.inf
        margins.append(gains[ranked[0]] - runner_up)
        kept.append(ranked[0])
    return kept, margins


def best_value(matrix: np.ndarray, k: int) -> float:
    return max(value(matrix, list(s)) for s in itertools.combinations(range(len(matrix)), k))
