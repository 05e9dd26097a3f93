"""What a step costs with each criterion, and the words for data and labels."""

from __future__ import annotations

from pathlib import Path

from evidence_tables.rows import NOTHING, markdown, read_rows

__all__ = ["DATASETS", "NOISES", "TABLES"]

DATASETS = {"pets": "pets", "cifar10": "CIFAR-10"}
NOISES = {
    "clean": "clean",
    "symmetric": "random",
    "pair-flips": "next class",
    "weak-model": "by image",
}


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


TABLES = {"cost": cost}
