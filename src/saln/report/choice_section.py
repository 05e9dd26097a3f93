"""What was chosen: how often, of which classes, how many wrong, how alike the selectors."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt

from saln.experiments.arm import BASELINES, UNIFORM, keeps_all
from saln.report.number_text import NOTHING, UNKNOWN, number_text, percent_text
from saln.report.reported_run import Chosen, ReportedRun
from saln.report.values import Figure, HeatMap, IntervalCurve, Panel, Table

# More points a line than this say nothing more on a page.
POINTS = 120
_FACTS = {
    "eigenvalue_gap": ("Gap of the second smallest eigenvalue", "distance to the nearest other"),
    "participation_ratio": (
        "Participation ratio of the chosen eigenvector",
        "about how many candidates it sits on",
    ),
}


def _selecting(chosen: Chosen | None) -> tuple[str, ...]:
    """The arms that chose anything, with every seed."""
    return () if chosen is None else tuple(arm for arm in chosen.arms if not keeps_all(arm))


def _shares(counts: npt.NDArray[Any], classes: int) -> npt.NDArray[np.float64]:
    return np.bincount(counts, minlength=classes) / max(len(counts), 1)


def overlap(first: npt.NDArray[np.bool_], second: npt.NDArray[np.bool_]) -> float:
    """The share of the examples kept by ``first`` that ``second`` keeps in the same epoch."""
    return float((first & second).sum() / max(first.sum(), 1))


def times_chosen(run: ReportedRun) -> Figure | None:
    """How often the examples were chosen; None where nothing was."""
    chosen, arms = run.chosen, _selecting(run.chosen)
    if chosen is None or not arms:
        return None
    curves = []
    for arm in arms:
        kept = [by_arm[arm].kept for by_arm in chosen.choices.values()]
        shares = np.array([_shares(each.sum(axis=0), len(each) + 1) for each in kept])
        curves.append(IntervalCurve.over(arm, map(float, range(shares.shape[1])), shares))
    never = "; ".join(f"{curve.arm} never kept {curve.y[0]:.0%}" for curve in curves)
    title = "How often an example was chosen in a run"
    return Figure(
        "times_chosen", title, "times chosen", "share of the training examples", tuple(curves),
        f"{title}: one line an arm. {never}.",
    )  # fmt: skip


def _class_ratios(chosen: Chosen, arm: str, classes: int) -> npt.NDArray[np.float64]:
    """The share of each class among the chosen, over its share of the data."""
    ratios = []
    for seed, examples in chosen.examples.items():
        times = chosen.choices[seed][arm].kept.sum(axis=0)
        kept = _shares(np.repeat(examples.true_labels, times), classes)
        data = _shares(examples.true_labels, classes)
        # A class that the data lacks has no ratio.
        with np.errstate(invalid="ignore", divide="ignore"):
            ratios.append(np.where(data > 0, kept / data, np.nan))
    return np.asarray(np.mean(ratios, axis=0))


def class_mix(run: ReportedRun) -> HeatMap | None:
    """Which classes the arms favor; None where nothing was chosen."""
    chosen, arms = run.chosen, _selecting(run.chosen)
    if chosen is None or not arms:
        return None
    names = next(iter(chosen.examples.values())).class_names
    rows = [_class_ratios(chosen, arm, len(names)) for arm in arms]
    extremes = "; ".join(
        f"{arm} {names[int(np.nanargmax(row))]} {np.nanmax(row):.2f}, "
        f"{names[int(np.nanargmin(row))]} {np.nanmin(row):.2f}"
        for arm, row in zip(arms, rows, strict=True)
    )
    title = "Class mix of the chosen against the data's (1: the same share)"
    label = "true class" if chosen.truth else "class as labeled"
    return HeatMap(
        "class_mix", title, label, "", arms, names,
        (Panel("", tuple(tuple(row.tolist()) for row in rows)),), 1.0,
        f"{title}. Most and least favored: {extremes}.",
    )  # fmt: skip


def overlaps(run: ReportedRun) -> HeatMap | None:
    """How alike the arms choose; None for fewer than two."""
    chosen, arms = run.chosen, _selecting(run.chosen)
    if chosen is None or len(arms) < 2:
        return None
    values = tuple(
        tuple(
            float(np.mean([overlap(by[one].kept, by[two].kept) for by in chosen.choices.values()]))
            for two in arms
        )
        for one in arms
    )
    title = "Overlap: the share of a row's choices that the column chooses too"
    pairs = (
        (values[i][j], arms[i], arms[j]) for i in range(len(arms)) for j in range(i + 1, len(arms))
    )
    share, one, two = max(pairs)
    return HeatMap(
        "overlap", title, "also chosen by", "", arms, arms, (Panel("", values),), None,
        f"{title}, from the same candidates. Most alike: {one} and {two}, {share:.2f}.",
    )  # fmt: skip


def fact(run: ReportedRun, name: str) -> Figure | None:
    """A number that selectors give with each choice; None where no arm gives it."""
    if run.chosen is None:
        return None
    curves = []
    for arm in _selecting(run.chosen):
        facts = [by_arm[arm].facts for by_arm in run.chosen.choices.values()]
        by_seed = [each[name] for each in facts if name in each]
        if not by_seed or len(by_seed[0]) == 0:
            continue
        values = np.array([each[: min(map(len, by_seed))] for each in by_seed], dtype=float)
        # Neighboring steps are averaged where they are more than a line can show.
        parts = np.array_split(np.arange(values.shape[1]), min(POINTS, values.shape[1]))
        means = np.stack([values[:, part].mean(axis=1) for part in parts], axis=1)
        steps = (float(part.mean() + 1) for part in parts)
        curves.append(IntervalCurve.over(arm, steps, means))
    if not curves:
        return None
    title, label = _FACTS[name]
    said = "; ".join(f"{curve.arm} {np.mean(curve.y):.3g}" for curve in curves)
    return Figure(
        name, f"{title} over steps", "step", label, tuple(curves),
        f"{title} over steps, mean over seeds with their range. Means: {said}.",
    )  # fmt: skip


FACTS = tuple(functools.partial(fact, name=name) for name in _FACTS)


def chosen_table(run: ReportedRun) -> Table | None:
    """What was chosen, in numbers; None where nothing was kept of it."""
    chosen = run.chosen
    if chosen is None:
        return None
    return Table(
        "chosen",
        "What was chosen: never chosen (% of the examples), most often, wrong labels against "
        "the data's (points), shared with uniform (% of the choices)",
        ("arm", "never", "most often", "wrong labels", "shared with uniform"),
        tuple((arm, *_cells(chosen, arm)) for arm in chosen.arms),
    )


def _cells(chosen: Chosen, arm: str) -> tuple[str, ...]:
    never, most, wrong, alike = [], [], [], []
    for seed, examples in chosen.examples.items():
        kept = chosen.choices[seed][arm].kept
        times = kept.sum(axis=0)
        never.append((times == 0).mean())
        most.append(times.max())
        bad = examples.labels != examples.true_labels
        wrong.append(times[bad].sum() / max(times.sum(), 1) - bad.mean())
        control = chosen.choices[seed].get(UNIFORM.label)
        if control is not None and arm not in BASELINES:
            alike.append(overlap(kept, control.kept))
    return (
        percent_text(float(np.mean(never))),
        f"{np.max(most):,}",
        number_text(100 * float(np.mean(wrong)), sign=True) if chosen.truth else UNKNOWN,
        percent_text(float(np.mean(alike))) if alike else NOTHING,
    )
