"""The table to choose a selector by, and the page of all methods: from registry and rows."""

from __future__ import annotations

import statistics
from pathlib import Path

from evidence_tables.probe import probe_cells
from evidence_tables.rows import NONE_YET, NOTHING, percent, wrong_kept
from evidence_tables.rows import markdown as table
from evidence_tables.tuned import accuracies, less
from saln.selection import SELECTORS

__all__ = ["TABLES"]

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
    "uniform": "always, as the baseline",
    "rs2": "to see every example equally often",
    "infobatch": "clean labels, many epochs",
    "saln": "to repeat the paper; it keeps outliers",
    "k-center": "to cover rare examples, where labels are right",
    "facility-location": "to keep typical examples, where forward passes are expensive",
    "top-loss": "clean labels and a cheap network",
    "rho-loss": "wrong labels, and clean data for a reference model",
    "jest": "image-text pairs, with a good reference model",
    "coherence": "labels that may be wrong, in a training of any length",
    "balanced-curriculum": "clean or wrong labels, many epochs: try this one first",
    "curriculum": "to see the effect of the order alone",
    "remembered-loss": "to see the effect of high losses, without a scoring pass",
    "reducible": "as rho-loss, without a reference model and a scoring pass",
    "herding": "clean labels, few kept: the batch represents the candidates' mean",
    "divbs": "clean labels, few kept of many similar ones, and a cheap network",
    "small-loss": "to compare with, where labels may be wrong",
    "cleanlab-pruned": "to compare with, where labels may be wrong",
    "feature-density": "to compare with: rare examples, where labels are right",
    "coherence-batch": "the same, if the whole data set cannot be searched",
}


def _needs(name: str) -> str:
    found = {NEEDS[field] for field in sorted(SELECTORS[name].requires)}
    return ", ".join(sorted(found)) or "nothing"


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
    """Every selector that the tuned probes have, against uniform, and what choosing costs."""
    cells = probe_cells(results)
    columns = [f"{data}, {labels}" for data, labels, _ in cells]
    lines = []
    for name in SELECTORS:
        gains = [less(arms, name, "uniform") for _, _, arms in cells]
        if name != "uniform" and any(gain != NOTHING for gain in gains):
            found = [
                row["choosing_ms_per_step"] for _, _, arms in cells for row in arms.get(name, [])
            ]
            lines.append([_link(name), *gains, f"{statistics.median(found):.1f}"])
    return table(("selector", *columns, "choosing, ms a step"), lines) if lines else NONE_YET


def _measured(results: Path, name: str) -> str:
    lines = [
        [
            data,
            labels,
            percent(accuracies(arms[name])),
            less(arms, name, "uniform"),
            wrong_kept(arms[name], arms[name][0]["asked_rate"]),
        ]
        for data, labels, arms in probe_cells(results)
        if name in arms
    ]
    if not lines:
        return "Not in the stored probes."
    columns = (
        *("data", "wrong labels", "test accuracy (%)"),
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
        parts += ["Tuned linear probes, five seeds:", _measured(results, name)]
    return "\n\n".join(parts)


TABLES = {"selectors": selectors, "selectors-measured": measured, "methods": methods}
