"""What is shown, as values: tables and figures before anything is drawn."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt


class Table(NamedTuple):
    """A table of text.

    Attributes:
        name: File name without its ending.
        title: What it shows, with units.
        columns: Headings.
        rows: One tuple of texts a row, the arm's name first.
        note: What one has to know to read it; shown above it.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""

    def unless_empty(self) -> Table | None:
        """The table; None where it has no rows."""
        return self if self.rows else None


class IntervalCurve(NamedTuple):
    """One arm's line: means over seeds, and the seeds' range."""

    arm: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    @classmethod
    def over(
        cls, arm: str, x: Iterable[float], values: npt.NDArray[np.floating[Any]]
    ) -> IntervalCurve:
        """The line of an arm whose values are a row a seed: float, (seeds, points)."""
        bounds = values.mean(axis=0), values.min(axis=0), values.max(axis=0)
        return cls(arm, tuple(x), *(tuple(each.tolist()) for each in bounds))


class Figure(NamedTuple):
    """Lines.

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
    curves: tuple[IntervalCurve, ...]
    description: str


class Bars(NamedTuple):
    """Stacked bars: one an arm, ``values[part][arm]``."""

    name: str
    title: str
    x_label: str
    arms: tuple[str, ...]
    parts: tuple[str, ...]
    values: tuple[tuple[float, ...], ...]
    description: str


class Intervals(NamedTuple):
    """A point with its interval an arm; low and high are None without one."""

    name: str
    title: str
    x_label: str
    arms: tuple[str, ...]
    values: tuple[float, ...]
    low: tuple[float | None, ...]
    high: tuple[float | None, ...]
    description: str


class Panel(NamedTuple):
    """One matrix, ``values[row][column]``; NaN for no value."""

    title: str
    values: tuple[tuple[float, ...], ...]


class HeatMap(NamedTuple):
    """Matrices of one scale, under each other."""

    name: str  # File name without its ending
    title: str  # What it shows
    x_label: str  # Of the columns
    y_label: str  # Of the rows
    rows: tuple[str, ...]  # Names; empty where they are only counted
    columns: tuple[str, ...]  # Names; empty where they are only counted
    panels: tuple[Panel, ...]  # The matrices
    center: float | None  # The value that is neither high nor low; None for a scale from 0
    description: str  # The same in words


# What can be drawn; a new kind needs its data below and a function in drawing.py.
Drawing = Figure | Bars | Intervals | HeatMap


def data_of(drawing: Drawing) -> tuple[tuple[str, ...], list[tuple[object, ...]]]:
    """Headings and rows of what a figure shows."""
    if isinstance(drawing, Figure):
        lines = [(c.arm, *point) for c in drawing.curves for point in zip(*c[1:], strict=True)]
        return ("arm", drawing.x_label, drawing.y_label, "lowest", "highest"), list(lines)
    if isinstance(drawing, Bars):
        columns = zip(*drawing.values, strict=True)
        return ("arm", *drawing.parts), [
            (arm, *values) for arm, values in zip(drawing.arms, columns, strict=True)
        ]
    if isinstance(drawing, Intervals):
        points = zip(drawing.arms, drawing.values, drawing.low, drawing.high, strict=True)
        return ("arm", drawing.x_label, "lower end", "upper end"), [
            # An empty cell: CSV has no word for nothing.
            tuple("" if value is None else value for value in point)
            for point in points
        ]
    cells = [
        (
            panel.title,
            drawing.rows[row] if drawing.rows else row,  # rows without names are counted
            drawing.columns[column] if drawing.columns else column,
            value,
        )
        for panel in drawing.panels
        for row, values in enumerate(panel.values)
        for column, value in enumerate(values)
    ]
    return ("panel", drawing.y_label, drawing.x_label, "value"), list(cells)


def to_csv(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Comma-separated values with headings; floats in full."""
    text = io.StringIO()
    # The module's own line ends, \r\n, would make files that differ between tools.
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue()
