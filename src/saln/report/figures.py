"""A run's curves, differences and seconds, as values."""

from __future__ import annotations

from typing import Any

import numpy as np

from saln.experiments.arm import BASELINES
from saln.report.values import Bars, Drawing, Figure, IntervalCurve, Intervals
from saln.training.cost_ledger import ONCE, PHASES

SPLITS = ("train", "validation", "test")


def _series(rows: list[dict[str, Any]], metric: str, x: str) -> tuple[IntervalCurve, ...]:
    arms = list(dict.fromkeys(row["arm"] for row in rows))
    curves = []
    for arm in arms:
        by_seed: dict[int, list[dict[str, Any]]] = {}
        for row in rows:
            if row["arm"] == arm:
                by_seed.setdefault(row["seed"], []).append(row)
        length = min(len(epochs) for epochs in by_seed.values())
        values = np.array(
            [[row[metric] for row in e[:length]] for e in by_seed.values()], dtype=np.float64
        )
        # --evaluate-every leaves epochs out: None, which is NaN here.
        measured = ~np.isnan(values).any(axis=0)
        if not measured.any():
            continue
        if x == "seconds":
            spent = [
                [sum(row["seconds"][p] for p in PHASES if p != "evaluate") for row in e[:length]]
                for e in by_seed.values()
            ]
            places = np.cumsum(np.array(spent), axis=1).mean(axis=0)
        else:
            places = np.array([row[x] for row in next(iter(by_seed.values()))[:length]])
        values, places = values[:, measured], places[measured]
        curves.append(
            IntervalCurve(
                arm,
                tuple(places.tolist()),
                tuple(values.mean(axis=0).tolist()),
                tuple(values.min(axis=0).tolist()),
                tuple(values.max(axis=0).tolist()),
            )
        )
    return tuple(curves)


# A name for people, where a row's is another.
_FILES = {"examples_backward": "gradients"}


def run_figures(rows: list[dict[str, Any]], *, truth: bool) -> tuple[Figure, ...]:
    """The curves of a run, from the rows of ``epochs.jsonl``.

    Args:
        rows: Of all arms and seeds.
        truth: Whether it is known which labels are wrong.
    """
    if not rows:
        return ()
    figures = []
    axes = {
        "epoch": "epoch",
        "seconds": "seconds of load, score, select and train",
        "steps": "gradient steps",
        "examples_backward": "examples with a gradient",
    }
    plans = [("test", "accuracy", x) for x in ("seconds", "steps", "examples_backward")]
    plans += [(split, what, "epoch") for what in ("accuracy", "loss") for split in SPLITS]
    for split, what, x in plans:
        curves = _series(rows, f"{split}_{what}", x)
        ends = "; ".join(f"{c.arm} ends at {c.y[-1]:.3f}" for c in curves)
        title = f"{split.capitalize()} {what} over {axes[x].split(' of ')[0]}"
        figures.append(
            Figure(
                f"{split}_{what}_over_{_FILES.get(x, x)}",
                title,
                axes[x],
                "accuracy" if what == "accuracy" else "cross-entropy",
                curves,
                f"{title}: one line an arm, mean over seeds with their range. {ends}.",
            )
        )
    if truth:
        figures.append(
            Figure(
                "wrong_labels_over_epoch",
                "Wrong labels among the kept over epoch",
                "epoch",
                "share of wrong labels",
                _series(rows, "wrong_label_share_kept", "epoch"),
                "Share of wrong labels among the examples that got a gradient: one line an arm.",
            )
        )
    return tuple(figures)


def summary_figures(summary: dict[str, Any]) -> tuple[Drawing, ...]:
    """The difference to the control with its interval, and where the seconds went."""
    arms = {arm: entry for arm, entry in summary["arms"].items() if "error" not in entry}
    figures: list[Drawing] = []
    for baseline in BASELINES:
        against = {arm: e[f"versus_{baseline}"] for arm, e in arms.items()}
        against = {arm: found for arm, found in against.items() if found is not None}
        if not against:
            continue
        ends = [
            (100 * v["ci95"][0], 100 * v["ci95"][1]) if v["ci95"] else (None, None)
            for v in against.values()
        ]
        said = "; ".join(
            f"{arm} {100 * v['difference']:+.1f}, {v['verdict']}" for arm, v in against.items()
        )
        title = f"Test accuracy against {baseline} after as many epochs"
        figures.append(
            Intervals(
                f"difference_to_{baseline}",
                title,
                "points of test accuracy, with 95% interval over seeds",
                tuple(against),
                tuple(100 * v["difference"] for v in against.values()),
                tuple(low for low, _ in ends),
                tuple(high for _, high in ends),
                f"{title}, in points: {said}.",
            )
        )
    if arms:
        parts = [
            name for name in (*ONCE, *PHASES) if any(e["seconds"][name] > 0 for e in arms.values())
        ]
        totals = "; ".join(f"{arm} {e['seconds']['total']:.1f}" for arm, e in arms.items())
        figures.append(
            Bars(
                "seconds",
                "Where the seconds of a run went",
                "seconds, mean over seeds",
                tuple(arms),
                tuple(parts),
                tuple(tuple(e["seconds"][name] for e in arms.values()) for name in parts),
                f"Seconds by phase, one stacked bar an arm. In all: {totals}.",
            )
        )
    return tuple(figures)
