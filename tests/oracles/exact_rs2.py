"""The law of a choice of those kept least often, by enumeration."""

from __future__ import annotations

import itertools


def law(times_kept: list[int], k: int) -> dict[frozenset[int], float]:
    """Sets in which nobody was kept more often than someone left out; all alike."""
    n = len(times_kept)
    fair = [
        frozenset(kept)
        for kept in itertools.combinations(range(n), k)
        if all(times_kept[i] <= times_kept[j] for i in kept for j in range(n) if j not in kept)
    ]
    return {kept: 1 / len(fair) for kept in fair}
