"""The tables of a run's results, and the same in sentences."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from saln.experiments.arm import STANDARD, keeps_all
from saln.experiments.rows import SPLITS, ArmSummary, StoppedArm, Summary
from saln.report.number_text import (
    NOTHING,
    UNKNOWN,
    metric_text,
    number_text,
    percent_text,
    points_text,
)
from saln.report.reported_run import ReportedRun
from saln.report.tuning_section import edge_line, tuned_text
from saln.report.values import Table
from saln.training.cost_ledger import ONCE, PHASES

SECONDS = ("total", *ONCE, *PHASES)  # in the order in which they are spent


def _against(entry: ArmSummary) -> tuple[str, str]:
    """The difference to the control in points with its interval, and the verdict."""
    versus = entry.versus_uniform
    return (NOTHING, "") if versus is None else (points_text(versus), versus.verdict)


def arm_cells(arm: str, entry: ArmSummary | StoppedArm) -> tuple[str, ...]:
    """One arm's row in the terminal's table, two lines a cell."""
    if isinstance(entry, StoppedArm):
        return (arm, "stopped: see the error below", "", "", "", "", "")
    accuracy = " / ".join(percent_text(entry.metric(f"{s}_accuracy").mean) for s in SPLITS)
    loss = " / ".join(f"{entry.metric(f'{s}_loss').mean:.2f}" for s in SPLITS)
    seconds = entry.seconds
    once = [(name, getattr(seconds, name)) for name in ("features", "reference", "tune")]
    difference, verdict = _against(entry)
    return (
        arm,
        f"{accuracy} %\n{loss} loss" + (f"\n{tuned_text(entry.tuned)}" if entry.tuned else ""),
        f"{seconds.per_epoch:.3f}",
        number_text(seconds.total, comma=True)
        + "".join(f"\n{name} {number_text(spent, comma=True)}" for name, spent in once if spent),
        f"{entry.steps:,}",
        f"{entry.examples_backward:,}",
        # The verdict stands below: the last column is the one that breaks its lines.
        "\n".join([*difference.split(" ", 1), verdict]).rstrip(),
    )


def _table(
    run: ReportedRun,
    name: str,
    title: str,
    columns: Sequence[str],
    cells: Callable[[ArmSummary], Sequence[str]],
) -> Table:
    """A row an arm that was not stopped."""
    rows = tuple((arm, *cells(entry)) for arm, entry in run.summary.finished.items())
    return Table(name, title, ("arm", *columns), rows)


def accuracy_against_uniform(run: ReportedRun) -> Table:
    """Test accuracy beside the control's."""
    return _table(
        run,
        "test_accuracy",
        "Test accuracy (%) and its difference to uniform (points)",
        ("test", "difference to uniform", "verdict"),
        lambda entry: (metric_text(entry.test_accuracy, percent=True), *_against(entry)),
    )


def last(run: ReportedRun, what: str) -> Table:
    """Accuracy, the paper's first table, or loss of every split."""
    percent = what == "accuracy"
    return _table(
        run,
        what,
        f"{'Accuracy (%)' if percent else 'Cross-entropy'} after the last epoch",
        SPLITS,
        lambda entry: [metric_text(entry.metric(f"{s}_{what}"), percent=percent) for s in SPLITS],
    )


def time(run: ReportedRun) -> Table:
    """Where the seconds went; those of tuning stand last, for they are no part of the total."""
    tuned = any(entry.tuned for entry in run.summary.finished.values())
    columns = (*SECONDS, "tune") if tuned else SECONDS
    return _table(
        run,
        "time",
        "Seconds; an epoch's leave out evaluation and one-off work",
        ("an epoch", *columns),
        lambda entry: (
            f"{entry.seconds.per_epoch:.3f}",
            *(f"{getattr(entry.seconds, name):.1f}" for name in columns),
        ),
    )


def counts(run: ReportedRun) -> Table:
    """How much work it was, and how much of it was on wrong labels."""

    def wrong(entry: ArmSummary) -> str:
        share = entry.wrong_label_share_kept
        return UNKNOWN if share is None or not run.summary.knows_truth else percent_text(share)

    return _table(
        run,
        "counts",
        "Steps and examples of a run, and wrong labels among the kept (%; known only of "
        "labels that were replaced on purpose)",
        ("steps", "examples forward", "examples with a gradient", "wrong labels kept"),
        lambda entry: (
            f"{entry.steps:,}",
            f"{entry.examples_forward:,}",
            f"{entry.examples_backward:,}",
            wrong(entry),
        ),
    )


def joined_table(runs: Sequence[tuple[str, Summary]]) -> Table:
    """All arms of several runs, a row each; the run's folder first."""
    rows = []
    for folder, summary in runs:
        noise = f"{100 * summary.label_noise:.0f}" if summary.knows_truth else UNKNOWN
        for arm, entry in summary.finished.items():
            accuracy = metric_text(entry.test_accuracy, percent=True)
            epoch = f"{entry.seconds.per_epoch:.3f}"
            rows.append((folder, summary.dataset, noise, arm, accuracy, *_against(entry), epoch))
    columns = (
        "run", "data set", "wrong labels (%)", "arm", "test accuracy (%)",
        "difference to uniform", "verdict", "seconds an epoch",
    )  # fmt: skip
    return Table("joined", "Test accuracy of every arm of every run", columns, tuple(rows))


def to_markdown(table: Table) -> str:
    """A table as GitHub Markdown, under its title."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    # The first column is text, the others are numbers, which line up at the right.
    rule = "|" + " --- |" + " ---: |" * (len(table.columns) - 1)
    lines = [f"**{table.title}**", "", line(table.columns), rule, *map(line, table.rows)]
    return "\n".join(lines) + "\n"


def verdicts(summary: Summary) -> tuple[str, ...]:
    """Plain sentences: which arm was better than uniform, and what an epoch cost."""
    lines = []
    for arm, entry in summary.arms.items():
        if isinstance(entry, StoppedArm):
            lines.append(f"{arm} was stopped: {entry.error}")
        elif entry.versus_uniform is not None:
            versus = entry.versus_uniform
            points = number_text(100 * versus.difference, sign=True)
            why = "one seed has no interval; run more seeds"
            if versus.ci95 is not None:
                low, high = (number_text(100 * end, sign=True) for end in versus.ci95)
                why = f"95% interval {low} to {high}"
            lines.append(
                f"{arm} against uniform: {versus.verdict} ({points} points of test accuracy; {why})"
            )
    lines += [line for line in [edge_line(summary)] if line]
    arms = summary.finished
    base = arms.get(STANDARD.label)
    if base is not None:
        cheaper = [
            f"{arm} {number_text(base.seconds.per_epoch / entry.seconds.per_epoch)}"
            for arm, entry in arms.items()
            if not keeps_all(arm) and entry.seconds.per_epoch > 0
        ]
        if cheaper:
            lines.append(
                "times as fast as standard, an epoch, loading and choosing included: "
                + ", ".join(cheaper)
            )
    return tuple(lines)
