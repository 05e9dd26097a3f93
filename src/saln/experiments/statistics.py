"""Means, intervals and verdicts over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

__all__ = ["Difference", "Interval", "mean_interval", "paired_difference"]

CONFIDENCE = 0.95


class Interval(NamedTuple):
    """A mean and its 95% interval; ``ci95`` is None for fewer than two values."""

    mean: float
    ci95: tuple[float, float] | None


class Difference(NamedTuple):
    """A paired difference, its 95% interval and what that shows."""

    difference: float
    ci95: tuple[float, float] | None
    verdict: str


def mean_interval(values: Sequence[float]) -> Interval:
    """Student's t interval of the mean, ``mean ± t(0.975, m - 1) s / sqrt(m)``."""
    m = len(values)
    mean = float(np.mean(values))
    if m < 2:
        return Interval(mean, None)
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, m - 1) * np.std(values, ddof=1) / math.sqrt(m))
    return Interval(mean, (mean - half, mean + half))


def paired_difference(values: Sequence[float], baseline: Sequence[float]) -> Difference:
    """``values - baseline`` seed by seed; larger is better.

    The verdict is 'better' or 'worse' where the 95% interval leaves 0 out, else 'no
    difference shown'. One seed shows nothing.

    Raises:
        ValueError: The two have different lengths.
    """
    pairs = [a - b for a, b in zip(values, baseline, strict=True)]
    mean, ci95 = mean_interval(pairs)
    if ci95 is not None and ci95[0] > 0:
        verdict = "better"
    elif ci95 is not None and ci95[1] < 0:
        verdict = "worse"
    else:
        verdict = "no difference shown"
    return Difference(mean, ci95, verdict)
