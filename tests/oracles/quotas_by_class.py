"""What quotas by class keep, one class after the other, from the definition."""

from __future__ import annotations

from collections import Counter


def possible_quotas(classes: list[int], k: int) -> set[tuple[tuple[int, int], ...]]:
    """Every way to part ``k`` as equally among the classes as their sizes allow."""
    sizes, found = Counter(classes), set()

    def part(quotas: dict[int, int], left: int) -> None:
        if not left:
            found.add(tuple(sorted(quotas.items())))
            return
        # One more for any of those that have least, of those that have another to give.
        able = [name for name in sizes if quotas[name] < sizes[name]]
        least = min(quotas[name] for name in able)
        for name in able:
            if quotas[name] == least:
                part(quotas | {name: quotas[name] + 1}, left - 1)

    part(dict.fromkeys(sizes, 0), k)
    return found
