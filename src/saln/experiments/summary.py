"""From the rows of a run to ``summary.json``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

from saln.experiments.arm import BASELINES, STANDARD
from saln.experiments.statistics import (
    Curve,
    difference_at_equal_cost,
    first_reaching,
    mean_interval,
    paired_difference,
    share_to_break_even,
)
from saln.training.cost_ledger import ONCE, PHASES

Row = dict[str, Any]
METRICS = tuple(
    f"{split}_{what}" for what in ("accuracy", "loss") for split in ("train", "validation", "test")
)
# What an epoch costs its user; evaluation is the experimenter's wish.
EPOCH_PHASES = ("load", "score", "select", "train")


def _metric(values: Sequence[float]) -> dict[str, Any]:
    mean, ci95 = mean_interval(values)
    return {"mean": mean, "ci95": ci95, "per_seed": list(values)}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _mean_where_known(values: Sequence[float | None]) -> float | None:
    """The mean; None where any value is unknown, for what is left would be another mean."""
    known = [value for value in values if value is not None]
    return _mean(known) if len(known) == len(values) else None


class _ArmRun(NamedTuple):
    """One arm with one seed: its rows in order, its one-off seconds and its total."""

    epochs: list[Row]
    cost: Row

    def once(self) -> float:
        """Seconds for what is made before the first step."""
        return float(self.cost["features"] + self.cost["reference"])

    def per_step(self) -> float:
        """Mean seconds of a step, with loading, scoring and selecting."""
        seconds = [row["seconds"][phase] for row in self.epochs for phase in EPOCH_PHASES]
        return float(sum(seconds) / self.epochs[-1]["steps"])

    def over_steps(self) -> Curve:
        return self._curve([row["steps"] for row in self.epochs])

    def over_seconds(self) -> Curve:
        each = (sum(row["seconds"][phase] for phase in EPOCH_PHASES) for row in self.epochs)
        _, *ends = accumulate(each, initial=self.once())
        return self._curve(ends)

    def _curve(self, costs: Sequence[float]) -> Curve:
        """Test accuracy over costs, through the epochs that were evaluated."""
        accuracies = [row["test_accuracy"] for row in self.epochs]
        pairs = zip(costs, accuracies, strict=True)
        measured = [(cost, value) for cost, value in pairs if value is not None]
        return Curve(tuple(cost for cost, _ in measured), tuple(value for _, value in measured))


def _arm(runs: Sequence[_ArmRun]) -> dict[str, Any]:
    """What is said of one arm by itself; one run a seed."""
    last = [run.epochs[-1] for run in runs]
    costs = [run.cost for run in runs]
    n_epochs = len(runs[0].epochs)
    seconds = {
        phase: _mean([sum(row["seconds"][phase] for row in run.epochs) for run in runs])
        for phase in PHASES
    }
    once = {name: _mean([cost[name] for cost in costs]) for name in ONCE}
    # Evaluation is the experimenter's wish and one-off work has fields of its own.
    per_epoch = sum(seconds[phase] for phase in EPOCH_PHASES) / n_epochs
    total = _mean([cost["total"] for cost in costs])
    peaks = {
        name: max((cost[f"{name}_bytes"] or 0 for cost in costs), default=0) or None
        for name in ("rss", "cuda")
    }
    return {
        **{name: _metric([row[name] for row in last]) for name in METRICS},
        "wrong_label_share_kept": _mean_where_known(
            [row["wrong_label_share_kept"] for run in runs for row in run.epochs]
        ),
        "seconds": {"total": total, "per_epoch": per_epoch, **once, **seconds},
        "steps": last[0]["steps"],
        "examples_forward": last[0]["examples_forward"],
        "examples_backward": last[0]["examples_backward"],
        "one_off_examples": {
            name: costs[0][name.replace("_", "_examples_")]
            for name in ("features_forward", "reference_forward", "reference_backward")
        },
        "peak_bytes": peaks,
    }


def _seconds_to_standard(runs: Sequence[_ArmRun], standard: Sequence[_ArmRun]) -> dict[str, Any]:
    """How long an arm took to the test accuracy that `standard` ends at, seed by seed."""
    targets = [run.epochs[-1]["test_accuracy"] for run in standard]
    times, own, shares = [], [], []
    for run, base, target in zip(runs, standard, targets, strict=True):
        curve = run.over_seconds()
        times.append(first_reaching(curve, target))
        own.append(first_reaching(base.over_seconds(), target))
        shares.append(min(1.0, max(curve.y) / target) if target > 0 else 1.0)
    found: dict[str, Any] = {
        "target": _mean(targets),
        "share_reached": _mean(shares),
        "mean": None,
        "ci95": None,
        "per_seed": times,
        "seconds_saved": None,
    }
    reached = [time for time in times if time is not None]
    if len(reached) == len(times):
        found["mean"], found["ci95"] = mean_interval(reached)
        its = [time for time in own if time is not None]  # all: it ends there
        found["seconds_saved"] = paired_difference(its, reached)._asdict()
    return found


def _break_even(runs: Sequence[_ArmRun], baseline: Sequence[_ArmRun]) -> dict[str, Any]:
    """The share of the baseline's steps that an arm may make, and whether it needed fewer."""

    def allowed(run: _ArmRun, base: _ArmRun, steps: float) -> float:
        return share_to_break_even(run.per_step(), run.once(), base.per_step(), base.once(), steps)

    pairs = list(zip(runs, baseline, strict=True))
    whole = [allowed(run, base, base.epochs[-1]["steps"]) for run, base in pairs]
    needed: list[float | None] = []
    margins: list[float] = []
    for run, base in pairs:
        other = base.over_steps()
        target = other.y[-1]
        mine, its = first_reaching(run.over_steps(), target), first_reaching(other, target)
        if mine is None or its is None:
            needed.append(None)
            continue
        needed.append(mine / its)
        # Both are charged up to where they first are as good, not to where they end.
        margins.append(allowed(run, base, its) - mine / its)
    share, ci95 = mean_interval(whole)
    verdict = "did not reach the baseline's accuracy"
    if len(margins) == len(pairs):
        found = paired_difference(margins, [0.0] * len(margins)).verdict
        verdict = {"better": "pays", "worse": "does not pay"}.get(found, found)
    return {
        "steps_share": share,
        "ci95": ci95,
        "per_seed": whole,
        "fewer_steps": 1 - share,
        "needed_share_per_seed": needed,
        "verdict": verdict,
    }


def _against(
    arm: str, runs: Mapping[str, Sequence[_ArmRun]], entries: Mapping[str, Any]
) -> dict[str, Any]:
    """One arm against each baseline that was run."""
    found: dict[str, Any] = {"at_equal_steps": {}, "at_equal_seconds": {}, "break_even": {}}
    for baseline in BASELINES:
        versus = steps = seconds = even = None
        if baseline in runs and baseline != arm:
            mine, other = runs[arm], runs[baseline]
            versus = paired_difference(
                entries[arm]["test_accuracy"]["per_seed"],
                entries[baseline]["test_accuracy"]["per_seed"],
            )
            steps = difference_at_equal_cost(
                [run.over_steps() for run in mine], [run.over_steps() for run in other]
            )
            seconds = difference_at_equal_cost(
                [run.over_seconds() for run in mine], [run.over_seconds() for run in other]
            )
            even = _break_even(mine, other)
        found[f"versus_{baseline}"] = versus and versus._asdict()
        found["at_equal_steps"][baseline] = steps and steps._asdict()
        found["at_equal_seconds"][baseline] = seconds and seconds._asdict()
        found["break_even"][baseline] = even
    found["seconds_to_standard"] = (
        _seconds_to_standard(runs[arm], runs[STANDARD.label]) if STANDARD.label in runs else None
    )
    return found


def summarize(
    about: Mapping[str, Any],
    rows: Sequence[Row],
    costs: Mapping[tuple[str, int], Row],
    failures: Mapping[tuple[str, int], str],
) -> dict[str, Any]:
    """Makes the content of ``summary.json``.

    Every arm is set against `uniform` and `standard`, seed by seed: after as many epochs
    (``versus_...``), as many steps and as many seconds. Seconds are those of features,
    reference, loading, scoring, selecting and training; evaluation and saving stand only
    in ``total``.

    Args:
        about: What was run: ``dataset``, ``filter_ratio``, ``seeds``, ``methods``, ...
        rows: The rows of ``epochs.jsonl``.
        costs: (arm, seed) -> seconds ``features``, ``reference``, ``save`` and ``total``,
            examples of the one-off work, and peaks of memory.
        failures: (arm, seed) -> why it was stopped.

    Returns:
        As in the design: accuracies are fractions, seconds are wall-clock means over
        seeds. An arm that failed with any seed has only an ``error``. None stands for what
        is not known: ``wrong_label_share_kept`` where no label was replaced on purpose.
    """
    arms: dict[str, Any] = {}
    runs: dict[str, list[_ArmRun]] = {}
    for arm in about["methods"]:
        errors = [text for (failed, _), text in failures.items() if failed == arm]
        if errors:
            arms[arm] = {"error": errors[0]}
            continue
        by_seed: dict[int, list[Row]] = {}
        for row in rows:
            if row["arm"] == arm:
                by_seed.setdefault(row["seed"], []).append(row)
        # In the order of the seeds, for the differences are paired.
        runs[arm] = [
            _ArmRun(by_seed[seed], costs[arm, seed]) for seed in about["seeds"] if seed in by_seed
        ]
        arms[arm] = _arm(runs[arm])
    for arm in runs:
        arms[arm] |= _against(arm, runs, arms)
    return {**about, "arms": arms}
