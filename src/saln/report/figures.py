"""A run's figures: curves as values, then as SVG."""

from __future__ import annotations

import io
from typing import Any, NamedTuple

import numpy as np

from saln.training.ledger import PHASES

__all__ = ["Curve", "Figure", "draw", "run_figures"]

# Okabe and Ito's colours, which colour-blind readers can tell apart.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#8C6D31", "#000000")
SPLITS = ("train", "validation", "test")


class Curve(NamedTuple):
    """One arm's line: means over seeds, and the seeds' range."""

    arm: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


class Figure(NamedTuple):
    """What is drawn.

    Attributes:
        name: File name without its ending.
        title: What it shows.
        x_label: With unit.
        y_label: With unit.
        curves: One an arm.
        description: The same in words, for those who cannot see it.
    """

    name: str
    title: str
    x_label: str
    y_label: str
    curves: tuple[Curve, ...]
    description: str


def _series(rows: list[dict[str, Any]], metric: str, x: str) -> tuple[Curve, ...]:
    arms = list(dict.fromkeys(row["arm"] for row in rows))
    curves = []
    for arm in arms:
        by_seed: dict[int, list[dict[str, Any]]] = {}
        for row in rows:
            if row["arm"] == arm:
                by_seed.setdefault(row["seed"], []).append(row)
        length = min(len(epochs) for epochs in by_seed.values())
        values = np.array([[row[metric] for row in e[:length]] for e in by_seed.values()])
        if x == "seconds":
            spent = [
                [sum(row["seconds"][p] for p in PHASES if p != "evaluate") for row in e[:length]]
                for e in by_seed.values()
            ]
            places = np.cumsum(np.array(spent), axis=1).mean(axis=0)
        else:
            places = np.array([row[x] for row in next(iter(by_seed.values()))[:length]])
        curves.append(
            Curve(
                arm,
                tuple(places.tolist()),
                tuple(values.mean(axis=0).tolist()),
                tuple(values.min(axis=0).tolist()),
                tuple(values.max(axis=0).tolist()),
            )
        )
    return tuple(curves)


def run_figures(rows: list[dict[str, Any]]) -> tuple[Figure, ...]:
    """The curves of a run, from the rows of ``epochs.jsonl``."""
    if not rows:
        return ()
    figures = []
    axes = {
        "epoch": "epoch",
        "seconds": "seconds of load, score, select and train",
        "steps": "gradient steps",
    }
    plans = [("test", "accuracy", x) for x in ("seconds", "steps")]
    plans += [(split, what, "epoch") for what in ("accuracy", "loss") for split in SPLITS]
    for split, what, x in plans:
        curves = _series(rows, f"{split}_{what}", x)
        ends = "; ".join(f"{c.arm} ends at {c.y[-1]:.3f}" for c in curves)
        title = f"{split.capitalize()} {what} over {axes[x].split(' of ')[0]}"
        figures.append(
            Figure(
                f"{split}_{what}_over_{x}",
                title,
                axes[x],
                "accuracy" if what == "accuracy" else "cross-entropy",
                curves,
                f"{title}: one line an arm, mean over seeds with their range. {ends}.",
            )
        )
    return tuple(figures)


def draw(figure: Figure, arms: tuple[str, ...]) -> str:
    """Draws a figure as SVG text. ``arms`` fixes each arm's colour across figures."""
    import matplotlib

    # The object interface alone: pyplot would keep every figure and pick a window system.
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure as Canvas

    style: Any = {"svg.hashsalt": figure.name, "svg.fonttype": "path", "font.size": 10}
    with matplotlib.rc_context(style):
        canvas = Canvas(figsize=(6.4, 4.0), layout="constrained")
        FigureCanvasSVG(canvas)
        axes = canvas.add_subplot()
        for curve in figure.curves:
            again, number = divmod(arms.index(curve.arm), len(COLOURS))
            colour, line = COLOURS[number], ("-", "--", ":")[again % 3]
            axes.plot(
                curve.x, curve.y, line, color=colour, label=curve.arm, linewidth=1.8, marker="."
            )
            if curve.low != curve.high:
                axes.fill_between(curve.x, curve.low, curve.high, color=colour, alpha=0.15, lw=0)
        axes.set(title=figure.title, xlabel=figure.x_label, ylabel=figure.y_label)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
        text = io.StringIO()
        canvas.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()
