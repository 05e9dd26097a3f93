"""The frozen rule in settings where nothing of it was chosen: accuracies, and less each rival.

Labels and a filter ratio are shown once every rival is trained there, each at its own best rate.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from pathlib import Path

from evidence_tables.rows import NONE_YET, NOTHING, Row, markdown, percent, read_rows
from evidence_tables.tuned import (
    FINAL,
    ROBUST,
    RULE,
    STANDARD_RULE,
    TUNING,
    Arms,
    accuracies,
    cells_of,
    rule_table,
)

__all__ = ["SETTING_NAMES", "TABLES", "confirmation_cells"]

SETTING_NAMES = {
    "pets-fine-tune": "Pets, all layers of EfficientNet-Lite0 fine-tuned, 96 px",
    "cifar10-all": "CIFAR-10, all 50,000 images, from scratch",
    "pets-64": "Pets, from scratch, 64 px",
    "cifar10": "CIFAR-10, 10,240 images, from scratch",
}
SEEDS = 5
SHOWN = "shown above"  # A row of a table that the page has already; needed beside new ones
RATIO = 0.8
SOFTER = RULE.removeprefix("balanced-curriculum")
ORDER = (
    *("standard", STANDARD_RULE, "standard+targets", "uniform", "uniform+gce", f"uniform{SOFTER}"),
    *("uniform+targets", "coherence", "balanced-curriculum", RULE, "oracle"),
)


def _rows(results: Path) -> list[Row]:
    """Of runs; those of the first setting are in two files."""
    rows = [row for row in read_rows(results, "tuned-confirmation") if "stage" in row]
    if any(row["dataset"] == "cifar10" for row in rows):
        for row in read_rows(results, "tuned-scratch"):
            everything = row["arm"].startswith("standard")
            rows.append({"filter_ratio": 0.0 if everything else RATIO, **row, SHOWN: True})
    return rows


def _missing(arms: Arms) -> list[str]:
    """Rivals that have no row: a random choice, one with a robust loss, and all examples."""
    missing = [f"`{arm}`" for arm in ("uniform", "standard") if arm not in arms]
    return missing if set(arms) & set(ROBUST) else [*missing, "a robust loss"]


def confirmation_cells(
    results: Path, *, whole: bool = True
) -> Iterator[tuple[str, dict[str, Arms]]]:
    """Each setting in words, with the tested rows by labels and filter ratio, and by arm.

    What trains on everything is beside every filter ratio of the same labels.

    Args:
        results: The folder of the rows.
        whole: Those whose rivals are all there; else the others.
    """
    found = _rows(results)
    for setting, name in SETTING_NAMES.items():
        rows = [row for row in found if row["dataset"] == setting]
        ratios = sorted(
            {row["filter_ratio"] for row in rows} - {0.0}, key=lambda f: (f != RATIO, f)
        )
        cells = {}
        for ratio in ratios:
            part = [row for row in rows if row["filter_ratio"] in (0.0, ratio)]
            for labels, arms in cells_of(part).items():
                new = any(own[0]["filter_ratio"] and SHOWN not in own[0] for own in arms.values())
                if new and whole == (not _missing(arms)):
                    cells[labels if ratio == RATIO else f"{labels}, f = {ratio:g}"] = arms
        if cells:
            yield name, cells


def _edge(rows: list[Row], own: Row) -> bool:
    """Whether an arm's rate is the lowest or highest that it tried in this cell."""
    keys = ("dataset", "noise", "asked_rate", "filter_ratio", "arm")
    tried = [
        row["learning_rate"]
        for row in rows
        if row["stage"] == TUNING and all(row[key] == own[key] for key in keys)
    ]
    return bool(tried) and own["learning_rate"] in (min(tried), max(tried))


def _accuracy(rows: list[Row], arms: Arms, arm: str) -> str:
    if arm not in arms:
        return NOTHING
    own = arms[arm]
    seeds = f" ({len(own)} of {SEEDS} seeds)" if len(own) < SEEDS else ""
    return percent(accuracies(own)) + "*" * _edge(rows, own[0]) + seeds


def _table(rows: list[Row], cells: dict[str, Arms]) -> str:
    there = {arm for arms in cells.values() for arm in arms}
    lines = []
    for arm in (*ORDER, *sorted(there - set(ORDER))):
        if arm in there:
            steps = dict.fromkeys(
                f"{arms[arm][0]['steps']:,}" for arms in cells.values() if arm in arms
            )
            found = (_accuracy(rows, arms, arm) for arms in cells.values())
            lines.append([f"`{arm}`", *found, " / ".join(steps)])
    return markdown(("arm", *cells, "steps"), lines)


def every_arm(results: Path) -> str:
    """A table a setting: the test accuracy of each arm in each cell."""
    rows, parts = _rows(results), []
    for name, cells in confirmation_cells(results):
        first = next(own[0] for arms in cells.values() for own in arms.values())
        about = f"**{name}**: {first['train_images']:,} training images, {first['epochs']} epochs"
        parts += [about, _table(rows, cells)]
    return "\n\n".join(parts) or NONE_YET


def rule(results: Path) -> str:
    """A table a setting: the rule less each rival, paired by seed."""
    parts = []
    for name, cells in confirmation_cells(results):
        of = {labels: arms for labels, arms in cells.items() if RULE in arms}
        if of:
            parts += [f"**{name}**", rule_table(of)]
    return "\n\n".join(parts) or NONE_YET


def left_out(results: Path) -> str:
    """What was trained but is not shown, and which rivals miss."""
    lines = []
    for name, cells in confirmation_cells(results, whole=False):
        for labels, arms in cells.items():
            trained = ", ".join(f"`{arm}`" for arm in sorted(arms))
            lines.append([name, labels, trained, ", ".join(_missing(arms))])
    if not lines:
        return "Every comparison that was trained has all its rivals and is shown."
    columns = ("not shown", "labels", "trained", "missing")
    return markdown(columns, lines, left=len(columns))


def seconds(results: Path) -> str:
    """What a step takes on the GPU that trained these, one lane alone, beside its choice."""
    found = read_rows(results, "tuned-confirmation")
    lines = []
    for row in (row for row in found if "step_ms" in row):
        for arm, times in row["step_ms"].items():
            chosen = [
                each["choosing_ms_per_step"]
                for each in found
                if each.get("stage") == FINAL
                and (each["dataset"], each["arm"]) == (row["dataset"], arm)
                and each["filter_ratio"] == RATIO
            ]
            if chosen:
                name = SETTING_NAMES[row["dataset"]]
                own = (f"{min(times):.3f}", f"{statistics.median(chosen):.3f}")
                lines.append([name, f"`{arm}`", *own])
    columns = ("setting", "arm", "a step (ms)", "choosing, of a step (CPU ms)")
    return markdown(columns, lines, left=2) if lines else NONE_YET


TABLES = {
    "tuned-confirmation": every_arm,
    "tuned-confirmation-rule": rule,
    "tuned-confirmation-left-out": left_out,
    "tuned-confirmation-seconds": seconds,
}
