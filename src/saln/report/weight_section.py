"""The final layer's weights of every trained network (figures 9 and 10 of the paper)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from saln.errors import DataError
from saln.report.values import Drawing, Figure, HeatMap, IntervalCurve, Panel

BINS = 60


def final_weights(folder: Path, summary: Mapping[str, Any]) -> dict[str, npt.NDArray[np.float32]]:
    """Arm -> float32, (classes, d), of the first seed; arms without a checkpoint are left out.

    Raises:
        DataError: A checkpoint is broken.
    """
    import torch  # a second or two, for a page that may have no checkpoints

    found = {}
    for arm, entry in summary["arms"].items():
        path = folder / "checkpoints" / f"{arm}-seed{summary['seeds'][0]}.pt"
        if "error" in entry or not path.exists():
            continue
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            heads = [
                value.flatten(1)  # a head may be a convolution of one pixel
                for value in state.values()
                if value.ndim >= 2 and len(value) == summary["classes"]
            ]
        except Exception as error:  # a broken file raises anything from EOFError to KeyError
            raise DataError(
                f"{path} cannot be read ({type(error).__name__}); put the file back, or remove it "
                "to draw the report without its weights"
            ) from error
        if heads:
            found[arm] = heads[-1].float().numpy()
    return found


def weight_figures(weights: Mapping[str, npt.NDArray[np.float32]]) -> tuple[Drawing, ...]:
    """The heat map, one panel an arm, and the distribution, one line an arm."""
    if not weights:
        return ()
    panels = tuple(
        Panel(arm, tuple(tuple(row) for row in values.tolist())) for arm, values in weights.items()
    )
    spread = "; ".join(f"{arm} {values.std():.3f}" for arm, values in weights.items())
    reach = max(float(np.abs(values).max()) for values in weights.values()) or 1.0
    edges = np.linspace(-reach, reach, BINS + 1)
    middles = tuple(((edges[1:] + edges[:-1]) / 2).tolist())
    curves = []
    for arm, values in weights.items():
        shares = tuple((np.histogram(values, edges)[0] / values.size).tolist())
        curves.append(IntervalCurve(arm, middles, shares, shares, shares))
    title = "Weights of the final layer, first seed"
    return (
        HeatMap(
            "final_layer", title, "input feature", "class", (), (), panels, 0.0,
            f"{title}: a row a class, a column an input. Standard deviations: {spread}.",
        ),
        Figure(
            "final_layer_distribution", "Distribution of the final layer's weights", "weight",
            "share of the weights", tuple(curves),
            f"Distribution of the final layer's weights: one line an arm. Standard deviations: "
            f"{spread}.",
        ),
    )  # fmt: skip
