"""Tables of `criteria.py`: probes, and a step's cost."""

from __future__ import annotations

import statistics
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
    versus,
    wrong_kept,
)

__all__ = ["TABLES"]

DATASETS = {"pets": "pets", "cifar10": "CIFAR-10"}
NOISES = {
    "clean": "clean",
    "symmetric": "random",
    "pair-flips": "next class",
    "weak-model": "by image",
}
ORDER = ("uniform", "standard")


def _labels(rows: list[Row]) -> str:
    """The kind and mean share of wrong labels in words."""
    if rows[0]["noise"] == "clean":
        return "clean"
    share = statistics.fmean(row["noise_rate"] for row in rows)
    return f"{NOISES[rows[0]['noise']]}, {100 * share:.0f}%"


def _selectors(groups: list[tuple[str, list[Row]]]) -> list[tuple[str, list[Row]]]:
    """The control first, then standard, then the others."""
    return sorted(groups, key=lambda entry: (entry[0] not in ORDER, entry[0] != "uniform"))


def _probe_lines(rows: list[Row]) -> list[list[str]]:
    trained = [row for row in rows if "selector" in row]
    lines = []
    for (dataset, _, _), group in grouped(trained, "dataset", "noise", "asked_rate").items():
        arms = {name: found for (name,), found in grouped(group, "selector").items()}
        for name, found in _selectors(list(arms.items())):
            against = NOTHING
            if name != "uniform":
                against = versus(paired(found, arms["uniform"], "test_accuracy"))
            lines.append(
                [
                    DATASETS[dataset],
                    _labels(found),
                    f"`{name}`",
                    f"{found[0]['steps']:,}",
                    percent([row["test_accuracy"] for row in found]),
                    against,
                    wrong_kept(found, 0 if found[0]["noise"] == "clean" else 1),
                ]
            )
    return lines


PROBE_COLUMNS = (
    *("data", "wrong labels", "selector", "steps", "test accuracy (%)"),
    *("against uniform (points)", "wrong labels kept (%)"),
)


def probe(results: Path) -> str:
    """Linear probes: every data set, noise and selector."""
    return markdown(PROBE_COLUMNS, _probe_lines(read_rows(results, "criteria-probe")), left=3)


def probe_ratios(results: Path) -> str:
    """Linear probes that keep more or less than a fifth."""
    lines = []
    for (ratio,), group in grouped(
        [row for row in read_rows(results, "criteria-ratios") if "selector" in row], "filter_ratio"
    ).items():
        lines += [[f"{ratio:g}", *line] for line in _probe_lines(group)]
    return markdown(("f", *PROBE_COLUMNS), lines, left=4)


def spectral(results: Path) -> str:
    """Changed forms of the published criterion, as far as they were run."""
    rows = [row for row in read_rows(results, "criteria-spectral") if "selector" in row]
    lines = []
    for (dataset, _, rate), group in grouped(rows, "dataset", "noise", "asked_rate").items():
        arms = {name: found for (name,), found in grouped(group, "selector").items()}
        for name, found in arms.items():
            pair = paired(found, arms["uniform"], "test_accuracy")
            gain = statistics.fmean(
                100 * (a - b) for a, b in zip(pair.values, pair.baseline, strict=True)
            )
            lines.append(
                [
                    DATASETS[dataset],
                    f"{100 * rate:.0f}% wrong" if rate else "clean",
                    f"`{name}`",
                    str(len(found)),
                    f"{100 * statistics.fmean(row['test_accuracy'] for row in found):.1f}",
                    NOTHING if name == "uniform" else interval_text(gain, None, sign=True),
                    wrong_kept(found, rate),
                ]
            )
    columns = ("data", "labels", "criterion", "seeds", "test accuracy (%)", *PROBE_COLUMNS[-2:])
    return markdown(columns, lines, left=3)


def cost(results: Path) -> str:
    """A fine-tuning step with a criterion beside one with uniform."""
    many = read_rows(results, "criteria-cost-40-pairs")
    asked = {row["question"] for row in many}
    rows = many + [
        row for row in read_rows(results, "criteria-cost") if row["question"] not in asked
    ]
    lines = []
    for row in rows:
        name = row["question"].removeprefix("a training step with ").partition(" ")[0]
        low, high = row.get("ratio_ci95") or (None, None)
        interval = NOTHING if low is None else f"{low:.3f} to {high:.3f}"
        lines.append(
            [
                f"`{name}`",
                f"{1000 * row['value']:.0f}",
                f"{1000 * row['baseline']:.0f}",
                f"{row['ratio']:.3f}",
                interval,
            ]
        )
    columns = (
        *("selector", "a step (ms)", "with uniform (ms)"),
        *("median ratio", "95% interval"),
    )
    return markdown(columns, lines)


TABLES = {
    "probe": probe,
    "probe-ratios": probe_ratios,
    "spectral": spectral,
    "cost": cost,
}
