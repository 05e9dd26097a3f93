"""Herding by its definition: in turn the row that brings the mean of the kept closest."""

from __future__ import annotations

import numpy as np


def unit_rows(features: np.ndarray) -> np.ndarray:
    features = np.asarray(features, dtype=np.float64)
    return np.array([row / (np.linalg.norm(row) or 1.0) for row in features])


def away(features: np.ndarray, target: np.ndarray, kept: list[int]) -> float:
    """How far the mean of the kept is from the target."""
    return float(np.linalg.norm(target - unit_rows(features)[kept].mean(axis=0)))


def greedy(
    features: np.ndarray, target: np.ndarray, k: int, room: list[int], classes: list[int]
) -> list[int]:
    """``room`` is how many of each class may be kept."""
    kept: list[int] = []
    for _ in range(k):
        allowed = [
            i
            for i in range(len(features))
            if i not in kept and sum(classes[j] == classes[i] for j in kept) < room[classes[i]]
        ]
        far = {i: away(features, target, [*kept, i]) ** 2 for i in allowed}
        # Of equal ones the first: two rows are as far from their own mean, but for rounding.
        kept.append(next(i for i in allowed if far[i] <= min(far.values()) + 1e-12))
    return kept
