"""How numbers, intervals and differences are written, on every page, table and terminal."""

from __future__ import annotations

from collections.abc import Sequence

from saln.experiments.rows import Metric, RunFacts
from saln.experiments.statistics import Difference, EqualDifference

NOTHING = "–"
UNKNOWN = "-"


def number_text(value: float, digits: int = 1, *, sign: bool = False, comma: bool = False) -> str:
    """A number; ``comma`` puts commas between thousands."""
    # -0.04 is shown as 0.0: the sign of a rounded nothing says nothing.
    shown = round(value, digits) + 0.0
    return f"{shown:{'+' if sign else ''}{',' if comma else ''}.{digits}f}"


def interval_text(
    mean: float,
    ci95: Sequence[float] | None,
    digits: int = 1,
    *,
    sign: bool = False,
    comma: bool = False,
) -> str:
    """``mean ± half of the interval``; the mean alone where there is no interval."""
    text = number_text(mean, digits, sign=sign, comma=comma)
    if ci95 is None:
        return text
    return f"{text} ± {number_text((ci95[1] - ci95[0]) / 2, digits, comma=comma)}"


def percent_text(share: float) -> str:
    """A fraction in per cent."""
    return number_text(100 * share)


def metric_text(metric: Metric, *, percent: bool) -> str:
    """A metric with its interval: a fraction in per cent, or as it is with three digits."""
    if not percent:  # a loss has no scale of its own
        return interval_text(metric.mean, metric.ci95, 3)
    ends = None if metric.ci95 is None else [100 * end for end in metric.ci95]
    return interval_text(100 * metric.mean, ends)


def points_text(gain: Difference | EqualDifference) -> str:
    """A difference of fractions in points, and the ends of its interval."""
    text = number_text(100 * gain.difference, sign=True)
    if gain.ci95 is None:
        return text
    low, high = (number_text(100 * end, sign=True) for end in gain.ci95)
    return f"{text} [{low}, {high}]"


def verdict_text(gain: Difference | EqualDifference | None) -> str:
    """A difference in points, with what it shows."""
    return NOTHING if gain is None else f"{points_text(gain)} {gain.verdict}"


def noise_text(facts: RunFacts) -> str:
    """The share of wrong labels, or that nobody knows it."""
    return f"{100 * facts.label_noise:.0f}%" if facts.knows_truth else "unknown"
