"""What the tuned studies share: which runs there are to make, and which point an arm is tested at.

An arm is written as in ``saln compare --methods``: a selector and changes of training with ``+``
between. For every arm and cell (data, kind of noise, filter ratio) all points of one grid are
tried on seeds of their own; the one with the best mean validation accuracy is trained with the
other seeds and tested once. A row is written as its run ends, and no run is made twice.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from evidence_tables.tuned import FINAL, TUNING
from scratch_plans import ALL, FILTER_RATIO, ORACLE, Noise

from saln.experiments.arm import Arm, read_arm
from saln.training.changes import GCE, Smoothing, Targets

__all__ = [
    "Cell",
    "Job",
    "Point",
    "Row",
    "Study",
    "StudyArm",
    "as_noises",
    "as_seeds",
    "store",
    "stored",
]

Row = dict[str, Any]


class Cell(NamedTuple):
    """What arms are compared on; a filter ratio of 0 for the arms that keep everything."""

    dataset: str
    noise: str
    rate: float
    filter_ratio: float = FILTER_RATIO


class Point(NamedTuple):
    """What an arm is tuned over."""

    learning_rate: float
    weight_decay: float


class Job(NamedTuple):
    """One run."""

    stage: str
    arm: str
    cell: Cell
    seed: int
    point: Point

    @property
    def noise(self) -> Noise:
        """Its labels."""
        return Noise(self.cell.noise, self.cell.rate, self.seed)


@dataclass(frozen=True)
class StudyArm:
    """An arm by its text; ``oracle`` is a random choice of right labels."""

    text: str

    @cached_property
    def arm(self) -> Arm:
        """As the library reads it: for the oracle ``coherence``, which gets the true labels."""
        return read_arm("coherence" if self.text == ORACLE else self.text)

    @property
    def is_oracle(self) -> bool:
        """Whether true labels are looked at."""
        return self.text == ORACLE

    @property
    def needs_learner(self) -> bool:
        """Whether it cannot choose before loading."""
        return not self.arm.selector(epochs=1).chooses_before_loading()

    @property
    def selector(self) -> str:
        """The plan's name: the text without changes, ``all`` for the arms that keep everything."""
        return ALL if self.arm.keeps_all else self.text.split("+")[0]

    def about(self) -> Row:
        """What its rows say of the loss: shares of the targets, and ``q`` of the robust one."""
        found = {"beliefs": 0.0, "features": 0.0, "smoothing": 0.0, "robust": 0.0}
        for change in self.arm.changes:
            if isinstance(change, Targets):
                found |= {
                    "beliefs": change.beliefs or 0.0,
                    "features": change.features or 0.0,
                }
            elif isinstance(change, Smoothing):
                found["smoothing"] = change.share
            elif isinstance(change, GCE):
                found["robust"] = change.q
        return found


class Study:
    """What is to be trained, and what is known already.

    Args:
        cells: The arms of each cell, by their texts; the oracle is left out of clean labels,
            where it would be ``uniform``.
        grid: What every arm is tuned over.
        tuning_seeds: That the points are chosen on.
        seeds: Of the results.
        rows: Those there are.
        beyond: A point below the grid, or above, that an arm tries whose best is next to it.
    """

    def __init__(
        self,
        cells: Mapping[Cell, Sequence[str]],
        grid: Sequence[Point],
        tuning_seeds: Sequence[int],
        seeds: Sequence[int],
        rows: Sequence[Row],
        beyond: Sequence[Point] = (),
    ) -> None:
        self.arms = {text: StudyArm(text) for texts in cells.values() for text in texts}
        # An arm that keeps everything is the same at every filter ratio, and trained once.
        # Each with the number of the cell that asked for it first.
        self.wanted: dict[tuple[str, Cell], int] = {}
        for number, (cell, texts) in enumerate(cells.items()):
            for text in texts:
                if cell.rate or not self.arms[text].is_oracle:
                    whole = self.arms[text].arm.keeps_all
                    own = cell._replace(filter_ratio=0.0) if whole else cell
                    self.wanted.setdefault((text, own), number)
        self.grid, self.tuning_seeds, self.seeds = grid, tuning_seeds, seeds
        self.beyond = beyond
        self.rows: list[Row] = []
        self._found: dict[tuple[str, str, Cell], dict[tuple[Point, int], float]] = {}
        for row in rows:
            self.add(row)

    def add(self, row: Row) -> None:
        """Takes a run that has ended."""
        self.rows.append(row)
        keeps_all = StudyArm(row["arm"]).arm.keeps_all
        ratio = row.get("filter_ratio", 0.0 if keeps_all else FILTER_RATIO)
        cell = Cell(row["dataset"], row["noise"], row["asked_rate"], ratio)
        point = Point(row["learning_rate"], row["weight_decay"])
        found = self._found.setdefault((row["stage"], row["arm"], cell), {})
        found[point, row["seed"]] = row["validation_accuracy"]

    def best(self, arm: str, cell: Cell) -> Point | None:
        """The point with the best mean validation accuracy; None while trials miss."""
        tried = self._found.get((TUNING, arm, cell), {})
        points = self.points(arm, cell)
        if any((point, seed) not in tried for point in points for seed in self.tuning_seeds):
            return None
        # The first of several that are as good.
        return max(
            points,
            key=lambda point: float(np.mean([tried[point, seed] for seed in self.tuning_seeds])),
        )

    def points(self, arm: str, cell: Cell) -> list[Point]:
        """What an arm tries: the grid, and what lies beyond its best where that is at the edge."""
        tried = self._found.get((TUNING, arm, cell), {})
        means = {
            point: float(np.mean([tried[point, seed] for seed in self.tuning_seeds]))
            for point in self.grid
            if all((point, seed) in tried for seed in self.tuning_seeds)
        }
        points = list(self.grid)
        if self.beyond and len(means) == len(points):
            best = max(points, key=lambda point: means[point])
            lowest, highest = min(points), max(points)
            points += [
                point
                for point in self.beyond
                if (best == lowest and point < lowest) or (best == highest and point > highest)
            ]
        return points

    def jobs(self) -> list[Job]:
        """What can be trained next, in the order of the cells: nothing that is done."""
        jobs = []
        for arm, cell in self.wanted:
            best, points = self.best(arm, cell), self.points(arm, cell)
            trials = [(TUNING, seed, point) for seed in self.tuning_seeds for point in points]
            tests = [] if best is None else [(FINAL, seed, best) for seed in self.seeds]
            for stage, seed, point in (*trials, *tests):
                if (point, seed) not in self._found.get((stage, arm, cell), {}):
                    jobs.append(Job(stage, arm, cell, seed, point))
        return jobs

    def about(self, job: Job) -> Row:
        """What every study's rows begin with."""
        arm = self.arms[job.arm]
        return {
            "stage": job.stage,
            "dataset": job.cell.dataset,
            "noise": job.cell.noise,
            "asked_rate": job.cell.rate,
            "filter_ratio": job.cell.filter_ratio,
            "seed": job.seed,
            "arm": job.arm,
            "selector": arm.selector,
            **arm.about(),
            **job.point._asdict(),
        }


def stored(path: Path) -> list[Row]:
    """The rows of runs in a file; none where there is none."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [row for row in map(json.loads, lines) if "stage" in row]


def store(path: Path, row: Row) -> None:
    """Adds a line to a file."""
    with path.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(row) + "\n")


def as_seeds(text: str) -> list[int]:
    """Whole numbers with commas between."""
    return [int(part) for part in text.split(",") if part]


def as_noises(text: str) -> list[tuple[str, float]]:
    """Kinds of noise with their rates, ``symmetric:0.4``, with commas between."""
    parts = (one.partition(":") for one in text.split(","))
    return [(kind, float(rate or 0)) for kind, _, rate in parts]
