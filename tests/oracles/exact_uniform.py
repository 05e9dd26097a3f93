"""The law of a uniform choice: every set of k, by enumeration."""

from __future__ import annotations

import itertools
from fractions import Fraction


def law(n: int, k: int) -> dict[frozenset[int], Fraction]:
    sets = [frozenset(kept) for kept in itertools.combinations(range(n), k)]
    return dict.fromkeys(sets, Fraction(1, len(sets)))
