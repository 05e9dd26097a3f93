"""Selective backprop by its definition: the largest losses, and the law of its draws."""

from __future__ import annotations

import itertools
import math


def best_set(losses: list[float], k: int) -> frozenset[int]:
    """All sets tried; of equal sums the one with the lowest positions."""
    sets = itertools.combinations(range(len(losses)), k)
    return frozenset(max(sets, key=lambda kept: math.fsum(losses[i] for i in kept)))


def percentiles(losses: list[float]) -> list[float]:
    return [sum(other <= loss for other in losses) / len(losses) for loss in losses]


def law(losses: list[float], k: int, beta: float) -> dict[frozenset[int], float]:
    """Draws one after the other in proportion to percentile ** beta: all orders, summed."""
    chance = [share**beta for share in percentiles(losses)]
    sets: dict[frozenset[int], float] = {}
    for order in itertools.permutations(range(len(losses)), k):
        probability, left = 1.0, math.fsum(chance)
        for i in order:
            probability *= chance[i] / left
            left -= chance[i]
        sets[frozenset(order)] = sets.get(frozenset(order), 0.0) + probability
    return sets
