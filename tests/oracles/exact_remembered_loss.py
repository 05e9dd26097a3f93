"""The highest losses of a random pool by their definition: every pool, every set."""

from __future__ import annotations

import itertools
import math


def _highest(losses: list[float], members: tuple[int, ...], k: int) -> dict[frozenset[int], float]:
    """Sets in which nobody has less than someone of the pool that is left out; all alike."""
    fair = [
        frozenset(kept)
        for kept in itertools.combinations(members, k)
        if all(losses[i] >= losses[j] for i in kept for j in members if j not in kept)
    ]
    return {kept: 1 / len(fair) for kept in fair}


def _drawn(
    losses: list[float], members: tuple[int, ...], k: int, beta: float
) -> dict[frozenset[int], float]:
    """One after the other in proportion to loss ** beta: all orders, summed."""
    sets: dict[frozenset[int], float] = {}
    for order in itertools.permutations(members, k):
        probability, left = 1.0, math.fsum(losses[i] ** beta for i in members)
        for i in order:
            probability *= losses[i] ** beta / left
            left -= losses[i] ** beta
        sets[frozenset(order)] = sets.get(frozenset(order), 0.0) + probability
    return sets


def law(
    losses: list[float], k: int, size: int, beta: float | None = None
) -> dict[frozenset[int], float]:
    """Every pool of so many is equally likely."""
    pools = list(itertools.combinations(range(len(losses)), size))
    sets: dict[frozenset[int], float] = {}
    for members in pools:
        inside = _highest(losses, members, k) if beta is None else _drawn(losses, members, k, beta)
        for kept, probability in inside.items():
            sets[kept] = sets.get(kept, 0.0) + probability / len(pools)
    return sets
