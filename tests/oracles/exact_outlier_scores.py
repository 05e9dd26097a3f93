"""Outlier scores by their definition, over all pairs of examples."""

from __future__ import annotations

import math
import statistics


def outlier_scores(rows: list[list[float]], k: int) -> list[float]:
    n, width = len(rows), len(rows[0])
    middle = [sum(row[j] for row in rows) / n for j in range(width)]
    units = []
    for row in rows:
        centered = [value - mean for value, mean in zip(row, middle, strict=True)]
        length = math.sqrt(sum(value * value for value in centered))
        units.append([value / length for value in centered])
    means = []
    for i in range(n):
        cosines = [
            sum(a * b for a, b in zip(units[i], units[j], strict=True)) for j in range(n) if j != i
        ]
        means.append(sum(sorted(cosines)[-k:]) / k)
    usual = statistics.median(means)
    if usual <= 0:
        return [0.0] * n
    return [min(1.0, max(0.0, 1.0 - mean / usual)) for mean in means]
