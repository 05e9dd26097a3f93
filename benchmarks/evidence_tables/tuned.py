"""The study whose arms were tuned: from scratch, each arm at its own best learning rate."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from evidence_tables.criteria import NOISES
from evidence_tables.rows import (
    NONE_YET,
    NOTHING,
    Row,
    grouped,
    markdown,
    paired,
    percent,
    read_rows,
    versus,
    wrong_kept,
)

__all__ = [
    "FINAL",
    "RULE",
    "STANDARD_RULE",
    "TABLES",
    "TUNING",
    "Arms",
    "accuracies",
    "best_robust",
    "cells_of",
    "control",
    "less",
    "mean_accuracy",
    "rule_table",
    "study_table",
]

TUNING, FINAL = "tuning", "final"
RULE = "balanced-curriculum+targets(beliefs=0.3,features=0.3)"
STANDARD_RULE = RULE.replace("balanced-curriculum", "standard")
ROBUST = ("uniform+gce", "uniform+smoothing")
# What the loss of an arm looks at, beside its selector.
OBJECTIVE = ("beliefs", "features", "smoothing", "robust")

# The rows of each arm on one kind of labels.
Arms = dict[str, list[Row]]


def cells_of(rows: Sequence[Row]) -> dict[str, Arms]:
    """Tested rows by kind of labels in words, the fewest wrong ones first, and by arm."""
    cells: dict[str, Arms] = {}
    kinds = list(NOISES)
    tested = grouped([row for row in rows if row["stage"] == FINAL], "noise", "asked_rate", "arm")
    for noise, asked, arm in sorted(tested, key=lambda key: (kinds.index(key[0]), key[1])):
        labels = f"{NOISES[noise]}, {100 * asked:.0f}%" if asked else NOISES[noise]
        cells.setdefault(labels, {})[arm] = tested[noise, asked, arm]
    return cells


def accuracies(rows: Sequence[Row]) -> list[float]:
    """Of the test images, seed by seed."""
    return [row["test_accuracy"] for row in rows]


def mean_accuracy(rows: Sequence[Row]) -> float:
    """Over the seeds."""
    return statistics.fmean(accuracies(rows))


def less(arms: Arms, arm: str, other: str | None) -> str:
    """An arm less another, in points; a dash where either is not there."""
    if other is None or arm == other or arm not in arms or other not in arms:
        return NOTHING
    return versus(paired(arms[arm], arms[other], "test_accuracy"))


def control(arms: Arms, arm: str) -> str | None:
    """The arm that chooses at random and trains on the same soft targets."""
    own = arms[arm][0]
    if not own["beliefs"] + own["features"]:
        return None
    alike = (
        name
        for name, (first, *_) in arms.items()
        if first["selector"] == "uniform" and all(first[key] == own[key] for key in OBJECTIVE)
    )
    return next(alike, None)


def best_robust(arms: Arms) -> str | None:
    """The robust loss that came out better in the test: in favor of the rival."""
    there = [name for name in ROBUST if name in arms]
    return max(there, key=lambda name: mean_accuracy(arms[name])) if there else None


def study_table(rows: Sequence[Row]) -> str:
    """Each arm at the learning rate that was chosen for it, the best first, beside two controls.

    The controls are ``uniform``, and ``uniform`` with the arm's own targets, so that the
    gain of targets and the gain of choosing are shown separately.
    """
    tried = grouped([row for row in rows if row["stage"] == TUNING], "noise", "asked_rate", "arm")
    lines = []
    for labels, arms in cells_of(rows).items():
        for arm, own in sorted(arms.items(), key=lambda entry: -mean_accuracy(entry[1])):
            first = own[0]
            trials = tried.get((first["noise"], first["asked_rate"], arm), own)
            rates = [row["learning_rate"] for row in trials]
            rate = first["learning_rate"]
            edge = " (edge)" if rate in (min(rates), max(rates)) else ""
            lines.append(
                [
                    labels,
                    f"`{arm}`",
                    f"{first['steps']:,}",
                    f"{rate:g}{edge}",
                    percent(accuracies(own)),
                    less(arms, arm, "uniform"),
                    less(arms, arm, control(arms, arm)),
                    wrong_kept(own, first["asked_rate"]),
                ]
            )
    columns = (
        *("wrong labels", "arm", "steps", "learning rate", "test accuracy (%)"),
        *("against uniform (points)", "against uniform with its targets (points)"),
        "wrong labels kept (%)",
    )
    return markdown(columns, lines, left=2)


def _rows(results: Path) -> list[Row]:
    return read_rows(results, "tuned-scratch")


def every_arm(results: Path) -> str:
    """The whole study."""
    rows = _rows(results)
    return study_table(rows) if rows else NONE_YET


def short(results: Path) -> str:
    """Six arms, a column a kind of labels: for the README."""
    cells = cells_of(_rows(results))
    if not cells:
        return NONE_YET

    def line(name: str, found: Sequence[list[Row] | None]) -> list[str]:
        return [name, *(percent(accuracies(of)) if of else NOTHING for of in found)]

    lines = [
        line(name, [arms.get(arm) for arms in cells.values()])
        for name, arm in (
            ("everything, five times the steps (`standard`)", "standard"),
            ("a random fifth (`uniform`)", "uniform"),
            ("a fifth, chosen by `coherence`", "coherence"),
            ("a random fifth of the right labels (`oracle`)", "oracle"),
            (f"a fifth, chosen by the rule (`{RULE}`)", RULE),
        )
    ]
    robust = [arms.get(best_robust(arms) or "") for arms in cells.values()]
    lines.insert(2, line("the same with a robust loss or smoothed labels, the better", robust))
    return markdown(("trained on", *cells), lines)


def _rivals(arms: Arms) -> dict[str, str | None]:
    return {
        "`uniform`": "uniform",
        "`uniform` with the same targets: what choosing gives": control(arms, RULE),
        "`uniform+targets`, which chooses nothing": "uniform+targets",
        "`uniform` with a robust loss or smoothed labels, the better": best_robust(arms),
        "`uniform+relabel`": "uniform+relabel",
        "`coherence`": "coherence",
        "`coherence(judge=neighbors)`": "coherence(judge=neighbors)",
        "`cleanlab-pruned`": "cleanlab-pruned",
        "`jest`": "jest",
        "`oracle`, a random choice of right labels": "oracle",
        "`standard`, which trains on everything": "standard",
        "`standard` with the same targets": STANDARD_RULE,
        "`standard+targets`": "standard+targets",
        "`standard+gce`": "standard+gce",
    }


def rule_table(cells: dict[str, Arms]) -> str:
    """The rule less each rival that any cell has: a column a cell, by what it is called."""
    rivals = {name: _rivals(arms) for name, arms in cells.items()}
    lines = [
        [rival, *(less(arms, RULE, rivals[name][rival]) for name, arms in cells.items())]
        for rival in next(iter(rivals.values()), ())
    ]
    lines = [line for line in lines if any(entry != NOTHING for entry in line[1:])]
    return markdown((f"`{RULE}` less", *cells), lines) if cells else NONE_YET


def rule(results: Path) -> str:
    """The rule less each rival."""
    return rule_table(cells_of(_rows(results)))


def in_words(results: Path) -> str:
    """What the rule gives and what it does not, in sentences."""
    parts = []
    for labels, arms in cells_of(_rows(results)).items():
        if RULE not in arms:
            continue
        against = {
            name: less(arms, RULE, other)
            for name, other in (
                ("uniform", "uniform"),
                ("control", control(arms, RULE)),
                ("oracle", "oracle"),
                ("standard", "standard"),
            )
        }
        words = (
            f"- **{labels}**: {against['uniform']} points against `uniform`; "
            f"{against['control']} against `uniform` with the same targets, which is what "
            "choosing gives"
        )
        if against["oracle"] != NOTHING:
            words += f"; {against['oracle']} against a random choice of right labels only"
        parts.append(f"{words}; {against['standard']} against `standard` at five times the steps.")
    return "\n".join(parts) or NONE_YET


def search(results: Path) -> str:
    """The tries on validation images that the rule was chosen by, the best mean first."""
    tries: dict[str, dict[str, float]] = {}
    for (arm, noise), found in grouped(
        read_rows(results, "tuned-scratch-search"), "arm", "noise"
    ).items():
        accuracies = [row["validation_accuracy"] for row in found]
        tries.setdefault(arm, {})[noise] = 100 * statistics.fmean(accuracies)
    if not tries:
        return NONE_YET
    noises = [noise for noise in NOISES if any(noise in of for of in tries.values())]
    lines = []
    for arm, of in sorted(tries.items(), key=lambda entry: -statistics.fmean(entry[1].values())):
        values = [*(of[noise] for noise in noises), statistics.fmean(of.values())]
        lines.append([f"`{arm}`", *(f"{value:.1f}" for value in values)])
    columns = ("arm", *(NOISES[noise] for noise in noises), "mean")
    return markdown(columns, lines)


TABLES = {
    "tuned": every_arm,
    "tuned-short": short,
    "tuned-rule": rule,
    "tuned-words": in_words,
    "tuned-search": search,
}
