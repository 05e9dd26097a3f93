"""What ``saln labels`` costs, and what its list is worth beside cleanlab's."""

from __future__ import annotations

from pathlib import Path

from evidence_tables.rows import NOTHING, grouped, markdown, read_rows

DATASETS = {"pets": "pets", "cifar10": "CIFAR-10"}


def review_cost(results: Path) -> str:
    """Seconds and memory of the command on every image of a data set."""
    rows = [row for row in read_rows(results, "label-review") if "peak_bytes" in row]
    lines = [
        [
            f"{row['images']:,} images of {DATASETS[row['dataset']]}",
            row["backbone"],
            str(row["pixels"]),
            "kept" if row["features_kept"] else "computed",
            f"{row['seconds']:,.0f}",
            f"{row['processor_seconds']:,.0f}",
            f"{row['peak_bytes'] / 2**30:.2f}",
        ]
        for row in rows
    ]
    columns = (
        "data",
        "network",
        "pixels",
        "features",
        "seconds",
        "processor seconds",
        "memory (GiB)",
    )
    return markdown(columns, lines, left=4) if lines else ""


def review_lists(results: Path) -> str:
    """How right the lists are: at their beginning, and cut at the estimated number."""
    rows = [row for row in read_rows(results, "label-review") if "finder" in row]
    names = {"ours": "`saln labels`", "cleanlab": "cleanlab"}
    lines = []
    for (dataset, rate), cell in grouped(rows, "dataset", "rate").items():
        for row in cell:
            lines.append(
                [
                    DATASETS[dataset] if row is cell[0] else "",
                    f"{100 * rate:.0f} ({row['wrong']:,})" if row is cell[0] else "",
                    names[row["finder"]],
                    f"{100 * row['precision_at_100']:.0f}",
                    f"{row['estimated']:,}",
                    f"{100 * row['precision_at_estimate']:.1f}",
                    f"{100 * row['recall_at_estimate']:.1f}",
                    f"{row['seconds']:,.0f}" if row["seconds"] else NOTHING,
                ]
            )
    columns = (
        *("data", "wrong labels (%)", "finder", "wrong of the first 100", "estimated number"),
        *("wrong of those (%)", "of all wrong ones (%)", "seconds to judge"),
    )
    return markdown(columns, lines, left=3) if lines else ""


TABLES = {"review-cost": review_cost, "review-lists": review_lists}
