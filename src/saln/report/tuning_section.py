"""The report's section on tuning: what was tried, what was chosen, and whether to look wider."""

from __future__ import annotations

from collections.abc import Sequence

from saln.experiments.rows import Summary
from saln.experiments.trials import Trial, Tuned, best_of, tried, tuned_arms
from saln.report.number_text import NOTHING, number_text, percent_text
from saln.report.reported_run import ReportedRun
from saln.report.values import Table


def tuned_text(tuned: Tuned) -> str:
    """What was chosen, for a narrow column."""
    return f"rate {tuned.learning_rate:.3g}, decay {tuned.weight_decay:.3g}"


def edge_line(summary: Summary) -> str:
    """A sentence on the arms whose best rate may lie outside of what was tried; else nothing."""
    on_edge = [
        arm for arm, entry in summary.finished.items() if entry.tuned and entry.tuned.on_edge
    ]
    if not on_edge:
        return ""
    return (
        f"tuning: the best learning rate of {', '.join(on_edge)} is the lowest or the highest that "
        "was tried, and a better one may lie beyond; widen the search by more trials, or begin it "
        "at that rate"
    )


def _edge(trials: Sequence[Trial]) -> str:
    """Where the best rate stands among those tried, and what to do."""
    points = tried(trials)
    best = best_of(points)
    if best is None:
        return "all trials were lost: begin at a lower rate"
    rates, rate = [each.point.learning_rate for each in points], best.point.learning_rate
    if min(rates) == max(rates):
        return "yes, one rate alone was tried: widen"
    if rate == max(rates):
        return "yes, the highest: widen upward"
    return "yes, the lowest: widen downward" if rate == min(rates) else "no"


def tuned_table(run: ReportedRun) -> Table | None:
    """What was chosen of every arm and what that cost; also of those stopped later."""
    trials = () if run.record is None else run.record.trials
    rows = []
    for arm, tuned in tuned_arms(trials).items():
        accuracy = tuned.validation_accuracy
        rows.append(
            (
                arm,
                f"{tuned.learning_rate:.3g}",
                f"{tuned.weight_decay:.3g}",
                NOTHING if accuracy is None else percent_text(accuracy),
                f"{tuned.trials}" + (f" ({tuned.lost} lost)" if tuned.lost else ""),
                number_text(tuned.seconds, comma=True),
                f"{tuned.examples_backward:,}",
                _edge([trial for trial in trials if trial.arm == arm]),
            )
        )
    columns = (
        "arm", "learning rate", "weight decay", "validation accuracy (%)", "trials", "seconds",
        "examples with a gradient", "on the edge",
    )  # fmt: skip
    note = (
        "Every arm had the same number of trials, each a whole training; the best validation "
        "accuracy after the last epoch won. Seconds and examples are of all trials and in no "
        "other table's total."
    )
    table = Table("tuned", "What was chosen for each arm", columns, tuple(rows), note)
    return table.unless_empty()


def trials_table(run: ReportedRun) -> Table | None:
    """Every point that was tried, an arm's together."""
    trials = () if run.record is None else run.record.trials
    rows = []
    for arm in tuned_arms(trials):
        points = tried(trial for trial in trials if trial.arm == arm)
        best = best_of(points)
        for number, each in enumerate(points, start=1):
            score = ("lost", NOTHING)
            if each.score is not None:
                score = (percent_text(each.score.accuracy), f"{-each.score.gain:.3f}")
            point = (f"{value:.3g}" for value in each.point)
            rows.append((arm, f"{number}", *point, *score, "chosen" if each is best else ""))
    columns = (
        "arm", "trial", "learning rate", "weight decay", "validation accuracy (%)",
        "validation loss", "",
    )  # fmt: skip
    return Table("trials", "What was tried", columns, tuple(rows)).unless_empty()
