"""Kernel densities and the importance of the rare by their definitions: one pair at a time."""

from __future__ import annotations

import itertools
import math


def densities(rows: list[list[float]]) -> list[float]:
    """Of each row by Gaussian kernels at the others, with Silverman's bandwidth; no constants."""
    n, d = len(rows), len(rows[0])
    factor = (4 / ((d + 2) * n)) ** (1 / (d + 4))
    widths = []
    for column in zip(*rows, strict=True):
        mean = math.fsum(column) / n
        spread = math.sqrt(math.fsum((value - mean) ** 2 for value in column) / n)
        widths.append(factor * spread if spread else 1.0)
    found = []
    for i, one in enumerate(rows):
        kernels = []
        for j, other in enumerate(rows):
            if i != j:
                scaled = ((a - b) / h for a, b, h in zip(one, other, widths, strict=True))
                kernels.append(math.exp(-math.fsum(value**2 for value in scaled) / 2))
        found.append(math.fsum(kernels))
    return found


def best_set(density: list[float], k: int) -> frozenset[int]:
    """The set of the largest importance, all sets tried; no randomness."""
    sets = itertools.combinations(range(len(density)), k)
    return frozenset(max(sets, key=lambda kept: sum(1 / density[i] for i in kept)))
