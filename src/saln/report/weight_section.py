"""The final layer's weights of every trained network (figures 9 and 10 of the paper)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from saln.report.reported_run import ReportedRun
from saln.report.values import Figure, HeatMap, IntervalCurve, Panel

BINS = 60


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
