"""The largest reducible loss by its definition: all sets tried."""

from __future__ import annotations

import itertools
import math


def best_set(learner: list[float], teacher: list[float], k: int) -> frozenset[int]:
    sets = itertools.combinations(range(len(learner)), k)
    return frozenset(max(sets, key=lambda kept: math.fsum(learner[i] - teacher[i] for i in kept)))
