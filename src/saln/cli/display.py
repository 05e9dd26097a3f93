"""What a person sees: live progress on a terminal, plain lines elsewhere, one table."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from saln.experiments.reporter import Reporter
from saln.experiments.rows import EpochRow, Summary
from saln.report.first_screen import first_screen, labels_line, next_step
from saln.report.label_section import LabelDoubts
from saln.report.tables import arm_cells, verdicts

WIDTH = 100


def _epoch_line(row: EpochRow, epochs: int) -> str:
    measured = ""
    if row.evaluated:  # else --evaluate-every leaves this epoch out
        measured = (
            f"train {row.train_accuracy:.1%}  validation {row.validation_accuracy:.1%}  "
            f"test {row.test_accuracy:.1%}  loss {row.train_loss:.3f}  "
        )
    where = f"{row.arm}, seed {row.seed}: epoch {row.epoch}/{epochs}"
    return f"{where}  {measured}{row.seconds.spent:.2f} s"


class TimeLeft:
    """How long a comparison will take from here, by what each arm's epochs took so far."""

    def __init__(self, arms: Sequence[str], seeds: int, epochs: int) -> None:
        self.waiting = dict.fromkeys(arms, seeds * epochs)
        self.spent: dict[str, list[float]] = {}

    def __call__(self, row: EpochRow) -> str:
        """Counts an epoch and says what is left; nothing of an arm that is not of the plan."""
        if row.arm not in self.waiting:
            return ""
        self.waiting[row.arm] -= 1
        self.spent.setdefault(row.arm, []).append(row.seconds.spent + row.seconds.evaluate)
        means = {arm: sum(each) / len(each) for arm, each in self.spent.items()}
        # An arm that has not begun is taken to be like the others.
        usual = sum(means.values()) / len(means)
        left = sum(count * means.get(arm, usual) for arm, count in self.waiting.items())
        return f"  about {left:,.0f} s left in all" if left >= 1 else ""


class _Plain:
    """One line an event, no control codes: for files, pipes and continuous integration."""

    def __init__(self, left: TimeLeft | None = None) -> None:
        self.left = left

    def note(self, text: str) -> None:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()  # a line at a time, also where standard error is a buffered file

    def begin(self, what: str, total: int) -> None:
        self.note(f"{what}: {total:,} examples")

    def advance(self, examples: int) -> None:
        pass  # a line for every batch would bury the others

    def epoch(self, row: EpochRow, epochs: int) -> None:
        left = "" if self.left is None else self.left(row)
        self.note(_epoch_line(row, epochs) + left)


class _Silent(_Plain):
    """For the processes that leave the talking to the first."""

    def note(self, text: str) -> None:
        pass


class _Live:
    """A progress bar with images/s and time left; the last epoch's result beside it."""

    def __init__(self, progress: Progress, left: TimeLeft | None = None) -> None:
        self.progress, self.left = progress, left
        self.task: TaskID | None = None

    def note(self, text: str) -> None:
        self.progress.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def begin(self, what: str, total: int) -> None:
        if self.task is not None:  # one bar at a time: the one before has ended
            self.progress.remove_task(self.task)
        self.done, self.started, self.measured = 0, time.perf_counter(), ""
        self.task = self.progress.add_task(what, total=total, speed="", result="")

    def advance(self, examples: int) -> None:
        if self.task is not None:
            self.done += examples
            speed = self.done / max(time.perf_counter() - self.started, 1e-9)
            self.progress.update(self.task, advance=examples, speed=f"{speed:,.0f} images/s")

    def epoch(self, row: EpochRow, epochs: int) -> None:
        left = "" if self.left is None else self.left(row)
        if self.task is None:
            return
        if row.evaluated:
            self.measured = f" test {row.test_accuracy:.1%}"
        result = f"epoch {row.epoch}/{epochs}{self.measured}{left}"
        self.progress.update(self.task, result=result)
        if row.epoch == epochs:  # the bar goes; this line of it stays on the screen
            self.note(_epoch_line(row, epochs))


@contextmanager
def open_reporter(*, silent: bool = False, left: TimeLeft | None = None) -> Iterator[Reporter]:
    """Gives a reporter that suits standard error, or one that says nothing."""
    if silent or not sys.stderr.isatty():
        yield _Silent() if silent else _Plain(left)
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}", markup=False),
        TimeRemainingColumn(),
        TextColumn("{task.fields[result]}", markup=False),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield _Live(progress, left)  # it is cleared at the end; the notes stay


def open_console() -> Console:
    """A console on standard output."""
    # Elsewhere than on a terminal rich would guess 80 columns.
    return Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False, markup=False)


def print_summary(summary: Summary, doubts: LabelDoubts | None = None) -> None:
    """Prints one table with a row an arm, then the verdicts and what to do next."""
    console = open_console()
    # Names as long as facility-location leave less room between the columns, and the last
    # one is the only one to break its lines.
    gap = 2 if max(map(len, summary.arms)) <= 8 else 1
    table = Table(box=None, padding=(0, gap, 0, 0), pad_edge=False, show_header=True)
    # The total has lines of words below its number.
    for heading in ("arm", "train / valid. / test", "s/epoch", "total s", "steps", "gradients"):
        number = heading in ("s/epoch", "steps", "gradients")
        table.add_column(heading, justify="right" if number else "left", no_wrap=True)
    table.add_column("against uniform")
    for arm, entry in summary.arms.items():
        table.add_row(*arm_cells(arm, entry))
    console.print(table)
    sys.stdout.write("\n")
    for line in verdicts(summary):
        sys.stdout.write(line + "\n")
    sys.stdout.write("\n")
    first = first_screen(summary, doubts)
    lines = {"verdict": first.verdict, "labels": labels_line(doubts), "seeds": first.seeds}
    print_facts({name: text for name, text in lines.items() if text})
    print_facts({"next": f"{next_step(summary)}   (finds the wrong labels of a data set)"})


def print_facts(facts: Mapping[str, object]) -> None:
    """Prints what came out, a line each: its name, and what it is."""
    for name, value in facts.items():
        sys.stdout.write(f"{name:<8} {value}\n")
