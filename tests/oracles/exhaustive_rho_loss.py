"""RHO-LOSS by its definition: the set of k whose reducible losses have the largest sum."""

from __future__ import annotations

import itertools
import math


def cross_entropy(logits: list[float], label: int) -> float:
    top = max(logits)
    return top + math.log(math.fsum(math.exp(value - top) for value in logits)) - logits[label]


def best_set(learner: list[float], reference: list[float], k: int) -> frozenset[int]:
    """All sets tried; of equal sums the one with the lowest positions."""
    reducible = [a - b for a, b in zip(learner, reference, strict=True)]
    sets = itertools.combinations(range(len(reducible)), k)
    return frozenset(max(sets, key=lambda kept: math.fsum(reducible[i] for i in kept)))
