"""The table to choose a selector by, and the page of all methods: from registry and rows."""

from __future__ import annotations

import statistics
from pathlib import Path

from evidence_tables.criteria import DATASETS
from evidence_tables.rows import NOTHING, Row, paired, read_rows, versus, wrong_kept
from evidence_tables.rows import markdown as table
from saln.selection import SELECTORS

__all__ = ["TABLES"]

ROWS = "criteria-selectors"
CONDITIONS = (("clean", 0.0), ("symmetric", 0.4))
# What a field costs its user, beside the features that most criteria share.
NEEDS = {
    "features": "features",
    "labels": "labels",
    "believed": "features and labels, once",
    "difficulty": "features and labels, once",
    "teacher_losses": "features and labels, once",
    "label_confidence": "features and labels, once",
    "learner_outputs": "a forward pass of all candidates",
    "learner_losses": "a forward pass of all candidates",
    "reference_outputs": "a reference model",
    "reference_losses": "a reference model",
}
WHEN = {
    "uniform": "always, as the control",
    "rs2": "to see every example equally often",
    "infobatch": "clean labels, many epochs",
    "saln": "to repeat the paper; it keeps outliers",
    "k-center": "to cover rare examples, where labels are right",
    "facility-location": "to keep typical examples, where forward passes are dear",
    "top-loss": "clean labels and a cheap network",
    "rho-loss": "wrong labels, and clean data for a reference model",
    "jest": "image-text pairs, with a good reference model",
    "coherence": "labels that may be wrong, in a training of any length",
    "balanced-curriculum": "clean labels or wrong ones, many epochs: the one to try first",
    "curriculum": "to see what the order alone gives",
    "remembered-loss": "to see what the highest losses give without a scoring pass",
    "reducible": "as rho-loss, where neither a reference model nor a scoring pass is wanted",
    "herding": "clean labels, few kept: the batch stands for the candidates' mean",
    "divbs": "clean labels, few kept of many alike, and a cheap network",
    "small-loss": "wrong labels and a cheap network",
    "cleanlab-pruned": "as a rival, where labels may be wrong",
    "coherence-batch": "the same, where the whole data set cannot be searched",
}


def _needs(name: str) -> str:
    found = {NEEDS[field] for field in sorted(SELECTORS[name].requires)}
    return ", ".join(sorted(found)) or "nothing"


def _rows(results: Path, dataset: str, noise: str, rate: float, name: str) -> list[Row]:
    return [
        row
        for row in read_rows(results, ROWS)
        if (row["dataset"], row["noise"], row["asked_rate"], row.get("selector"))
        == (dataset, noise, rate, name)
    ]


def _gain(results: Path, dataset: str, noise: str, rate: float, name: str) -> str:
    own, base = (_rows(results, dataset, noise, rate, arm) for arm in (name, "uniform"))
    return NOTHING if name == "uniform" else versus(paired(own, base, "test_accuracy"))


def _extra_milliseconds(results: Path, name: str) -> str:
    """What a step of the probe takes beyond one with uniform, one-off work spread over it."""
    extra = []
    for dataset in DATASETS:
        for noise, rate in CONDITIONS:
            own, base = (_rows(results, dataset, noise, rate, arm) for arm in (name, "uniform"))
            sessions = {row["session"] for row in base}
            pair = paired([row for row in own if row["session"] in sessions], base, "seconds")
            extra += [
                1000 * (mine - other) / own[0]["steps"]
                for mine, other in zip(pair.values, pair.baseline, strict=True)
            ]
    return f"{statistics.median(extra):.1f}" if extra else NOTHING


def _link(name: str) -> str:
    return f"[`{name}`](methods.md#{name})"


def selectors(_: Path) -> str:
    """Every registered selector: what it needs, and when to take it."""
    lines = [
        [
            _link(name),
            _needs(name),
            "before" if selector.chooses_before_loading() else "after",
            WHEN.get(name, NOTHING),
        ]
        for name, selector in SELECTORS.items()
    ]
    columns = ("selector", "needs", "chooses before or after loading", "when to use it")
    return table(columns, lines, left=4)


def measured(results: Path) -> str:
    """Every measured selector against uniform, and what it costs."""
    lines = []
    for name in SELECTORS:
        gains = [
            _gain(results, dataset, *condition, name)
            for dataset in DATASETS
            for condition in CONDITIONS
        ]
        if name != "uniform" and any(gain != NOTHING for gain in gains):
            lines.append([_link(name), *gains, _extra_milliseconds(results, name)])
    columns = (
        *("selector", "pets, clean", "pets, 40% wrong", "CIFAR-10, clean"),
        *("CIFAR-10, 40% wrong", "extra ms a step"),
    )
    return table(columns, lines)


def _measured(results: Path, name: str) -> str:
    lines = []
    for dataset in DATASETS:
        for noise, rate in CONDITIONS:
            rows = _rows(results, dataset, noise, rate, name)
            if rows:
                lines.append(
                    [
                        DATASETS[dataset],
                        f"{100 * rate:.0f}% wrong" if rate else "clean",
                        f"{100 * statistics.fmean(row['test_accuracy'] for row in rows):.1f}",
                        _gain(results, dataset, noise, rate, name),
                        wrong_kept(rows, rate),
                    ]
                )
    if not lines:
        return "Not in the stored probes."
    columns = (
        *("data", "labels", "test accuracy (%)"),
        *("against uniform (points)", "wrong labels kept (%)"),
    )
    return table(columns, lines, left=2)


def methods(results: Path) -> str:
    """Every registered selector's docstring, for the site to draw, and its rows."""
    parts = []
    for name, selector in SELECTORS.items():
        target = f"{selector.__module__}.{selector.__name__}"
        options = (
            "    options: {show_root_heading: false, show_root_toc_entry: false, members: false}"
        )
        parts += [f"## `{name}` {{: #{name} }}", f"::: {target}\n{options}"]
        parts += ["Linear probes, five seeds:", _measured(results, name)]
    return "\n\n".join(parts)


TABLES = {"selectors": selectors, "selectors-measured": measured, "methods": methods}
