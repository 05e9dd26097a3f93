"""From the rows of a run to ``summary.json``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from saln.experiments.arm import BASELINES, STANDARD
from saln.experiments.rows import (
    EPOCH_PHASES,
    METRICS,
    ArmCost,
    ArmSeconds,
    ArmSummary,
    BreakEven,
    EpochRow,
    Key,
    Metric,
    OneOffExamples,
    PeakBytes,
    RunFacts,
    SecondsToStandard,
    StoppedArm,
    Summary,
    rows_of_arm,
)
from saln.experiments.statistics import (
    Curve,
    difference_at_equal_cost,
    first_reaching,
    mean_interval,
    paired_difference,
    share_to_break_even,
)
from saln.experiments.trials import Trial, Tuned, tuned_arms
from saln.training.cost_ledger import ONCE, PHASES


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


@dataclass(frozen=True)
class _SeedRun:
    """One arm with one seed: its rows in order, its one-off seconds and its total."""

    epochs: list[EpochRow]
    cost: ArmCost

    @property
    def last(self) -> EpochRow:
        return self.epochs[-1]

    def measured(self, name: str) -> float:
        """A metric after the last epoch, which is always evaluated."""
        return float(getattr(self.last, name))

    def once(self) -> float:
        """Seconds for what is made before the first step."""
        return float(self.cost.features + self.cost.reference)

    def per_step(self) -> float:
        """Mean seconds of a step, with loading, scoring and selecting."""
        # One sum over all, in this order: another order has other last digits.
        phases = ((row.seconds, phase) for row in self.epochs for phase in EPOCH_PHASES)
        return float(sum(getattr(*each) for each in phases) / self.last.steps)

    def over_steps(self) -> Curve:
        return self._curve([row.steps for row in self.epochs])

    def over_seconds(self) -> Curve:
        _, *ends = accumulate((row.seconds.spent for row in self.epochs), initial=self.once())
        return self._curve(ends)

    def _curve(self, costs: Sequence[float]) -> Curve:
        """Test accuracy over costs, through the epochs that were evaluated."""
        pairs = zip(costs, (row.test_accuracy for row in self.epochs), strict=True)
        measured = [(cost, value) for cost, value in pairs if value is not None]
        return Curve(tuple(cost for cost, _ in measured), tuple(value for _, value in measured))


def _seconds(runs: Sequence[_SeedRun], tune: float) -> ArmSeconds:
    phases: dict[str, Any] = {
        phase: _mean([sum(getattr(row.seconds, phase) for row in run.epochs) for run in runs])
        for phase in PHASES
    }
    once: dict[str, Any] = {name: _mean([getattr(run.cost, name) for run in runs]) for name in ONCE}
    # Evaluation is the experimenter's wish and one-off work has fields of its own.
    per_epoch = sum(phases[phase] for phase in EPOCH_PHASES) / len(runs[0].epochs)
    total = _mean([run.cost.total for run in runs])
    return ArmSeconds(total=total, per_epoch=per_epoch, **once, **phases, tune=tune)


def _alone(runs: Sequence[_SeedRun], tuned: Tuned | None) -> dict[str, Any]:
    """What is said of one arm by itself; one run a seed."""
    first, last = runs[0].cost, runs[0].last  # counts are the same with every seed
    shares = [row.wrong_label_share_kept for run in runs for row in run.epochs]
    known = [share for share in shares if share is not None]
    metrics: dict[str, Any] = {}
    for name in METRICS:
        values = tuple(run.measured(name) for run in runs)
        metrics[name] = Metric(*mean_interval(values), values)
    return metrics | {
        # What is left where some are unknown would be another mean.
        "wrong_label_share_kept": _mean(known) if len(known) == len(shares) else None,
        "seconds": _seconds(runs, 0.0 if tuned is None else tuned.seconds),
        "tuned": tuned,
        "steps": last.steps,
        "examples_forward": last.examples_forward,
        "examples_backward": last.examples_backward,
        "one_off_examples": OneOffExamples(
            first.features_examples_forward,
            first.reference_examples_forward,
            first.reference_examples_backward,
        ),
        "peak_bytes": PeakBytes(
            max(run.cost.rss_bytes or 0 for run in runs) or None,  # 0: not known
            max(run.cost.cuda_bytes or 0 for run in runs) or None,
        ),
    }


def _seconds_to_standard(
    runs: Sequence[_SeedRun], standard: Sequence[_SeedRun]
) -> SecondsToStandard:
    """How long an arm took to the test accuracy that `standard` ends at, seed by seed."""
    targets = [run.measured("test_accuracy") for run in standard]
    times, own, shares = [], [], []
    for run, base, target in zip(runs, standard, targets, strict=True):
        curve = run.over_seconds()
        times.append(first_reaching(curve, target))
        own.append(first_reaching(base.over_seconds(), target))
        # Not above 1: what is reached sooner does not make up for what is never reached.
        shares.append(min(1.0, max(curve.y) / target) if target > 0 else 1.0)
    mean, ci95, saved = None, None, None
    reached = [time for time in times if time is not None]
    if len(reached) == len(times):
        mean, ci95 = mean_interval(reached)
        its = [time for time in own if time is not None]  # all: it ends there
        saved = paired_difference(its, reached)
    return SecondsToStandard(
        target=_mean(targets),
        share_reached=_mean(shares),
        mean=mean,
        ci95=ci95,
        per_seed=tuple(times),
        seconds_saved=saved,
    )


def _break_even(runs: Sequence[_SeedRun], baseline: Sequence[_SeedRun]) -> BreakEven:
    """The share of the baseline's steps that an arm may make, and whether it needed fewer."""

    def allowed(run: _SeedRun, base: _SeedRun, steps: float) -> float:
        return share_to_break_even(run.per_step(), run.once(), base.per_step(), base.once(), steps)

    pairs = list(zip(runs, baseline, strict=True))
    whole = [allowed(run, base, base.last.steps) for run, base in pairs]
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
    if len(margins) == len(pairs):  # a verdict on some of the seeds would favor the arm
        shown = paired_difference(margins, [0.0] * len(margins)).verdict
        verdict = {"better": "pays", "worse": "does not pay"}.get(shown, shown)
    return BreakEven(
        steps_share=share,
        ci95=ci95,
        per_seed=tuple(whole),
        fewer_steps=1 - share,
        needed_share_per_seed=tuple(needed),
        verdict=verdict,
    )


def _against(arm: str, runs: Mapping[str, Sequence[_SeedRun]]) -> dict[str, Any]:
    """One arm against each baseline that was run."""
    mine, whole = runs[arm], runs.get(STANDARD.label)
    compared: dict[str, Any] = {
        "seconds_to_standard": None if whole is None else _seconds_to_standard(mine, whole),
        "at_equal_steps": dict.fromkeys(BASELINES),
        "at_equal_seconds": dict.fromkeys(BASELINES),
        "break_even": dict.fromkeys(BASELINES),
    }
    for baseline in BASELINES:
        if baseline not in runs or baseline == arm:
            continue
        its = runs[baseline]
        ends = [[run.measured("test_accuracy") for run in side] for side in (mine, its)]
        compared[f"versus_{baseline}"] = paired_difference(*ends)
        for name, over in (("steps", _SeedRun.over_steps), ("seconds", _SeedRun.over_seconds)):
            gain = difference_at_equal_cost(list(map(over, mine)), list(map(over, its)))
            compared[f"at_equal_{name}"][baseline] = gain
        compared["break_even"][baseline] = _break_even(mine, its)
    return compared


def summarize(
    about: RunFacts,
    rows: Sequence[EpochRow],
    costs: Mapping[Key, ArmCost],
    failures: Mapping[Key, str],
    trials: Sequence[Trial] = (),
) -> Summary:
    """Makes the content of ``summary.json``.

    Every arm is set against `uniform` and `standard`, seed by seed: after as many epochs
    (``versus_...``), as many steps and as many seconds. Seconds are those of features,
    reference, loading, scoring, selecting and training; evaluation and saving stand only
    in ``total``.

    Args:
        about: What was run.
        rows: The rows of ``epochs.jsonl``.
        costs: (arm, seed) -> what it cost beside its epochs.
        failures: (arm, seed) -> why it was stopped.
        trials: Those of ``trials.jsonl``, where arms were tuned.

    Returns:
        Accuracies are fractions, seconds are wall-clock means over seeds. An arm that failed
        with any seed has only an ``error``. None stands for what is not known:
        ``wrong_label_share_kept`` where no label was replaced on purpose.
    """
    errors: dict[str, str] = {}  # of the first seed that failed
    for (arm, _), text in failures.items():
        errors.setdefault(arm, text)
    runs: dict[str, list[_SeedRun]] = {}
    for arm in about.methods:
        if arm not in errors:
            by_seed = rows_of_arm(rows, arm)
            # In the order of the seeds, for the differences are paired.
            seeds = [seed for seed in about.seeds if seed in by_seed]
            runs[arm] = [_SeedRun(by_seed[seed], costs[arm, seed]) for seed in seeds]
    tuned = tuned_arms(trials)
    arms: dict[str, ArmSummary | StoppedArm] = {
        arm: StoppedArm(errors[arm])
        if arm in errors
        else ArmSummary(**_alone(runs[arm], tuned.get(arm)), **_against(arm, runs))
        for arm in about.methods
    }
    return Summary.of(about, arms)
