"""Tables of `label_finders.py`, and of what judging costs."""

from __future__ import annotations

import statistics
from pathlib import Path

import numpy as np

from evidence_tables.rows import (
    NOTHING,
    Row,
    grouped,
    interval_text,
    markdown,
    paired,
    read_rows,
)
from saln.experiments import mean_interval, paired_difference

__all__ = ["TABLES", "straight_line"]

DATASETS = {"pets": "pets", "cifar10": "CIFAR-10"}
NOISES = {
    "clean": "clean",
    "symmetric": "random",
    "pair-flips": "next class",
    "weak-model": "by image",
}
# Ours in other forms is no rival of ours.
OWN = ("ours", "ours-rate-given", "filter")
# Who is given how many labels are wrong, and how exactly.
GIVEN = {
    "ours-rate-given": "ours (rate given)",
    "simifeat-rank": "simifeat-rank (rate of each class given)",
}

Cell = tuple[str, str, dict[tuple[str, ...], list[Row]]]


def _cells(results: Path) -> list[Cell]:
    """Of each cell the data set, the labels in words, and the rows by finder."""
    rows = [row for row in read_rows(results, "label-finders") if "finder" in row]
    cells = []
    for (dataset, noise, _), cell in sorted(
        grouped(rows, "dataset", "noise", "asked_rate").items(),
        key=lambda item: (item[0][0] == "cifar10", list(NOISES).index(item[0][1]), item[0][2]),
    ):
        share = 100 * sum(row["noise_rate"] for row in cell) / len(cell)
        by_finder = grouped(sorted(cell, key=lambda row: row["seed"]), "finder")
        cells.append((DATASETS[dataset], f"{NOISES[noise]}, {share:.0f}", by_finder))
    return cells


def _mean(rows: list[Row], key: str) -> float:
    return sum(row[key] or 0.0 for row in rows) / len(rows)


def finders(results: Path) -> str:
    """How well wrong labels are found, each finder at its best, best AUROC first."""
    lines = []
    for dataset, labels, by_finder in _cells(results):
        for (name,) in sorted(by_finder, key=lambda key: -_mean(by_finder[key], "auroc")):
            own = by_finder[name,]

            def shown(key: str, scale: float, digits: int, own: list[Row] = own) -> str:
                values = [scale * row[key] for row in own if row[key] is not None]
                return interval_text(*mean_interval(values), digits) if values else NOTHING

            lines.append(
                [
                    dataset,
                    labels,
                    GIVEN.get(name, name),
                    str(len(own)),
                    shown("auroc", 1, 4),
                    shown("f1", 1, 3),
                    shown("called_wrong", 100, 1),
                    shown("estimated_noise_rate", 100, 1),
                ]
            )
    columns = (
        *("data", "wrong labels (%)", "finder", "seeds", "AUROC", "F1", "called wrong (%)"),
        "estimated (%)",
    )
    return markdown(columns, lines, left=3) if lines else ""


def text_finders(results: Path) -> str:
    """How well wrong labels of texts are found, best AUROC first."""
    lines = []
    rows = read_rows(results, "text-labels")
    for (dataset,), own in grouped(rows, "dataset").items():
        by_finder = grouped(own, "finder")
        for (name,) in sorted(by_finder, key=lambda key: -_mean(by_finder[key], "auroc")):
            cells = []
            for key, scale, digits in (
                ("auroc", 1, 4), ("f1", 1, 3), ("estimated_noise_rate", 100, 1)
            ):  # fmt: skip
                values = [scale * row[key] for row in by_finder[name,]]
                cells.append(interval_text(*mean_interval(values), digits))
            lines.append([dataset, f"{own[0]['texts']:,}", str(own[0]["classes"]), name, *cells])
    columns = ("texts", "of them", "classes", "finder", "AUROC", "F1", "estimated (%)")
    return markdown(columns, lines, left=4) if lines else ""


def finders_against_best(results: Path) -> str:
    """Ours less the best rival of each cell and measure, seed by seed."""
    lines = []
    for dataset, labels, by_finder in _cells(results):
        rivals = [key for key in by_finder if key[0] not in OWN]
        if ("ours",) not in by_finder or not rivals or by_finder["ours",][0]["auroc"] is None:
            continue
        line = [dataset, labels]
        for key, digits in (("auroc", 4), ("f1", 3)):
            best = max(rivals, key=lambda rival: _mean(by_finder[rival], key))
            pair = paired(by_finder["ours",], by_finder[best], key)
            difference = paired_difference(*pair)
            text = interval_text(difference.difference, difference.ci95, digits, sign=True)
            verdict = difference.verdict
            line += [best[0]]
            line += [f"{text} ({verdict})" if verdict in ("better", "worse") else text]
        lines.append(line)
    columns = (
        "data",
        "wrong labels (%)",
        "best AUROC",
        "ours less it",
        "best F1",
        "ours less it",
    )
    return markdown(columns, lines, left=2) if lines else ""


def finders_given_rate(results: Path) -> str:
    """F1 where the share of wrong labels is known: ours less SimiFeat's rank, seed by seed."""
    lines = []
    for dataset, labels, by_finder in _cells(results):
        own, rival = by_finder.get(("ours-rate-given",)), by_finder.get(("simifeat-rank",))
        if own is None or rival is None or own[0]["f1"] is None:
            continue
        difference = paired_difference(*paired(own, rival, "f1"))
        text = interval_text(difference.difference, difference.ci95, 3, sign=True)
        verdict = difference.verdict
        text += f" ({verdict})" if verdict in ("better", "worse") else ""
        means = (f"{_mean(rows, 'f1'):.3f}" for rows in (own, rival))
        lines.append([dataset, labels, *means, text])
    columns = ("data", "wrong labels (%)", "F1 of ours", "F1 of simifeat-rank", "difference")
    return markdown(columns, lines, left=2) if lines else ""


def judging_scale(results: Path) -> str:
    """What judging labels costs as the examples grow, without neighbors."""
    lines = []
    rows = read_rows(results, "judging-scale")
    for row in rows:
        each = 1e6 * row["processor_seconds"] / row["n"]
        lines.append(
            [
                f"{row['n']:,}",
                f"{row['processor_seconds']:,.1f}",
                f"{each:,.0f}",
                f"{row['peak_bytes'] / 2**30:.2f}",
            ]
        )
    columns = (
        *("examples", "processor seconds", "for a million examples"),
        "memory beside the mapped store (GiB)",
    )
    return f"{markdown(columns, lines)}\n\n{straight_line(rows)}" if lines else ""


def straight_line(rows: list[Row]) -> str:
    """The straight line that is nearest to the seconds, each by its share, in a sentence."""
    seconds = np.array([row["processor_seconds"] for row in rows])
    terms = np.stack([np.ones(len(rows)), [row["n"] / 1e6 for row in rows]], axis=1)
    fixed, each = np.linalg.lstsq(terms / seconds[:, None], np.ones(len(rows)), rcond=None)[0]
    off = np.abs(terms @ (fixed, each) / seconds - 1).max()
    return (
        f"A straight line through these, {fixed:.2f} s and {each:.1f} s for each million "
        f"examples, is nowhere off by more than {100 * off:.0f}%."
    )


def judging_speed(results: Path) -> str:
    """How long judging takes beside the votes of exact neighbors, in a sentence."""
    rows = read_rows(results, "judging-speed")
    if not rows:
        return ""
    ratio = rows[-1]
    used = {
        name: statistics.fmean(row["processor_seconds"] for row in found)
        for (name,), found in grouped(rows[:-1], "finder").items()
    }
    often = "once" if ratio["rounds"] == 1 else f"{ratio['rounds']} times"
    return (
        f"Of {ratio['n']:,} examples with {ratio['width']:,} features, judged in turn with "
        f"the votes of exact neighbors on one thread, {often} each: "
        f"{used['judge_labels']:.0f} processor seconds against {used['coherence']:.0f}, "
        f"{ratio['ratio_of_processor_seconds']:.2f} of them "
        f"({ratio['ratio_of_seconds']:.2f} by the clock)."
    )


TABLES = {
    "judging-scale": judging_scale,
    "judging-speed": judging_speed,
    "finders": finders,
    "text-finders": text_finders,
    "finders-against-best": finders_against_best,
    "finders-given-rate": finders_given_rate,
}
