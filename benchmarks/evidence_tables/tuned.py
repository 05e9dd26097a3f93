"""The study whose arms were tuned: from scratch, each arm at its own best learning rate."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from evidence_tables.criteria import NOISES
from evidence_tables.rows import (
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
from evidence_tables.study import NONE_YET

__all__ = ["FINAL", "TABLES", "TUNING", "study_table"]

TUNING, FINAL = "tuning", "final"
RULE = "balanced-curriculum+targets(beliefs=0.3,features=0.3)"
ROBUST = ("uniform+gce", "uniform+smoothing")
# What the loss of an arm looks at, beside its selector.
OBJECTIVE = ("beliefs", "features", "smoothing", "robust")

# The rows of each arm on one kind of labels.
Arms = dict[str, list[Row]]


def _cells(rows: Sequence[Row]) -> dict[str, Arms]:
    """Tested rows by kind of labels in words, and by arm."""
    cells: dict[str, Arms] = {}
    for (noise, asked, arm), found in grouped(
        [row for row in rows if row["stage"] == FINAL], "noise", "asked_rate", "arm"
    ).items():
        labels = f"{NOISES[noise]}, {100 * asked:.0f}%" if asked else NOISES[noise]
        cells.setdefault(labels, {})[arm] = found
    order = list(NOISES.values())
    return dict(sorted(cells.items(), key=lambda cell: order.index(cell[0].partition(",")[0])))


def _accuracies(rows: Sequence[Row]) -> list[float]:
    return [row["test_accuracy"] for row in rows]


def _mean(rows: Sequence[Row]) -> float:
    return statistics.fmean(_accuracies(rows))


def _less(arms: Arms, arm: str, other: str | None) -> str:
    """An arm less another, in points; a dash where either is not there."""
    if other is None or arm == other or arm not in arms or other not in arms:
        return NOTHING
    return versus(paired(arms[arm], arms[other], "test_accuracy"))


def _control(arms: Arms, arm: str) -> str | None:
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


def _robust(arms: Arms) -> str | None:
    """The robust loss that came out better in the test: in favor of the rival."""
    there = [name for name in ROBUST if name in arms]
    return max(there, key=lambda name: _mean(arms[name])) if there else None


def study_table(rows: Sequence[Row]) -> str:
    """Each arm at the learning rate that was chosen for it, the best first, beside two controls.

    The controls are ``uniform``, and ``uniform`` with the arm's own targets, so that what
    targets give and what choosing gives are told apart.
    """
    tried = grouped([row for row in rows if row["stage"] == TUNING], "noise", "asked_rate", "arm")
    lines = []
    for labels, arms in _cells(rows).items():
        for arm, own in sorted(arms.items(), key=lambda entry: -_mean(entry[1])):
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
                    percent(_accuracies(own)),
                    _less(arms, arm, "uniform"),
                    _less(arms, arm, _control(arms, arm)),
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
    cells = _cells(_rows(results))
    if not cells:
        return NONE_YET

    def line(name: str, found: Sequence[list[Row] | None]) -> list[str]:
        return [name, *(percent(_accuracies(of)) if of else NOTHING for of in found)]

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
    robust = [arms.get(_robust(arms) or "") for arms in cells.values()]
    lines.insert(2, line("the same with a robust loss or smoothed labels, the better", robust))
    return markdown(("trained on", *cells), lines)


def _rivals(arms: Arms) -> dict[str, str | None]:
    return {
        "`uniform`": "uniform",
        "`uniform` with the same targets: what choosing gives": _control(arms, RULE),
        "`uniform+targets`, which chooses nothing": "uniform+targets",
        "`uniform` with a robust loss or smoothed labels, the better": _robust(arms),
        "`coherence`": "coherence",
        "`coherence(judge=labels,power=4)`": "coherence(judge=labels,power=4)",
        "`oracle`, a random choice of right labels": "oracle",
        "`standard`, five times the steps": "standard",
    }


def rule(results: Path) -> str:
    """The rule less each rival."""
    cells = _cells(_rows(results))
    if not cells:
        return NONE_YET
    rivals = {labels: _rivals(arms) for labels, arms in cells.items()}
    lines = [
        [name, *(_less(arms, RULE, rivals[labels][name]) for labels, arms in cells.items())]
        for name in next(iter(rivals.values()))
    ]
    return markdown((f"`{RULE}` less", *cells), lines)


def in_words(results: Path) -> str:
    """What the rule gives and what it does not, in sentences."""
    parts = []
    for labels, arms in _cells(_rows(results)).items():
        if RULE not in arms:
            continue
        against = {
            name: _less(arms, RULE, other)
            for name, other in (
                ("uniform", "uniform"),
                ("control", _control(arms, RULE)),
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


def fallen(results: Path) -> str:
    """What was claimed of ``coherence`` in untuned probes, and what the tuned study gives."""
    probe = [
        row
        for row in read_rows(results, "criteria-probe")
        if (row["dataset"], row["noise"], row["asked_rate"]) == ("cifar10", "symmetric", 0.4)
    ]
    arms = {name: found for (name,), found in grouped(probe, "selector").items()}
    lines = [
        "- **Claimed**, from linear probes on CIFAR-10 with 40% of the labels replaced at random: "
        f"`coherence` is {_less(arms, 'coherence', 'uniform')} points from `uniform`, and "
        f"{_less(arms, 'coherence', 'standard')} from `standard` at five times the steps."
    ]
    for labels, found in _cells(_rows(results)).items():
        lines.append(
            f"- **From scratch and tuned, {labels}**: `coherence` is "
            f"{_less(found, 'coherence', 'uniform')} points from `uniform` and "
            f"{_less(found, 'coherence', 'standard')} from `standard`; `uniform+targets`, which "
            f"chooses nothing, is {_less(found, 'uniform+targets', 'coherence')} from `coherence`; "
            f"`{RULE}` is {_less(found, RULE, 'coherence')} from it."
        )
    return "\n".join(lines)


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
    "tuned-fallen": fallen,
    "tuned-search": search,
}
