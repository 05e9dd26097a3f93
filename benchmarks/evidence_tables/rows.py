"""Stored rows, and how their figures are written."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from saln.experiments import mean_interval, paired_difference
from saln.report.number_text import NOTHING, interval_text

__all__ = [
    "NONE_YET",
    "NOTHING",
    "RESULTS",
    "Row",
    "grouped",
    "interval_text",
    "markdown",
    "paired",
    "percent",
    "points",
    "read_rows",
    "versus",
    "wrong_kept",
]

NONE_YET = "No rows of this study are stored yet."
RESULTS = Path(__file__).resolve().parents[2] / "results"

Row = dict[str, Any]


class Paired(NamedTuple):
    """Two arms' values of the same seeds, in the same order."""

    values: list[float]
    baseline: list[float]


def read_rows(results: Path, name: str) -> list[Row]:
    """The rows of a file without its lines about environments; none where it is missing.

    Each row is given ``session``: the number of the line about an environment that it follows.
    Seconds of two sessions may be those of two machines.
    """
    path = results / f"{name}.jsonl"
    if not path.exists():
        return []
    rows: list[Row] = []
    session = 0
    for row in map(json.loads, path.read_text(encoding="utf-8").splitlines()):
        if set(row) == {"environment"}:
            session += 1
        else:
            rows.append({**row, "session": session})
    return rows


def grouped(rows: Iterable[Row], *keys: str) -> dict[tuple[Any, ...], list[Row]]:
    """Rows by the values of some keys, in the order of their first appearance."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row.get(key) for key in keys), []).append(row)
    return groups


def paired(rows: Sequence[Row], baseline: Sequence[Row], key: str) -> Paired:
    """The values of the seeds that both have."""
    mine, other = ({row["seed"]: row[key] for row in group} for group in (rows, baseline))
    seeds = [seed for seed in mine if seed in other]
    return Paired([mine[seed] for seed in seeds], [other[seed] for seed in seeds])


def percent(values: Sequence[float], digits: int = 1) -> str:
    """The mean of fractions in per cent, with Student's 95% interval over the seeds."""
    mean, ci95 = mean_interval([100 * value for value in values])
    return interval_text(mean, ci95, digits)


def wrong_kept(rows: Sequence[Row], rate: float) -> str:
    """The share of wrong labels among the kept, in per cent.

    Args:
        rows: With ``wrong_label_share_kept``.
        rate: The share that was replaced on purpose. Where it is 0, which labels are wrong is
            not known, though older rows say 0.
    """
    if rate == 0:
        return "unknown"
    return f"{100 * statistics.fmean(row['wrong_label_share_kept'] for row in rows):.1f}"


def points(difference: float, ci95: Sequence[float] | None, verdict: str) -> str:
    """A difference of fractions in percentage points, with its interval and verdict."""
    text = interval_text(
        100 * difference, None if ci95 is None else [100 * end for end in ci95], sign=True
    )
    return f"{text} ({verdict})" if verdict in ("better", "worse") else text


def versus(pair: Paired) -> str:
    """The paired difference in percentage points; a dash where no seed is in both."""
    if not pair.values:
        return NOTHING
    found = paired_difference(*pair)
    return points(found.difference, found.ci95, found.verdict)


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """A Markdown table; the first ``left`` columns are text, the others figures."""
    rule = ["---" if number < left else "---:" for number in range(len(columns))]
    lines = [columns, rule, *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
