"""What was chosen: how often, of which classes, how many wrong, how alike the selectors."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from saln.errors import DataError
from saln.experiments.arm import BASELINES, UNIFORM, keeps_all
from saln.experiments.kept_examples import ArmChoices, SeedExamples, read_choices, read_examples
from saln.report.known_labels import UNKNOWN, knows_truth
from saln.report.values import Drawing, Figure, HeatMap, IntervalCurve, Panel, Table

# More points a line than this say nothing more on a page.
POINTS = 120
_FACTS = {
    "eigenvalue_gap": ("Gap of the second smallest eigenvalue", "distance to the nearest other"),
    "participation_ratio": (
        "Participation ratio of the chosen eigenvector",
        "about how many candidates it sits on",
    ),
}


class Chosen(NamedTuple):
    """All choices of a run.

    Attributes:
        examples: Seed -> its examples.
        choices: Seed -> arm -> its choices.
        truth: Whether it is known which labels are wrong.
    """

    examples: Mapping[int, SeedExamples]
    choices: Mapping[int, Mapping[str, ArmChoices]]
    truth: bool


def read_chosen(folder: Path, summary: Mapping[str, Any]) -> Chosen | None:
    """Reads what a run keeps of its choices; None for a run without.

    Raises:
        DataError: A file is broken.
    """
    examples: dict[int, SeedExamples] = {}
    choices: dict[int, dict[str, ArmChoices]] = {}
    for seed in summary["seeds"]:
        with _named(folder / "choices" / f"examples-seed{seed}.npz"):
            of_seed = read_examples(folder, seed)
        if of_seed is None:
            continue
        examples[seed] = of_seed
        choices[seed] = {}
        for arm, entry in summary["arms"].items():
            found = None
            if "error" not in entry:
                with _named(folder / "choices" / f"{arm}-seed{seed}.npz"):
                    found = read_choices(folder, arm, seed, len(of_seed.labels))
            if found is not None:
                choices[seed][arm] = found
    return Chosen(examples, choices, knows_truth(summary)) if examples else None


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Says which file it is that holds something else, of a run that has no checksums."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # a broken file raises anything from KeyError to struct.error
        raise DataError(
            f"{path} cannot be read ({type(error).__name__}); put the file back, or remove the "
            f"folder {path.parent} to draw the report without what was chosen"
        ) from error


def _arms(chosen: Chosen) -> tuple[str, ...]:
    """The arms that every seed has."""
    first, *others = chosen.choices.values()
    return tuple(arm for arm in first if all(arm in other for other in others))


def _shares(counts: npt.NDArray[Any], classes: int) -> npt.NDArray[np.float64]:
    return np.bincount(counts, minlength=classes) / max(len(counts), 1)


def overlap(first: npt.NDArray[np.bool_], second: npt.NDArray[np.bool_]) -> float:
    """The share of the examples kept by ``first`` that ``second`` keeps in the same epoch.

    An example is a candidate once an epoch, so these are choices among the same candidates.
    """
    return float((first & second).sum() / max(first.sum(), 1))


def _times_chosen(chosen: Chosen, arms: Sequence[str]) -> Figure:
    curves = []
    for arm in arms:
        each = []
        for seed in chosen.choices:
            kept = chosen.choices[seed][arm].kept
            each.append(_shares(kept.sum(axis=0), len(kept) + 1))
        shares = np.array(each)
        x = tuple(float(times) for times in range(shares.shape[1]))
        bounds = shares.mean(axis=0), shares.min(axis=0), shares.max(axis=0)
        curves.append(IntervalCurve(arm, x, *(tuple(bound.tolist()) for bound in bounds)))
    never = "; ".join(f"{curve.arm} never kept {curve.y[0]:.0%}" for curve in curves)
    title = "How often an example was chosen in a run"
    return Figure(
        "times_chosen", title, "times chosen", "share of the training examples", tuple(curves),
        f"{title}: one line an arm. {never}.",
    )  # fmt: skip


def _class_mix(chosen: Chosen, arms: Sequence[str]) -> HeatMap:
    names = next(iter(chosen.examples.values())).class_names
    rows = []
    for arm in arms:
        ratios = []
        for seed, examples in chosen.examples.items():
            times = chosen.choices[seed][arm].kept.sum(axis=0)
            kept = _shares(np.repeat(examples.true_labels, times), len(names))
            data = _shares(examples.true_labels, len(names))
            with np.errstate(invalid="ignore", divide="ignore"):
                ratios.append(np.where(data > 0, kept / data, np.nan))
        rows.append(np.mean(ratios, axis=0))
    extremes = "; ".join(
        f"{arm} {names[int(np.nanargmax(row))]} {np.nanmax(row):.2f}, "
        f"{names[int(np.nanargmin(row))]} {np.nanmin(row):.2f}"
        for arm, row in zip(arms, rows, strict=True)
    )
    title = "Class mix of the chosen against the data's (1: the same share)"
    label = "true class" if chosen.truth else "class as labeled"
    return HeatMap(
        "class_mix", title, label, "", tuple(arms), names,
        (Panel("", tuple(tuple(row.tolist()) for row in rows)),), 1.0,
        f"{title}. Most and least favored: {extremes}.",
    )  # fmt: skip


def _overlaps(chosen: Chosen, arms: Sequence[str]) -> HeatMap:
    values = tuple(
        tuple(
            float(np.mean([overlap(by[one].kept, by[two].kept) for by in chosen.choices.values()]))
            for two in arms
        )
        for one in arms
    )
    title = "Overlap: the share of a row's choices that the column chooses too"
    pairs = [
        (values[i][j], arms[i], arms[j]) for i in range(len(arms)) for j in range(i + 1, len(arms))
    ]
    most = max(pairs, default=None)
    said = "" if most is None else f" Most alike: {most[1]} and {most[2]}, {most[0]:.2f}."
    return HeatMap(
        "overlap", title, "also chosen by", "", tuple(arms), tuple(arms), (Panel("", values),),
        None, f"{title}, from the same candidates.{said}",
    )  # fmt: skip


def _facts(chosen: Chosen, arms: Sequence[str]) -> list[Figure]:
    figures = []
    for name, (title, label) in _FACTS.items():
        curves = []
        for arm in arms:
            found = [by[arm].facts[name] for by in chosen.choices.values() if name in by[arm].facts]
            if not found or len(found[0]) == 0:
                continue
            values = np.array([fact[: min(map(len, found))] for fact in found], dtype=float)
            parts = np.array_split(np.arange(values.shape[1]), min(POINTS, values.shape[1]))
            points = np.array([values[:, part].mean(axis=1) for part in parts])
            x = tuple(float(part.mean() + 1) for part in parts)
            bounds = points.mean(axis=1), points.min(axis=1), points.max(axis=1)
            curves.append(IntervalCurve(arm, x, *(tuple(bound.tolist()) for bound in bounds)))
        if curves:
            means = "; ".join(f"{curve.arm} {np.mean(curve.y):.3g}" for curve in curves)
            said = f"{title} over steps, mean over seeds with their range. Means: {means}."
            figures.append(Figure(name, f"{title} over steps", "step", label, tuple(curves), said))
    return figures


def chosen_figures(chosen: Chosen) -> tuple[Drawing, ...]:
    """How often, class mix, overlap, and the spectral arms' facts."""
    arms = _arms(chosen)
    selecting = [arm for arm in arms if not keeps_all(arm)]
    if not selecting:
        return ()
    figures: list[Drawing] = [_times_chosen(chosen, selecting), _class_mix(chosen, selecting)]
    if len(selecting) > 1:
        figures.append(_overlaps(chosen, selecting))
    return (*figures, *_facts(chosen, selecting))


def chosen_tables(chosen: Chosen) -> tuple[Table, ...]:
    """What was chosen, in numbers."""
    rows = []
    for arm in _arms(chosen):
        never, most, wrong, alike = [], [], [], []
        for seed, examples in chosen.examples.items():
            kept = chosen.choices[seed][arm].kept
            times = kept.sum(axis=0)
            never.append((times == 0).mean())
            most.append(times.max())
            bad = examples.labels != examples.true_labels
            wrong.append(times[bad].sum() / max(times.sum(), 1) - bad.mean())
            if UNIFORM.label in chosen.choices[seed] and arm not in BASELINES:
                alike.append(overlap(kept, chosen.choices[seed][UNIFORM.label].kept))
        rows.append(
            (
                arm,
                f"{100 * np.mean(never):.1f}",
                f"{np.max(most):,}",
                f"{100 * np.mean(wrong):+.1f}" if chosen.truth else UNKNOWN,
                f"{100 * np.mean(alike):.1f}" if alike else "–",
            )
        )
    return (
        Table(
            "chosen",
            "What was chosen: never chosen (% of the examples), most often, wrong labels against "
            "the data's (points), shared with uniform (% of the choices)",
            ("arm", "never", "most often", "wrong labels", "shared with uniform"),
            tuple(rows),
        ),
    )
