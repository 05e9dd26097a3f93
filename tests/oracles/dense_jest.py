"""JEST by its definition: slow loops in float64, written apart from the library."""

from __future__ import annotations

import itertools
import math

import numpy as np


def one_versus_rest(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Entry by entry, with exact rational tails where a probability is next to 1."""
    n, classes = logits.shape
    losses = np.zeros((n, n))
    for i in range(n):
        z = [float(value) for value in logits[i]]
        top = max(z)
        mass = [math.exp(value - top) for value in z]
        total = math.fsum(mass)
        for j in range(n):
            c = int(labels[j])
            if i == j:
                losses[i, j] = -(z[c] - top - math.log(total))
            elif labels[i] != labels[j]:
                rest = math.fsum(mass[b] for b in range(classes) if b != c)
                losses[i, j] = -math.log(rest / total) if rest > 0 else math.inf
    return losses


def chunk_probabilities(scores: np.ndarray, kept: tuple[int, ...]) -> np.ndarray:
    """The law of the next single draw, given what is kept."""
    n = len(scores)
    logits = np.full(n, -np.inf)
    for j in range(n):
        if j not in kept:
            logits[j] = scores[j, j] + sum(scores[i, j] + scores[j, i] for i in kept)
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


def set_probabilities(scores: np.ndarray, k: int) -> dict[frozenset[int], float]:
    """The law of the kept set when every chunk is one example: all orders, summed."""
    law: dict[frozenset[int], float] = {}
    for order in itertools.permutations(range(len(scores)), k):
        probability = 1.0
        for step, j in enumerate(order):
            probability *= chunk_probabilities(scores, order[:step])[j]
        key = frozenset(order)
        law[key] = law.get(key, 0.0) + probability
    return law


def pair_logits(
    image: np.ndarray, text: np.ndarray, scale: float, bias: float
) -> list[list[float]]:
    n = len(image)
    return [[scale * math.fsum(image[i] * text[j]) + bias for j in range(n)] for i in range(n)]


def sigmoid_matrix(logits: list[list[float]]) -> np.ndarray:
    """``-log sigmoid(z)`` for a pair that belongs together, ``-log sigmoid(-z)`` else."""
    n = len(logits)
    losses = np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            z = logits[i][j] if i == j else -logits[i][j]
            losses[i, j] = math.log1p(math.exp(-z)) if z > 0 else -z + math.log1p(math.exp(z))
    return losses


def softmax_matrix(logits: list[list[float]]) -> np.ndarray:
    """One-versus-rest losses of texts given an image, and of images given a text, averaged."""
    n = len(logits)
    losses = np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            for row, c in ((logits[i], j), ([logits[a][j] for a in range(n)], i)):
                top = max(row)
                mass = [math.exp(value - top) for value in row]
                total = math.fsum(mass)
                part = mass[c] if i == j else math.fsum(mass[:c] + mass[c + 1 :])
                losses[i, j] -= 0.5 * math.log(part / total)
    return losses
