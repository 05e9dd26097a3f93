"""``saln labels``: which labels of a data set are wrong; ``saln labels apply`` repairs them."""

from __future__ import annotations

import importlib
import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saln.cli.flags import Command
from saln.review.review_run import Review, ReviewSettings

# Pairs of classes that are shown.
SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class LabelsSettings(ReviewSettings):
    """The settings of `saln labels`."""

    json: bool = False
    """Print one JSON object in the place of lines."""


def _labels(settings: LabelsSettings) -> int:
    """Judges every label of a data set by all the others; no network is trained.

    Writes labels.csv and labels.html, the worst first, into a folder of its own. The same command
    goes on where it was stopped, and computes only what is new.

    'saln labels apply decisions.csv' repairs the labels by what was decided on the page; 'saln
    labels apply --help' lists what it takes.
    """
    from saln.cli.display import open_reporter
    from saln.experiments.reporter import FeatureProgress
    from saln.review.review_files import write_review
    from saln.review.review_run import run_review

    with open_reporter() as reporter:
        review = run_review(settings, watch=lambda title: FeatureProgress(reporter, title))
    facts = write_review(review, settings.folder)
    if settings.json:
        sys.stdout.write(json.dumps(facts) + "\n")
    else:
        _print_review(review, settings.folder)
    return 0


def _print_review(review: Review, out: Path) -> None:
    from saln.cli.display import print_facts

    table = review.table
    suspects = table.suspects
    looked = f"{len(table):,} labels"
    looked += f" of {len(table.class_names):,} classes" if table.class_names else ""
    lines: dict[str, Any] = {"judged": looked}
    for remark in () if review.read is None else review.read.remarks:
        what, _, text = remark.partition(": ")
        lines[what] = text
    lines["wrong"] = f"{len(suspects):,} look wrong"
    if table.message:
        lines["wrong"] += f"; {table.message}"
    else:
        low, high = table.noise_interval
        lines["wrong"] += f"; estimated {table.noise_rate:.1%} of all ({low:.1%} to {high:.1%})"
    pairs = Counter((table.given[row], table.believed[row]) for row in suspects.tolist())
    if pairs and table.task == "classes":
        lines["classes"] = ", ".join(
            f"{given} -> {believed} {count:,}"
            for (given, believed), count in pairs.most_common(SHOWN)
        )
    problems = [row for row, problem in enumerate(table.problem) if problem]
    if problems:
        first = f"{table.ids[problems[0]]}: {table.problem[problems[0]]}"
        lines["problems"] = f"{len(problems):,}, the first {first}"
    lines["list"] = out / "labels.csv"
    lines["page"] = out / "labels.html"
    print_facts(lines | {"took": f"{review.seconds['total']:,.1f} s"})


class _LabelsCommand(Command[LabelsSettings]):
    """``saln labels SPEC``, or ``saln labels apply``, which has flags of its own."""

    def __call__(self, arguments: Sequence[str]) -> int:
        if arguments[:1] == ["apply"]:
            return int(_apply_command()(arguments[1:]))
        return super().__call__(arguments)

    def read(self, arguments: Sequence[str]) -> Any:
        """Reads what came after the command; see :class:`Command`."""
        if arguments[:1] == ["apply"]:
            return _apply_command().read(arguments[1:])
        return super().read(arguments)


def _apply_command() -> Any:
    return importlib.import_module("saln.cli.apply_command").COMMAND


COMMAND = _LabelsCommand(
    name="labels",
    settings=LabelsSettings,
    run=_labels,
    positional=("dataset",),
    other_names={"unreadable": "--no-strict", "image_size": "feature_size"},
)
