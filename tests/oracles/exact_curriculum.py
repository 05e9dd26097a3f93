"""A curriculum by its definition: the law of a draw from easy to hard, all orders summed."""

from __future__ import annotations

import itertools
import math


def weight(difficulty: float, done: float, strength: float, pace: float) -> float:
    t = pace * done if pace * done < 1 else 1.0
    # From exp(-strength * difficulty) at the beginning to exp(strength * difficulty) at the end.
    return math.exp(strength * difficulty) ** t * math.exp(-strength * difficulty) ** (1 - t)


def draws(weights: list[float], k: int) -> dict[frozenset[int], float]:
    """One after the other without replacement, in proportion to the weights."""
    sets: dict[frozenset[int], float] = {}
    for order in itertools.permutations(range(len(weights)), k):
        probability, left = 1.0, math.fsum(weights)
        for i in order:
            probability *= weights[i] / left
            left -= weights[i]
        sets[frozenset(order)] = sets.get(frozenset(order), 0.0) + probability
    return sets
