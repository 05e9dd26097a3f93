"""A run's tables: values first, formats after."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from saln.experiments.arm import keeps_all
from saln.report.known_labels import UNKNOWN, knows_truth
from saln.report.values import Table
from saln.training.cost_ledger import ONCE, PHASES

SPLITS = ("train", "validation", "test")
SECONDS = ("total", *ONCE, *PHASES)


def _percent(metric: dict[str, Any]) -> str:
    text = f"{100 * metric['mean']:.1f}"
    if metric["ci95"] is not None:
        text += f" ± {100 * (metric['ci95'][1] - metric['mean']):.1f}"
    return text


def _number(metric: dict[str, Any]) -> str:
    text = f"{metric['mean']:.3f}"
    if metric["ci95"] is not None:
        text += f" ± {metric['ci95'][1] - metric['mean']:.3f}"
    return text


def _against(entry: dict[str, Any]) -> tuple[str, str]:
    """The difference in points with its interval, and the verdict."""
    versus = entry["versus_uniform"]
    if versus is None:
        return "–", ""
    text = f"{100 * versus['difference']:+.1f}"
    if versus["ci95"] is not None:
        low, high = (100 * bound for bound in versus["ci95"])
        text += f" [{low:+.1f}, {high:+.1f}]"
    return text, versus["verdict"]


def arm_cells(arm: str, entry: dict[str, Any]) -> tuple[str, ...]:
    """One arm's row in the terminal's table, two lines a cell."""
    if "error" in entry:
        return (arm, "stopped: see the error below", "", "", "", "", "")
    accuracy = " / ".join(f"{100 * entry[f'{s}_accuracy']['mean']:.1f}" for s in SPLITS)
    loss = " / ".join(f"{entry[f'{s}_loss']['mean']:.2f}" for s in SPLITS)
    seconds = entry["seconds"]
    once = [f"{name} {seconds[name]:,.1f}" for name in ("features", "reference") if seconds[name]]
    difference, verdict = _against(entry)
    return (
        arm,
        f"{accuracy} %\n{loss} loss",
        f"{seconds['per_epoch']:.3f}",
        f"{seconds['total']:,.1f}" + "".join(f"\n{text}" for text in once),
        f"{entry['steps']:,}",
        f"{entry['examples_backward']:,}",
        "\n".join([*difference.split(" ", 1), verdict]).rstrip(),
    )


def _wrong_kept(summary: dict[str, Any], entry: dict[str, Any]) -> str:
    share = entry["wrong_label_share_kept"]
    known = knows_truth(summary) and share is not None
    return f"{100 * share:.1f}" if known else UNKNOWN


def _finished(summary: dict[str, Any]) -> dict[str, Any]:
    return {arm: entry for arm, entry in summary["arms"].items() if "error" not in entry}


def run_tables(summary: dict[str, Any]) -> tuple[Table, ...]:
    """The tables of a run: accuracy, loss, test accuracy, time (the paper's four), costs."""
    arms = _finished(summary)

    def table(name: str, title: str, columns: Sequence[str], rows: Any) -> Table:
        return Table(name, title, ("arm", *columns), tuple((arm, *row) for arm, row in rows))

    return (
        table(
            "test_accuracy",
            "Test accuracy (%) and its difference to uniform (points)",
            ("test", "difference to uniform", "verdict"),
            [(a, (_percent(e["test_accuracy"]), *_against(e))) for a, e in arms.items()],
        ),
        table(
            "accuracy",
            "Accuracy (%) after the last epoch",
            SPLITS,
            [(a, [_percent(e[f"{s}_accuracy"]) for s in SPLITS]) for a, e in arms.items()],
        ),
        table(
            "loss",
            "Cross-entropy after the last epoch",
            SPLITS,
            [(a, [_number(e[f"{s}_loss"]) for s in SPLITS]) for a, e in arms.items()],
        ),
        table(
            "time",
            "Seconds; an epoch's leave out evaluation and one-off work",
            ("an epoch", *SECONDS),
            [
                (
                    a,
                    [f"{e['seconds']['per_epoch']:.3f}"]
                    + [f"{e['seconds'][name]:.1f}" for name in SECONDS],
                )
                for a, e in arms.items()
            ],
        ),
        table(
            "counts",
            "Steps and examples of a run, and wrong labels among the kept (%; known only of "
            "labels that were replaced on purpose)",
            ("steps", "examples forward", "examples with a gradient", "wrong labels kept"),
            [
                (
                    a,
                    (
                        f"{e['steps']:,}",
                        f"{e['examples_forward']:,}",
                        f"{e['examples_backward']:,}",
                        _wrong_kept(summary, e),
                    ),
                )
                for a, e in arms.items()
            ],
        ),
    )


def joined_table(runs: Sequence[tuple[str, dict[str, Any]]]) -> Table:
    """All arms of several runs, a row each; the run's folder first."""
    rows = [
        (
            folder,
            summary["dataset"],
            f"{100 * summary['label_noise']:.0f}" if knows_truth(summary) else UNKNOWN,
            arm,
            _percent(entry["test_accuracy"]),
            *_against(entry),
            f"{entry['seconds']['per_epoch']:.3f}",
        )
        for folder, summary in runs
        for arm, entry in _finished(summary).items()
    ]
    columns = (
        "run", "data set", "wrong labels (%)", "arm", "test accuracy (%)",
        "difference to uniform", "verdict", "seconds an epoch",
    )  # fmt: skip
    return Table("joined", "Test accuracy of every arm of every run", columns, tuple(rows))


def to_markdown(table: Table) -> str:
    """A table as GitHub Markdown, under its title."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    rule = "|" + " --- |" + " ---: |" * (len(table.columns) - 1)
    lines = [f"**{table.title}**", "", line(table.columns), rule, *map(line, table.rows)]
    return "\n".join(lines) + "\n"


def verdicts(summary: dict[str, Any]) -> tuple[str, ...]:
    """Plain sentences: which arm was better than uniform, and what an epoch cost."""
    arms = _finished(summary)
    lines = []
    for arm, entry in summary["arms"].items():
        if "error" in entry:
            lines.append(f"{arm} was stopped: {entry['error']}")
            continue
        versus = entry["versus_uniform"]
        if versus is not None:
            points = f"{100 * versus['difference']:+.1f} points of test accuracy"
            why = (
                "one seed has no interval; run more seeds"
                if versus["ci95"] is None
                else f"95% interval {100 * versus['ci95'][0]:+.1f} to "
                f"{100 * versus['ci95'][1]:+.1f}"
            )
            lines.append(f"{arm} against uniform: {versus['verdict']} ({points}; {why})")
    base = next((entry for arm, entry in arms.items() if keeps_all(arm)), None)
    if base is not None:
        cheaper = [
            f"{arm} {base['seconds']['per_epoch'] / entry['seconds']['per_epoch']:.1f}"
            for arm, entry in arms.items()
            if not keeps_all(arm) and entry["seconds"]["per_epoch"] > 0
        ]
        if cheaper:
            lines.append(
                "times as fast as standard, an epoch, loading and choosing included: "
                + ", ".join(cheaper)
            )
    return tuple(lines)
