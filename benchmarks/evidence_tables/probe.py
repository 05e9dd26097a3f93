"""The tuned study of last layers: every arm in every cell, and what the rule gives there."""

from __future__ import annotations

import statistics
from pathlib import Path

from evidence_tables.criteria import DATASETS
from evidence_tables.rows import NONE_YET, NOTHING, Row, grouped, markdown, percent, read_rows
from evidence_tables.tuned import (
    FINAL,
    RULE,
    STANDARD_RULE,
    TUNING,
    Arms,
    accuracies,
    best_robust,
    cells_of,
    control,
    less,
    mean_accuracy,
    rule_table,
)

__all__ = ["TABLES", "probe_cells"]

RATIO = 0.8
POINT = ("learning_rate", "weight_decay")
CELL = ("dataset", "noise", "asked_rate", "filter_ratio", "arm")
NEIGHBORS = "coherence(judge=neighbors)"


def _rows(results: Path, ratio: float) -> list[Row]:
    """Those of a filter ratio, and of the arms that keep everything."""
    rows = read_rows(results, "tuned-probe")
    return [row for row in rows if row["filter_ratio"] in (0, ratio)]


def probe_cells(results: Path, ratio: float = RATIO) -> list[tuple[str, str, Arms]]:
    """Data and labels in words, and the tested rows of each arm; those with a choice alone."""
    found = []
    for dataset, name in DATASETS.items():
        rows = [row for row in _rows(results, ratio) if row["dataset"] == dataset]
        for labels, arms in cells_of(rows).items():
            if "uniform" in arms:
                found.append((name, labels, arms))
    return found


def _edges(rows: list[Row]) -> set[tuple[object, ...]]:
    """The cells and arms whose learning rate, or whose weight decay above 0, is the last tried."""
    tried = [row for row in rows if row["stage"] == TUNING]
    bounds = {key: (min(r[key] for r in tried), max(r[key] for r in tried)) for key in POINT}
    return {
        tuple(row[key] for key in CELL)
        for row in rows
        if row["stage"] == FINAL
        and (
            row["learning_rate"] in bounds["learning_rate"]
            or row["weight_decay"] == bounds["weight_decay"][1]
        )
    }


def _milliseconds(rows: list[Row], key: str) -> str:
    return f"{statistics.median(row[key] for row in rows):.2f}"


def every_arm(results: Path) -> str:
    """A table a data set: each arm in each cell, the best mean first, and what its steps take."""
    rows = _rows(results, RATIO)
    if not rows:
        return NONE_YET
    on_edge = _edges(rows)
    parts = []
    for (data,), cells in grouped(
        [{"data": data, "labels": labels, "arms": arms} for data, labels, arms in
         probe_cells(results)], "data",
    ).items():  # fmt: skip
        labels = [cell["labels"] for cell in cells]
        by_arm: dict[str, dict[str, list[Row]]] = {}
        for cell in cells:
            for arm, own in cell["arms"].items():
                by_arm.setdefault(arm, {})[cell["labels"]] = own

        def score(arm: str, of: dict[str, dict[str, list[Row]]] = by_arm) -> float:
            return -statistics.fmean(map(mean_accuracy, of[arm].values()))

        lines = []
        for arm in sorted(by_arm, key=lambda arm: (-len(by_arm[arm]), score(arm))):
            own = [row for found in by_arm[arm].values() for row in found]
            shown = [
                NOTHING
                if label not in by_arm[arm]
                else percent(accuracies(by_arm[arm][label]))
                + "*" * (tuple(by_arm[arm][label][0][key] for key in CELL) in on_edge)
                for label in labels
            ]
            times = (_milliseconds(own, f"{part}_ms_per_step") for part in ("choosing", "training"))
            lines.append([f"`{arm}`", *shown, f"{own[0]['steps']:,}", *times])
        columns = ("arm", *labels, "steps", "choosing (ms a step)", "training (ms a step)")
        images = cells[0]["arms"]["uniform"][0]["train_images"]
        parts += [f"**{data}**, {images:,} training images", markdown(columns, lines)]
    return "\n\n".join(parts)


def rule(results: Path) -> str:
    """The rule less each rival: a column a cell."""
    return rule_table({f"{data}, {labels}": arms for data, labels, arms in probe_cells(results)})


def ratios(results: Path) -> str:
    """The rule at the other filter ratios."""
    lines = []
    for ratio in (0.5, 0.9):
        for data, labels, arms in probe_cells(results, ratio):
            others = ("uniform", control(arms, RULE), NEIGHBORS, "standard", STANDARD_RULE)
            lines.append(
                [
                    f"{ratio:g}",
                    data,
                    labels,
                    percent(accuracies(arms["uniform"])),
                    percent(accuracies(arms[RULE])) if RULE in arms else NOTHING,
                    *(less(arms, RULE, other) for other in others),
                ]
            )
    columns = (
        *("f", "data", "wrong labels", "`uniform` (%)", "the rule (%)", "less `uniform`"),
        *("less `uniform` with its targets", f"less `{NEIGHBORS}`", "less `standard`"),
        "less `standard` with its targets",
    )
    return markdown(columns, lines, left=3) if lines else NONE_YET


def fallen(results: Path) -> str:
    """What is left of the first claim where every arm is tuned."""
    lines = []
    for data, labels, arms in probe_cells(results):
        others = ("uniform", best_robust(arms), "standard", "uniform+targets")
        lines.append([data, labels, *(less(arms, NEIGHBORS, other) for other in others)])
    columns = (
        *("data", "wrong labels", f"`{NEIGHBORS}` less `uniform`", "less the better robust loss"),
        *("less `standard`, five times the steps", "less `uniform+targets`, which chooses nothing"),
    )
    return markdown(columns, lines, left=2) if lines else NONE_YET


TABLES = {
    "tuned-probe": every_arm,
    "tuned-probe-rule": rule,
    "tuned-probe-ratios": ratios,
    "tuned-fallen": fallen,
}
