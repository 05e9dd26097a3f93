"""Balanced classes by their definition: quotas tried one by one, and the law of the kept set."""

from __future__ import annotations

import itertools

from oracles.exact_curriculum import draws, weight

__all__ = ["best_sets", "law", "quotas", "weight"]


def quotas(counts: list[int], k: int) -> list[tuple[int, ...]]:
    """All numbers a class, k together, of which none could be evened out by moving one."""
    found = []
    for parts in itertools.product(*(range(count + 1) for count in counts)):
        even = all(
            parts[a] <= parts[b] + 1 or parts[b] == counts[b]
            for a in range(len(parts))
            for b in range(len(parts))
        )
        if sum(parts) == k and even:
            found.append(parts)
    return found


def law(weights: list[float], classes: list[int], k: int) -> dict[frozenset[int], float]:
    """Every even quota is as likely; inside of a class draws in proportion to the weights."""
    members = [[i for i, c in enumerate(classes) if c == d] for d in sorted(set(classes))]
    even = quotas([len(own) for own in members], k)
    sets: dict[frozenset[int], float] = {}
    for parts in even:
        laws = [
            draws([weights[i] for i in own], part) for own, part in zip(members, parts, strict=True)
        ]
        for chosen in itertools.product(*(one.items() for one in laws)):
            kept, probability = frozenset(), 1 / len(even)
            for own, (places, chance) in zip(members, chosen, strict=True):
                kept |= {own[place] for place in places}
                probability *= chance
            sets[kept] = sets.get(kept, 0.0) + probability
    return sets


def best_sets(keys: list[float], classes: list[int], k: int, parted: int) -> set[frozenset[int]]:
    """``parted`` of the k by even quotas, the best of each class; then the best of the others."""
    members = [
        sorted((i for i, c in enumerate(classes) if c == d), key=lambda i: -keys[i])
        for d in sorted(set(classes))
    ]
    found = set()
    for parts in quotas([len(own) for own in members], parted):
        kept = {i for own, part in zip(members, parts, strict=True) for i in own[:part]}
        others = sorted(set(range(len(keys))) - kept, key=lambda i: -keys[i])
        found.add(frozenset(kept | set(others[: k - parted])))
    return found
