"""``saln report``: redraw one run, or several together."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from saln.cli.flags import Command
from saln.errors import InputError


@dataclass(frozen=True, kw_only=True)
class ReportSettings:
    """The settings of `saln report`."""

    folders: tuple[Path, ...] = ()
    """The folders of runs, as saln compare wrote them."""
    out: Path = Path("joined.html")
    """The file of the joint page of several runs."""


def _report(settings: ReportSettings) -> int:
    """Redraws tables, figures and report.html of a run; several runs also get a joint page."""
    from saln.report.page import write_joined, write_report

    if not settings.folders:  # a tuple takes none, too: the general message would say less
        raise InputError("saln report needs the folder of a run; give one or more")
    for folder in settings.folders:
        sys.stdout.write(f"{write_report(folder)}\n")
    if len(settings.folders) > 1:
        sys.stdout.write(f"{write_joined(settings.folders, settings.out)}\n")
    return 0


COMMAND = Command(
    name="report",
    settings=ReportSettings,
    run=_report,
    positional=("folders",),
    other_names={"path": "out", "resume": "saln compare --resume"},
)
