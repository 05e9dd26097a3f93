"""The law of a choice among undoubted labels, by enumeration of all sets."""

from __future__ import annotations

import itertools
from fractions import Fraction


def law(doubted: list[bool], k: int) -> dict[frozenset[int], Fraction]:
    """Of all sets of k those with the fewest doubted ones, each equally likely."""
    sets = [frozenset(kept) for kept in itertools.combinations(range(len(doubted)), k)]
    fewest = min(sum(doubted[place] for place in kept) for kept in sets)
    good = [kept for kept in sets if sum(doubted[place] for place in kept) == fewest]
    return dict.fromkeys(good, Fraction(1, len(good)))
