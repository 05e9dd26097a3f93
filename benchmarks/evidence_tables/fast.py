"""Runs of seconds on a GPU: what a proxy's choice, a random one and ours give in equal time."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from evidence_tables.rows import (
    NOTHING,
    Row,
    grouped,
    interval_text,
    markdown,
    paired,
    percent,
    read_rows,
)
from evidence_tables.tuned import Arms, accuracies, cells_of, mean_accuracy
from saln.experiments import paired_difference

__all__ = ["LONGER", "PROXY", "RANDOM", "TABLES", "fast_table"]

RANDOM, PROXY, LONGER = "random", "proxy-loss", "longer"
TARGETS = "targets"


def _less(arms: Arms, arm: str, other: str) -> str:
    """In hundredths of points, which is what such runs differ by."""
    pair = paired(arms[arm], arms.get(other, []), "test_accuracy")
    if arm == other or not pair.values:
        return NOTHING
    found = paired_difference(*pair)
    ends = None if found.ci95 is None else [100 * end for end in found.ci95]
    text = interval_text(100 * found.difference, ends, 2, sign=True)
    return f"{text} ({found.verdict})" if found.verdict in ("better", "worse") else text


def _seconds(rows: Sequence[Row], key: str) -> str:
    found = statistics.fmean(row[key] for row in rows)
    return f"{found:.2f}" if found else NOTHING


def fast_table(rows: Sequence[Row]) -> str:
    """Each arm, the best first, less a random choice of the same seeds; and its seconds.

    Arms of one seed have the same first weights, candidates, flips and shifts, so differences
    are paired.
    """
    lines = []
    for (steps,), of in grouped(rows, "passes").items():
        for labels, arms in cells_of(of).items():
            for arm, own in sorted(arms.items(), key=lambda entry: -mean_accuracy(entry[1])):
                lines.append(
                    [
                        f"{labels}, {steps} passes",
                        f"`{arm}`",
                        f"{len(own)}",
                        f"{statistics.fmean(row['steps'] for row in own):,.0f}",
                        f"{own[0]['learning_rate']:g}",
                        percent(accuracies(own), 2),
                        _less(arms, arm, RANDOM),
                        _less(arms, arm, TARGETS),
                        _seconds(own, "seconds"),
                        _seconds(own, "seconds_before"),
                        _seconds(own, "seconds_choosing"),
                        _seconds(own, "seconds_judging"),
                    ]
                )
    columns = (
        *("labels", "arm", "runs", "steps", "learning rate", "test accuracy (%)"),
        *("against random (points)", "against its targets (points)"),
        *("training (s)", "proxy (s)", "choosing, on a CPU (s)", "judging, once (s)"),
    )
    return markdown(columns, lines, left=2)


def fast_cifar(results: Path) -> str:
    """The stored runs; nothing while there are none."""
    rows = read_rows(results, "fast-cifar")
    return fast_table(rows) if rows else ""


TABLES = {"fast-cifar": fast_cifar}
