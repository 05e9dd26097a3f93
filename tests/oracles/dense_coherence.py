"""Coherence by its definition: slow loops in float64, written apart from the library."""

from __future__ import annotations

import math

import numpy as np
from scipy.optimize import brentq
from scipy.stats import binomtest, norm

LEVEL_OF_ONE_SE = float(norm.cdf(1) - norm.cdf(-1))


def neighbours(features: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest by cosine of mean-centred features; of equals the lower index first."""
    rows = [[float(value) for value in row] for row in features]
    n, d = len(rows), len(rows[0])
    mean = [math.fsum(row[c] for row in rows) / n for c in range(d)]
    centred = [[row[c] - mean[c] for c in range(d)] for row in rows]
    length = [math.sqrt(math.fsum(value * value for value in row)) for row in centred]
    indices, similarities = [], []
    for i in range(n):
        found = []
        for j in range(n):
            if j == i:
                continue
            product = math.fsum(a * b for a, b in zip(centred[i], centred[j], strict=True))
            ok = length[i] > 1e-9 and length[j] > 1e-9
            cosine = product / (length[i] * length[j]) if ok else 0.0
            found.append((-round(cosine, 9), j))
        found.sort()
        indices.append([j for _, j in found[:k]])
        similarities.append([-value for value, _ in found[:k]])
    return np.array(indices), np.array(similarities)


def beliefs(
    indices: np.ndarray,
    similarities: np.ndarray,
    labels: np.ndarray,
    classes: int,
    shared_noise: float = 0.0,
    rounds: int = 3,
    calibrated: bool = True,
) -> tuple[np.ndarray, np.ndarray, float]:
    """Posterior (n, C), transition (C, C) and the share of wrong labels, entry by entry."""
    n = len(labels)
    belief = np.zeros((n, classes))
    for i in range(n):
        belief[i, labels[i]] = 1.0
    transition, wrong = np.zeros((classes, classes)), 0.0
    for _ in range(rounds):
        votes = np.zeros((n, classes))
        for i in range(n):
            weights = [max(float(s), 0.0) for s in similarities[i]]
            total = math.fsum(weights)
            for c in range(classes):
                said = math.fsum(
                    weight * belief[j, c] for weight, j in zip(weights, indices[i], strict=True)
                )
                share = said / total if total > 0 else 0.0
                votes[i, c] = (share + 0.05 / classes) / ((1.0 if total > 0 else 0.0) + 0.05)
        rounded = votes.round(9)
        majority = [int(np.argmax(rounded[i])) for i in range(n)]
        margin = []
        for i in range(n):
            ordered = sorted(rounded[i])
            margin.append(round(ordered[-1] - ordered[-2], 9) if classes > 1 else 0.0)
        right = confident_total = 0
        counts = np.zeros((classes, classes))
        for c in range(classes):
            members = sorted((i for i in range(n) if majority[i] == c), key=lambda i: -margin[i])
            confident = members[: math.ceil(0.1 * len(members))]
            for b in range(classes):
                counts[c, b] = sum(1 for i in confident if labels[i] == b)
            right += sum(1 for i in confident if labels[i] == c)
            confident_total += len(confident)
        wrong = 1 - right / confident_total
        for c in range(classes):
            seen = counts[c].sum() + shared_noise
            for b in range(classes):
                alike = 1 - wrong if b == c else wrong / (classes - 1)
                share = (counts[c, b] + shared_noise * alike) / seen if seen else float(b == c)
                transition[c, b] = (share + 0.02 / classes) / 1.02
        after = np.zeros((n, classes))
        for i in range(n):
            said = [votes[i, c] ** 4 * transition[c, labels[i]] for c in range(classes)]
            after[i] = [value / math.fsum(said) for value in said]
        # The library keeps beliefs in float32 from one round to the next.
        belief = after.astype(np.float32).astype(np.float64)
    if calibrated:
        widest = sorted(range(n), key=lambda i: -margin[i])[: math.ceil(0.1 * n)]
        disagree = sum(1 for i in widest if labels[i] != majority[i])
        wrong = disagree / len(widest)
        upper = (
            binomtest(disagree, len(widest)).proportion_ci(LEVEL_OF_ONE_SE, method="wilson").high
        )
        after = with_doubt(after, labels, upper)
    return after, transition, wrong


def with_doubt(posterior: np.ndarray, labels: np.ndarray, doubt: float) -> np.ndarray:
    """The posteriors with the odds of the labels times what brings the mean doubt down to it."""
    own = np.eye(posterior.shape[1], dtype=bool)[labels]

    def raised(log_odds: float) -> np.ndarray:
        weights = np.where(own, posterior * math.exp(log_odds), posterior)
        return weights / weights.sum(axis=1, keepdims=True)

    def surplus(log_odds: float) -> float:
        return float(1 - raised(log_odds)[own].mean() - doubt)

    return posterior if surplus(0.0) <= 0 else raised(brentq(surplus, 0.0, 200.0, xtol=1e-12))


def keep_probabilities(confidence: np.ndarray, k: int) -> dict[frozenset[int], float]:
    """The law of the kept set: draws without replacement, each in proportion to what is left."""
    law = {frozenset(): 1.0}
    for _ in range(k):
        longer: dict[frozenset[int], float] = {}
        for kept, probability in law.items():
            left = [i for i in range(len(confidence)) if i not in kept]
            total = math.fsum(confidence[i] for i in left)
            for i in left:
                key = kept | {i}
                longer[key] = longer.get(key, 0.0) + probability * confidence[i] / total
        law = longer
    return law
