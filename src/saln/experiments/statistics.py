"""Means over seeds, paired differences, and what two curves say at an equal cost.

An arm's curve is its test accuracy after each epoch over what it had spent by then (steps
or seconds), with straight lines between. Nothing is said outside the measured epochs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import special  # scipy.stats takes a second to import

from saln.experiments.json_record import JsonRecord

CONFIDENCE = 0.95


class Interval(NamedTuple):
    """A mean and its 95% interval; ``ci95`` is None for fewer than two values."""

    mean: float
    ci95: tuple[float, float] | None


class Curve(NamedTuple):
    """What was reached (``y``) for what cost (``x``, increasing), one point an epoch."""

    x: tuple[float, ...]
    y: tuple[float, ...]


@dataclass(frozen=True)
class Difference(JsonRecord):
    """A paired difference, its 95% interval and what that shows."""

    difference: float
    ci95: tuple[float, float] | None
    verdict: str


@dataclass(frozen=True)
class EqualDifference(JsonRecord):
    """A :class:`Difference` and the cost that it was read at, the mean over seeds."""

    at: float
    difference: float
    ci95: tuple[float, float] | None
    verdict: str


def mean_interval(values: Sequence[float]) -> Interval:
    """Student's t interval of the mean, ``mean ± t(0.975, m - 1) s / sqrt(m)``."""
    m = len(values)
    mean = float(np.mean(values))
    if m < 2:  # one value says nothing of how much they vary
        return Interval(mean, None)
    # Few seeds: the normal distribution's interval would be too narrow.
    half = float(
        special.stdtrit(m - 1, (1 + CONFIDENCE) / 2) * np.std(values, ddof=1) / math.sqrt(m)
    )
    return Interval(mean, (mean - half, mean + half))


def paired_difference(values: Sequence[float], baseline: Sequence[float]) -> Difference:
    """``values - baseline`` seed by seed; larger is better.

    The verdict is 'better' or 'worse' where the 95% interval leaves 0 out, else 'no
    difference shown'. One seed shows nothing.
    """
    # Seeds share data and order: what they have in common cancels out of each pair.
    pairs = [a - b for a, b in zip(values, baseline, strict=True)]
    mean, ci95 = mean_interval(pairs)
    low, high = ci95 or (0.0, 0.0)
    verdict = "better" if low > 0 else "worse" if high < 0 else "no difference shown"
    return Difference(mean, ci95, verdict)


def value_at(curve: Curve, cost: float) -> float | None:
    """The curve's height at a cost; None before its first or after its last point."""
    if not curve.x[0] <= cost <= curve.x[-1]:
        return None
    return float(np.interp(cost, curve.x, curve.y))


def first_reaching(curve: Curve, target: float) -> float | None:
    """The lowest cost at which the curve is at ``target`` or above; None where it never is."""
    if curve.y[0] >= target:
        return curve.x[0]
    for end in range(1, len(curve.x)):
        if curve.y[end] >= target:
            # On the straight line to the point before.
            (x0, x1), (y0, y1) = curve.x[end - 1 : end + 1], curve.y[end - 1 : end + 1]
            return x0 + (x1 - x0) * (target - y0) / (y1 - y0)
    return None


def difference_at_equal_cost(
    curves: Sequence[Curve], baseline: Sequence[Curve]
) -> EqualDifference | None:
    """The paired difference where the cheaper of each pair of curves, one a seed, ends.

    None where, for any seed, the curve that costs more had no point yet when the other ended.
    """
    ends, values, others = [], [], []
    for mine, other in zip(curves, baseline, strict=True):
        # The last cost that both have; beyond it one of them was not measured.
        end = min(mine.x[-1], other.x[-1])
        value, against = value_at(mine, end), value_at(other, end)
        if value is None or against is None:
            return None
        ends.append(end)
        values.append(value)
        others.append(against)
    gain = paired_difference(values, others)
    return EqualDifference(float(np.mean(ends)), gain.difference, gain.ci95, gain.verdict)


def share_to_break_even(
    seconds_per_step: float,
    seconds_once: float,
    baseline_seconds_per_step: float,
    baseline_seconds_once: float,
    baseline_steps: float,
) -> float:
    """The break-even line: how many steps an arm may make, as a share of the baseline's.

    An arm whose steps cost more pays for its choosing when it reaches what the baseline
    reaches in at most this share of the baseline's steps. 0.8 means: a fifth fewer. At 0
    or below, one-off work alone costs more than the baseline's whole run.
    """
    # What the baseline spends, less what the arm has spent before its first step.
    budget = baseline_steps * baseline_seconds_per_step + baseline_seconds_once - seconds_once
    return budget / (baseline_steps * seconds_per_step)
