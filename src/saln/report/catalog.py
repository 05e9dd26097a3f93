"""What a report is made of: sections, each a list of functions that make a table or a figure.

A function takes a :class:`~saln.report.ReportedRun` and gives a table, a figure, or None where
the run has nothing to show. Yours joins the report with::

    @saln.report.register(section="Energy")
    def joules(run):
        return saln.report.Figure("joules", ...)

or, in an installed package, as an entry point of the group ``saln.report``.
"""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Callable
from importlib import metadata
from typing import NamedTuple

from saln.errors import InputError
from saln.report import choice_section, comparisons, figures, tables, tuning_section
from saln.report.reported_run import ReportedRun
from saln.report.values import Drawing, Table

logger = logging.getLogger(__name__)

Part = Callable[[ReportedRun], Table | Drawing | None]


class Section(NamedTuple):
    """A part of the page: its place, its heading, and what it shows, in order."""

    name: str
    title: str
    parts: tuple[Part, ...]


SECTIONS = (
    # The one picture of the first screen; it has no heading.
    Section("answer", "", (figures.CURVES[0],)),
    Section(
        "tables",
        "Tables",
        (
            tables.accuracy_against_uniform,
            functools.partial(tables.last, what="accuracy"),
            functools.partial(tables.last, what="loss"),
            tables.time,
            tables.counts,
            comparisons.equal_costs,
            comparisons.time_to_standard,
            comparisons.break_even,
            comparisons.one_off,
        ),
    ),
    Section("tuning", "Tuning", (tuning_section.tuned_table, tuning_section.trials_table)),
    Section("paper", "Beside the paper's claims", (comparisons.paper_table,)),
    Section(
        "curves",
        "Curves",
        (*figures.DIFFERENCES, figures.seconds, *figures.CURVES[1:], figures.wrong_labels),
    ),
    Section(
        "chosen",
        "What was chosen",
        (
            choice_section.chosen_table,
            choice_section.times_chosen,
            choice_section.class_mix,
            choice_section.overlaps,
            *choice_section.FACTS,
        ),
    ),
    Section("weights", "The final layer", (figures.weight_map, figures.weight_distribution)),
)
# What a page of several runs draws of each.
JOINED_PARTS: tuple[Part, ...] = (figures.DIFFERENCES[0], figures.CURVES[0])
_added: list[tuple[str, Part]] = []  # heading, function; in the order of registering


def register(section: str = "Curves") -> Callable[[Part], Part]:
    """Lets a function of yours join every report that this process writes.

    Args:
        section: The heading below which the table or figure is shown: one of the report's, or
            one of your own, which comes last.

    Returns:
        A decorator, which gives the function back. A function that is registered twice is
        shown once, where it was put last.
    """

    def add(part: Part) -> Part:
        _added[:] = [(title, other) for title, other in _added if other is not part]
        _added.append((section, part))
        return part

    return add


def sections() -> tuple[Section, ...]:
    """The report's sections, those of registered functions behind them."""
    _load_packages()
    by_title = {section.title: section for section in SECTIONS}
    for title, part in _added:
        # Behind a word of its own: no place of the page's own can have that name.
        place = "section-" + re.sub(r"\W+", "-", title.lower())
        section = by_title.get(title, Section(place, title, ()))
        by_title[title] = section._replace(parts=(*section.parts, part))
    return tuple(by_title.values())


@functools.cache
def _load_packages() -> None:
    """Registers functions of entry points; those that do not do so themselves join the curves."""
    for entry in metadata.entry_points(group="saln.report"):
        try:
            part = entry.load()
            if callable(part) and all(part is not other for _, other in _added):
                register()(part)
        except Exception as error:  # nothing of it may cost the report of a run that took hours
            logger.warning(
                "the part %s of the report (%s) cannot be used: %s: %s",
                entry.name, entry.value, type(error).__name__, error,
            )  # fmt: skip


def make(part: Part, run: ReportedRun) -> Table | Drawing | None:
    """What a function makes of a run; an InputError where it is nothing that can be shown."""
    shown = part(run)
    source = getattr(part, "__name__", repr(part))
    if shown is not None and not isinstance(shown, Table | Drawing):
        raise InputError(
            f"{source} gave a {type(shown).__name__} for the report; give a Table, a Figure, Bars, "
            "Intervals, a HeatMap, or None for nothing to show"
        )
    # It becomes the name of files and an anchor: a path could leave the folder.
    if shown is not None and not re.fullmatch(r"[\w-]+", shown.name):
        raise InputError(
            f"{source} names what it shows {shown.name!r}; give a name of letters, digits, '_' "
            "and '-', for it is that of a file"
        )
    return shown
