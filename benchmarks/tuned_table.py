"""The table of a study whose arms were tuned: each beside two controls, paired by seed."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np

from saln.experiments import mean_interval, paired_difference
from saln.experiments.statistics import Interval
from saln.report.number_text import interval_text

__all__ = ["FINAL", "TUNING", "study_table"]

TUNING, FINAL = "tuning", "final"

Row = dict[str, Any]


def _points(found: Interval) -> str:
    return interval_text(100 * found.mean, found.ci95 and [100 * end for end in found.ci95])


def _against(own: dict[int, Row], base: dict[int, Row]) -> str:
    both = [seed for seed in own if seed in base]
    if not both or own is base:
        return "–"
    accuracies = [[of[seed]["test_accuracy"] for seed in both] for of in (own, base)]
    difference = paired_difference(*accuracies)
    seen = "one seed" if difference.ci95 is None else difference.verdict
    return f"{_points(Interval(difference.difference, difference.ci95))} ({seen})"


def study_table(rows: list[Row]) -> str:
    """Markdown: each arm at the learning rate that was chosen for it, beside two controls.

    The controls are ``uniform``, and ``uniform`` with the arm's own targets, so that what
    targets give and what choosing gives are told apart.
    """
    groups: dict[tuple[str, float, str], dict[int, Row]] = {}
    tried: dict[tuple[str, float, str], set[float]] = defaultdict(set)
    for row in rows:
        key = (row["noise"], row["asked_rate"], row["arm"])
        if row["stage"] == FINAL:
            groups.setdefault(key, {})[row["seed"]] = row
        else:
            tried[key].add(row["learning_rate"])
    lines = [
        "| labels | arm | steps | learning rate | seeds | test accuracy (%) | against uniform "
        "(points) | against uniform with the same targets | wrong labels kept (%) |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for (noise, asked, arm), own in sorted(groups.items()):
        first = next(iter(own.values()))
        rate = first["learning_rate"]
        edge = (
            " (edge)"
            if rate in (min(tried[noise, asked, arm]), max(tried[noise, asked, arm]))
            else ""
        )
        same = "uniform+targets" if arm.endswith("+targets") else "uniform"
        cells = (
            noise if asked == 0 else f"{noise} {asked:g}",
            arm,
            str(first["steps"]),
            f"{rate:g}{edge}",
            str(len(own)),
            _points(mean_interval([row["test_accuracy"] for row in own.values()])),
            _against(own, groups.get((noise, asked, "uniform"), {})),
            "–" if same == "uniform" else _against(own, groups.get((noise, asked, same), {})),
            f"{100 * np.mean([row['wrong_label_share_kept'] for row in own.values()]):.1f}",
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
