"""The smallest losses by their definition: all sets tried."""

from __future__ import annotations

import itertools
import math


def best_set(losses: list[float], k: int) -> frozenset[int]:
    sets = itertools.combinations(range(len(losses)), k)
    return frozenset(min(sets, key=lambda kept: math.fsum(losses[i] for i in kept)))
