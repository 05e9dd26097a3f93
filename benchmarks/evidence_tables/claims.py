"""What the paper claims beside our rows, and why its eigenvector does what it does."""

from __future__ import annotations

import math
import statistics
from pathlib import Path
from typing import NamedTuple

from evidence_tables.criteria import DATASETS
from evidence_tables.rows import (
    NONE_YET,
    NOTHING,
    Row,
    grouped,
    interval_text,
    markdown,
    paired,
    points,
    read_rows,
)
from saln.experiments import mean_interval, paired_difference
from saln.experiments.statistics import Difference, Interval
from saln.report.paper_claims import CLAIMS, UNREAD

__all__ = ["TABLES", "eigenvector_svg"]

PRESETS = {"paper-oxford-pet": "Oxford-IIIT Pet", "paper-cifar10": "CIFAR-10"}
RUNS_OF = {"oxford-pet": "Oxford-IIIT Pet", "hf:cifar10": "CIFAR-10"}

# A run's row, and the seeds' rows by arm.
Run = tuple[Row, dict[str, list[Row]]]


def _runs(results: Path) -> list[Run]:
    """Every stored run in the paper's setting."""
    runs = []
    for path in sorted(results.glob("paper-setting-*.jsonl")):
        for group in grouped(read_rows(results, path.stem), "run").values():
            (about,) = (row for row in group if row["kind"] == "run")
            seeds = grouped((row for row in group if row["kind"] == "seed"), "arm")
            runs.append((about, {arm: rows for (arm,), rows in seeds.items()}))
    return runs


def _name(about: Row) -> str:
    """A run's data and filter ratio."""
    return f"{RUNS_OF.get(about['dataset'], about['dataset'])}, f = {about['filter_ratio']:g}"


def printed(_: Path) -> str:
    """The numbers in the paper's text."""
    lines = []
    for preset, claims in CLAIMS.items():
        for claim in claims:
            lines.append(
                [
                    PRESETS[preset],
                    f"`{claim.arm}`",
                    claim.tables,
                    *(f"{value:g}" for value in claim.accuracy),
                    *(f"{value:g}" for value in claim.loss),
                    NOTHING if claim.minutes is None else f"{claim.minutes:g}",
                ]
            )
    columns = (
        *("data", "method", "tables", "training (%)", "validation (%)", "test (%)"),
        *("training loss", "validation loss", "minutes"),
    )
    missing = "; ".join(f"{PRESETS[preset]}: {what}" for preset, what in UNREAD.items())
    return (
        markdown(columns, lines, left=3)
        + f"\n\nPrinted as pictures, and so not in the text: {missing}."
    )


def claimed(_: Path) -> str:
    """The abstract's three claims, and what the printed tables give for them."""
    pets = {claim.arm: claim for claim in CLAIMS["paper-oxford-pet"]}
    cifar = {claim.arm: claim for claim in CLAIMS["paper-cifar10"]}
    gain = pets["saln"].accuracy[2] - pets["standard"].accuracy[2]
    jest = [
        f"{where} {of['saln'].accuracy[2] - of['jest'].accuracy[2]:+.2f} points"
        for where, of in (("pets", pets), ("CIFAR-10", cifar))
    ]
    fast = (cifar["jest"].minutes or math.nan) / (cifar["saln"].minutes or math.nan)
    lines = [
        "The abstract says: up to 8 times less training time and up to 5% more accuracy than "
        "standard training, and better and faster than JEST.",
        "",
        f"- Accuracy over standard training, as printed for the pets' test images: {gain:+.2f} "
        "points.",
        "- Training time under standard training: its table is a picture.",
        f"- Accuracy over JEST, as printed for the test images: {', '.join(jest)}.",
        f"- Time under JEST, as printed for CIFAR-10: {fast:.2f} times less.",
        "",
        "One run each: no seeds, no interval, no uniform choice beside it.",
    ]
    return "\n".join(lines)


class _Beside(NamedTuple):
    """`saln` beside another arm, seed by seed: points of accuracy, and the other's time over it."""

    seeds: int
    gain: Difference
    times: Interval

    def accuracy(self) -> str:
        ci95 = self.gain.ci95
        return points(self.gain.difference, ci95, self.gain.verdict)


def _beside(seeds: dict[str, list[Row]], arm: str, other: str) -> _Beside:
    accuracies = paired(seeds[arm], seeds[other], "test_accuracy")
    spent = [{row["seed"]: row["seconds"]["spent"] for row in seeds[name]} for name in (other, arm)]
    times = [spent[0][seed] / spent[1][seed] for seed in spent[0] if seed in spent[1]]
    return _Beside(len(times), paired_difference(*accuracies), mean_interval(times))


def found(results: Path) -> str:
    """Our `saln` arm beside the arms that the paper compares it with, and the control."""
    lines = []
    for about, seeds in _runs(results):
        for other in ("standard", "jest", "uniform"):
            if "saln" not in seeds or other not in seeds:
                continue
            beside = _beside(seeds, "saln", other)
            lines.append(
                [
                    _name(about),
                    f"`{other}`",
                    str(beside.seeds),
                    beside.accuracy(),
                    interval_text(*beside.times, 2),
                ]
            )
    if not lines:
        return NONE_YET
    columns = ("run", "beside", "seeds", "accuracy, saln less it (points)", "time, it over saln")
    return markdown(columns, lines, left=2)


def _verdict(gain: Difference) -> str:
    return {"better": "yes", "worse": "no, worse"}.get(gain.verdict, "not shown")


def reading(results: Path) -> str:
    """Each of the three claims on each stored run at the paper's filter ratio, in words."""
    parts = []
    for about, seeds in _runs(results):
        if "saln" not in seeds or about["filter_ratio"] != 0.8:
            continue
        lines = [f"**{_name(about)}**", ""]
        if "standard" in seeds:
            beside = _beside(seeds, "saln", "standard")
            without = ""
            if "uniform" in seeds:
                control = _beside(seeds, "uniform", "standard").times.mean
                without = f"; `uniform`, which drops as much, takes {control:.1f} times less"
            lines += [
                f"- Less time than standard training, at equal epochs: {beside.times.mean:.1f} "
                f"times less{without}.",
                f"- More accurate than standard training: {_verdict(beside.gain)} "
                f"({beside.accuracy()} points).",
            ]
        if "jest" in seeds:
            beside = _beside(seeds, "saln", "jest")
            faster = "faster" if beside.times.mean > 1 else "slower"
            lines.append(
                f"- Better and faster than JEST: better: {_verdict(beside.gain)} "
                f"({beside.accuracy()} points); {faster}, JEST takes {beside.times.mean:.1f} "
                "times as long."
            )
        if "uniform" in seeds:
            beside = _beside(seeds, "saln", "uniform")
            lines.append(
                f"- Better than a random choice of as many: {_verdict(beside.gain)} "
                f"({beside.accuracy()} points)."
            )
        parts.append("\n".join(lines))
    return "\n\n".join(parts) or NONE_YET


def participation(results: Path) -> str:
    """What the eigenvector sits on, over batches of candidates."""
    rows = [row for row in read_rows(results, "participation") if "dataset" in row]
    if not rows:
        return "No rows of this are stored yet."
    lines = []
    for (dataset,), batches in grouped(rows, "dataset").items():

        def mean(key: str, of: list[Row] = batches) -> float:
            return statistics.fmean(row[key] for row in of)

        lines.append(
            [
                DATASETS[dataset],
                str(len(batches)),
                f"{statistics.median(row['participation_ratio'] for row in batches):.2f}",
                f"{100 * mean('largest_entry_squared'):.0f}",
                f"{100 * mean('largest_is_least_alike'):.0f}",
                f"{100 * mean('kept_among_least_alike'):.0f}",
                f"{100 * mean('kept_by_the_outlier_alone'):.0f}",
                f"{mean('value_over_smallest_degree'):.3f}",
            ]
        )
    n, k = rows[0]["n"], rows[0]["k"]
    columns = (
        *("data", "batches", "participation ratio (median)", "largest entry's weight (%)"),
        *("largest is the oddest (%)", "kept that are among the oddest (%)"),
        *("kept that the outlier alone decides (%)", "eigenvalue over smallest degree"),
    )
    return (
        markdown(columns, lines)
        + f"\n\nBatches of {n} candidates, of which {k} are kept: by chance {100 * k / n:.0f}% of "
        f"the kept would be among any {k}. The oddest are those least like the others."
    )


def eigenvector_svg(results: Path) -> str | None:
    """One batch a data set: how odd an example is, and its entry; None without rows."""
    pictures = [row for row in read_rows(results, "participation") if "picture" in row]
    if not pictures:
        return None
    width, height, margin = 380, 280, 48
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width * len(pictures)} {height}" '
        'font-family="sans-serif" font-size="11" role="img">',
        "<title>Entries of the eigenvector over the similarity to the other candidates</title>",
        f'<rect width="{width * len(pictures)}" height="{height}" fill="#fff"/>',
    ]
    for number, row in enumerate(pictures):
        left, right = width * number + margin, width * (number + 1) - 12
        top, bottom = 28, height - margin
        low, high = min(row["alike"]), max(row["alike"])
        floor = -4
        kept = sorted(row["entries"], reverse=True)[: row["kept"]][-1]
        parts.append(
            f'<text x="{left}" y="18" font-weight="bold">{DATASETS[row["picture"]]}</text>'
            f'<path d="M{left} {top}V{bottom}H{right}" fill="none" stroke="#888"/>'
            f'<text x="{(left + right) / 2}" y="{height - 12}" text-anchor="middle">'
            "mean similarity to the other candidates</text>"
            f'<text transform="translate({left - 34} {(top + bottom) / 2}) rotate(-90)" '
            'text-anchor="middle">|entry|</text>'
        )
        for power in range(floor, 1):
            y = bottom + (floor - power) * (bottom - top) / -floor
            parts.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">1e{power}</text>')
        for value in (low, high):
            x = left + 6 + (value - low) / (high - low) * (right - left - 12)
            parts.append(
                f'<text x="{x:.1f}" y="{bottom + 14}" text-anchor="middle">{value:.2f}</text>'
            )
        for alike, entry in zip(row["alike"], row["entries"], strict=True):
            x = left + 6 + (alike - low) / (high - low) * (right - left - 12)
            y = bottom - (max(math.log10(max(entry, 1e-12)), floor) - floor) * (
                (bottom - top) / -floor
            )
            color = "#c2410c" if entry >= kept else "#94a3b8"
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{color}"/>')
    return "\n".join([*parts, "</svg>"]) + "\n"


TABLES = {
    "paper-printed": printed,
    "paper-claimed": claimed,
    "paper-found": found,
    "paper-reading": reading,
    "participation": participation,
}
