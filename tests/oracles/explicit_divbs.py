"""DivBS by its definition: whole gradient vectors, Gram and Schmidt one after the other."""

from __future__ import annotations

import itertools

import numpy as np


def gradients(outputs: np.ndarray, labels: list[int], features: np.ndarray) -> np.ndarray:
    """By the weights of a last layer that is given the features: (n, C * d)."""
    found = []
    for logits, label, row in zip(outputs, labels, features, strict=True):
        p = np.exp(logits) / np.exp(logits).sum()
        p[label] -= 1
        found.append(np.outer(p, row).ravel())
    return np.array(found)


def agreements(vectors: np.ndarray, kept: tuple[int, ...]) -> np.ndarray:
    """With what the kept do not span of the mean; 0 of the kept."""
    left = vectors.mean(axis=0)
    basis: list[np.ndarray] = []
    for i in kept:
        new = vectors[i] - sum((b @ vectors[i]) * b for b in basis)
        basis.append(new / np.linalg.norm(new))
        left = left - (basis[-1] @ left) * basis[-1]
    found = np.abs(vectors @ left)
    found[list(kept)] = 0
    return found


def greedy(vectors: np.ndarray, k: int) -> list[int]:
    kept: tuple[int, ...] = ()
    for _ in range(k):
        kept += (int(agreements(vectors, kept).argmax()),)
    return list(kept)


def law(vectors: np.ndarray, k: int) -> dict[frozenset[int], float]:
    """Drawn in proportion to the agreement: all orders, summed."""
    sets: dict[frozenset[int], float] = {}
    for order in itertools.permutations(range(len(vectors)), k):
        probability = 1.0
        for step, i in enumerate(order):
            found = agreements(vectors, order[:step])
            probability *= found[i] / found.sum()
        sets[frozenset(order)] = sets.get(frozenset(order), 0.0) + probability
    return sets
