"""Tuning: every arm's learning rate and weight decay, by the same number of trials."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from saln.errors import ConvergenceError, TrainingError
from saln.experiments.arm import Arm
from saln.experiments.comparison import Comparison, SharedBySeed
from saln.experiments.progress import RunProgress
from saln.experiments.rows import EpochRow
from saln.experiments.search import SEARCHES
from saln.experiments.train_arm import try_arm
from saln.experiments.trials import Point, Trial, best_of, tried


@dataclass(frozen=True)
class Tuning:
    """Chooses by validation accuracy after the last epoch, of equal ones by validation loss.

    A trial is the arm's whole training with the first seed, or the first few, by other settings;
    every process takes part, the first alone has the ``progress``. ``shared`` makes what the arms
    of a seed share, and is asked only where a trial is left to do.
    """

    comparison: Comparison
    progress: RunProgress | None
    shared: Callable[[int], SharedBySeed]

    def choose(self, arms: Sequence[Arm]) -> None:
        """Tunes the arms; trials that were stored before are not run again."""
        comparison = self.comparison
        for arm in arms if comparison.config.tune else ():
            found = best_of(tried(self._trials(arm)))
            # Without one the arm trains with what was given, and says itself what is wrong.
            comparison.chosen[arm.label] = comparison.given if found is None else found.point

    def _trials(self, arm: Arm) -> list[Trial]:
        """All trials of an arm, those done before and the others."""
        config, same_in_all = self.comparison.config, self.comparison.same
        before = [] if self.progress is None else self.progress.record.trials
        done = same_in_all([trial for trial in before if trial.arm == arm.label])
        new = 0
        for number in range(1, config.tune + 1):
            same = [trial for trial in done if trial.trial == number]
            # An interrupted trial goes on with the seeds that it lacks.
            point = same[0].point if same else self._next(done)
            seen = [trial.seed for trial in same]
            lost = any(trial.error for trial in same)
            for seed in config.seeds[: config.tune_seeds]:
                if lost or seed in seen:  # what is lost with one seed is lost
                    continue
                done.append(same_in_all(self._try(arm, number, point, self.shared(seed))))
                lost, new = done[-1].error is not None, new + 1
                if self.progress is not None:
                    self.progress.log.check()  # else a moved folder would come into being again
                    self.progress.record.add_trial(done[-1])
        if new:
            self.comparison.reporter.note(_said(arm, done))
        return done

    def _next(self, done: Sequence[Trial]) -> Point:
        config, given = self.comparison.config, self.comparison.given
        point = SEARCHES[config.tune_search](given, config.tune, tried(done))
        return Point(*self.comparison.same(point))

    def _try(self, arm: Arm, number: int, point: Point, shared: SharedBySeed) -> Trial:
        comparison, seed = self.comparison, shared.seed
        settings = replace(comparison.settings(seed), **point._asdict())
        name = f"{arm}, trial {number} of {comparison.config.tune}, seed {seed}: {point}"
        rows: list[EpochRow] = []
        error, begun = None, time.perf_counter()
        try:
            try_arm(comparison, arm, shared, settings, name, rows.append)
        except (TrainingError, ConvergenceError) as lost:
            error = str(lost)
        last = rows[-1] if rows else None
        return Trial(
            arm=arm.label,
            trial=number,
            seed=seed,
            **point._asdict(),
            validation_accuracy=None if last is None or error else last.validation_accuracy,
            validation_loss=None if last is None or error else last.validation_loss,
            seconds=round(time.perf_counter() - begun, 6),
            steps=0 if last is None else last.steps,
            examples_forward=0 if last is None else last.examples_forward,
            examples_backward=0 if last is None else last.examples_backward,
            error=error,
        )


def _said(arm: Arm, trials: Sequence[Trial]) -> str:
    points = tried(trials)
    best = best_of(points)
    if best is None or best.score is None:
        return f"{arm}, tuned: all {len(points)} trials were lost; it trains with what was given"
    accuracy = f"validation accuracy {best.score.accuracy:.1%}"
    return f"{arm}, tuned by {len(points)} trials: {best.point} ({accuracy})"
