"""InfoBatch with exactly k kept: chances, the law of the kept set, and its expectation."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction


def chances(is_easy: list[bool], k: int, prune_ratio: Fraction) -> list[Fraction]:
    """Scales the paper's 1 and 1 - r by one factor, and cuts at 1, so that they add up to k.

    The factor is found by bisection over what the cut sum is, not by a formula.
    """
    paper = [1 - prune_ratio if easy else Fraction(1) for easy in is_easy]

    def cut(factor: Fraction) -> list[Fraction]:
        return [min(Fraction(1), factor * chance) for chance in paper]

    low, high = Fraction(0), Fraction(len(is_easy)) / (1 - prune_ratio)
    for _ in range(200):
        middle = (low + high) / 2
        if sum(cut(middle)) < k:
            low = middle
        else:
            high = middle
    return cut(high)


def law(is_easy: list[bool], k: int, chance: list[Fraction]) -> dict[frozenset[int], float]:
    """As many hard ones as expected, rounded at random; all sets of each kind alike."""
    hard = [i for i, easy in enumerate(is_easy) if not easy]
    easy = [i for i, easy in enumerate(is_easy) if easy]
    expected = float(sum(chance[i] for i in hard))
    expected = round(expected) if abs(expected - round(expected)) < 1e-12 else expected
    counts = {math.floor(expected): 1 - (expected % 1), math.floor(expected) + 1: expected % 1}
    sets: dict[frozenset[int], float] = {}
    for count, probability in counts.items():
        if probability == 0:
            continue
        pairs = [
            frozenset(a) | frozenset(b)
            for a in itertools.combinations(hard, count)
            for b in itertools.combinations(easy, k - count)
        ]
        for kept in pairs:
            sets[kept] = sets.get(kept, 0.0) + probability / len(pairs)
    return sets


def expected_mean(
    values: list[float], weights: list[float], k: int, sets: dict[frozenset[int], float]
) -> float:
    """The expectation of the weighted mean over the kept."""
    return math.fsum(
        probability * math.fsum(weights[i] * values[i] for i in kept) / k
        for kept, probability in sets.items()
    )
