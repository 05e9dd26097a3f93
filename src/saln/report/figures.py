"""A run's curves, differences, seconds and final weights (figures 9 and 10 of the paper)."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from saln.experiments.arm import BASELINES
from saln.experiments.rows import SPLITS, rows_of_arm
from saln.report.number_text import number_text
from saln.report.reported_run import ReportedRun
from saln.report.values import Bars, Figure, HeatMap, IntervalCurve, Intervals, Panel
from saln.training.cost_ledger import ONCE, PHASES

_X_LABELS = {
    "epoch": "epoch",
    "seconds": "seconds of load, score, select and train",
    "steps": "gradient steps",
    "examples_backward": "examples with a gradient",
}
# A name of a file for people, where a row's is another.
_FILES = {"examples_backward": "gradients"}
# Of the distribution of weights.
BINS = 60


def _series(run: ReportedRun, metric: str, x: str) -> tuple[IntervalCurve, ...]:
    curves = []
    for arm in dict.fromkeys(row.arm for row in run.rows):
        seeds = list(rows_of_arm(run.rows, arm).values())
        # A seed that was stopped has fewer epochs than the others.
        seeds = [epochs[: min(map(len, seeds))] for epochs in seeds]
        values = np.array(
            [[getattr(row, metric) for row in epochs] for epochs in seeds], dtype=np.float64
        )
        # Epochs that were not evaluated have None, which is NaN here.
        measured = ~np.isnan(values).any(axis=0)
        if not measured.any():
            continue
        if x == "seconds":
            spent = [[row.seconds.spent for row in epochs] for epochs in seeds]
            places = np.cumsum(np.array(spent), axis=1).mean(axis=0)
        else:
            places = np.array([getattr(row, x) for row in seeds[0]])  # the same with every seed
        curves.append(IntervalCurve.over(arm, places[measured].tolist(), values[:, measured]))
    return tuple(curves)


def curve(run: ReportedRun, split: str, what: str, x: str) -> Figure | None:
    """A metric of a split over what it cost; None for a run without rows."""
    if not run.rows:
        return None
    curves = _series(run, f"{split}_{what}", x)
    ends = "; ".join(f"{c.arm} ends at {c.y[-1]:.3f}" for c in curves)
    title = f"{split.capitalize()} {what} over {_X_LABELS[x].split(' of ')[0]}"
    return Figure(
        f"{split}_{what}_over_{_FILES.get(x, x)}",
        title,
        _X_LABELS[x],
        "accuracy" if what == "accuracy" else "cross-entropy",
        curves,
        f"{title}: one line an arm, mean over seeds with their range. {ends}.",
    )


def wrong_labels(run: ReportedRun) -> Figure | None:
    """How many of the kept have wrong labels; None where nobody knows."""
    if not run.rows or not run.summary.knows_truth:
        return None
    return Figure(
        "wrong_labels_over_epoch",
        "Wrong labels among the kept over epoch",
        "epoch",
        "share of wrong labels",
        _series(run, "wrong_label_share_kept", "epoch"),
        "Share of wrong labels among the examples that got a gradient: one line an arm.",
    )


def difference(run: ReportedRun, baseline: str) -> Intervals | None:
    """The difference of every arm to a baseline; None where that was not run."""
    compared = ((arm, each.versus(baseline)) for arm, each in run.summary.finished.items())
    against = {arm: gain for arm, gain in compared if gain is not None}
    if not against:
        return None
    ends = [(None, None) if v.ci95 is None else v.ci95 for v in against.values()]
    title = f"Test accuracy against {baseline} after as many epochs"
    said = "; ".join(
        f"{arm} {number_text(100 * v.difference, sign=True)}, {v.verdict}"
        for arm, v in against.items()
    )
    return Intervals(
        f"difference_to_{baseline}",
        title,
        "points of test accuracy, with 95% interval over seeds",
        tuple(against),
        tuple(100 * v.difference for v in against.values()),
        tuple(None if low is None else 100 * low for low, _ in ends),
        tuple(None if high is None else 100 * high for _, high in ends),
        f"{title}, in points: {said}.",
    )


def seconds(run: ReportedRun) -> Bars | None:
    """Where the seconds of every arm went; None where every arm was stopped."""
    spent = {arm: entry.seconds for arm, entry in run.summary.finished.items()}
    if not spent:
        return None
    values = {
        name: tuple(getattr(each, name) for each in spent.values()) for name in (*ONCE, *PHASES)
    }
    # A phase that no arm has would be an empty entry of the legend.
    parts = tuple(name for name, each in values.items() if max(each) > 0)
    totals = "; ".join(f"{arm} {each.total:.1f}" for arm, each in spent.items())
    return Bars(
        "seconds",
        "Where the seconds of a run went",
        "seconds, mean over seeds",
        tuple(spent),
        parts,
        tuple(values[name] for name in parts),
        f"Seconds by phase, one stacked bar an arm. In all: {totals}.",
    )


def _spread(weights: Mapping[str, npt.NDArray[np.float32]]) -> str:
    """The same in words."""
    said = "; ".join(f"{arm} {values.std():.3f}" for arm, values in weights.items())
    return f"Standard deviations: {said}."


def weight_map(run: ReportedRun) -> HeatMap | None:
    """The weights, one panel an arm; None without checkpoints."""
    weights = run.final_weights
    if not weights:
        return None
    title = "Weights of the final layer, first seed"
    return HeatMap(
        "final_layer", title, "input feature", "class", (), (),
        tuple(Panel(arm, tuple(map(tuple, values.tolist()))) for arm, values in weights.items()),
        0.0, f"{title}: a row a class, a column an input. {_spread(weights)}",
    )  # fmt: skip


def weight_distribution(run: ReportedRun) -> Figure | None:
    """How the weights are distributed, one line an arm; None without checkpoints."""
    weights = run.final_weights
    if not weights:
        return None
    # The same bins for all arms, else their shares could not be compared.
    reach = max(float(np.abs(values).max()) for values in weights.values()) or 1.0
    edges = np.linspace(-reach, reach, BINS + 1)
    middles = ((edges[1:] + edges[:-1]) / 2).tolist()
    curves = tuple(
        IntervalCurve.over(arm, middles, np.histogram(values, edges)[0][None] / values.size)
        for arm, values in weights.items()
    )
    title = "Distribution of the final layer's weights"
    return Figure(
        "final_layer_distribution", title, "weight", "share of the weights", curves,
        f"{title}: one line an arm. {_spread(weights)}",
    )  # fmt: skip


# Against the control first: it is what the page begins with.
DIFFERENCES = tuple(functools.partial(difference, baseline=label) for label in BASELINES)
CURVES = tuple(
    functools.partial(curve, split=split, what=what, x=x)
    for split, what, x in (
        *(("test", "accuracy", x) for x in ("seconds", "steps", "examples_backward")),
        *((split, what, "epoch") for what in ("accuracy", "loss") for split in SPLITS),
    )
)
