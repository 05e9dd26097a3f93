"""The largest reducible loss by its definition: all sets tried; and losses brought up to date."""

from __future__ import annotations

import itertools
import math


def best_set(learner: list[float], teacher: list[float], k: int) -> frozenset[int]:
    sets = itertools.combinations(range(len(learner)), k)
    return frozenset(max(sets, key=lambda kept: math.fsum(learner[i] - teacher[i] for i in kept)))


def up_to_date(
    losses: list[float], ages: list[float], neighbors: list[list[int]], smoothing: float
) -> list[float]:
    """One loss after the other, one neighbor after the other; the age of what is unknown is inf."""
    found = []
    for loss, age, near in zip(losses, ages, neighbors, strict=True):
        fresher = [j for j in near if ages[j] < age]
        if not fresher:
            found.append(loss)
            continue
        freshest = min(ages[j] for j in fresher)
        weight = {j: (1 - smoothing) ** (ages[j] - freshest) for j in set(fresher)}
        total = math.fsum(weight[j] for j in fresher)
        others = math.fsum(weight[j] * losses[j] for j in fresher) / total
        kept = 0.0 if math.isinf(age) else (1 - smoothing) ** age
        found.append(kept * loss + (1 - kept) * others)
    return found
