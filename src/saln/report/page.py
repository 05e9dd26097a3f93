"""Pages that say what came out, written into the run folder with tables and figures."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import xxhash

from saln.errors import DataError, InputError
from saln.experiments.run_folder import RunFolder
from saln.files import file_checksum, read_json, write_bytes, write_json, write_text
from saln.messages import parameter
from saln.report.catalog import JOINED_PARTS, Section, make, sections
from saln.report.comparisons import break_even_lines, headline
from saln.report.drawing import draw, for_page, page_colors
from saln.report.first_screen import first_screen
from saln.report.gallery import doubted_thumbnails, make_gallery
from saln.report.glossary import GLOSSARY, explained
from saln.report.label_section import label_section, read_doubts
from saln.report.number_text import noise_text
from saln.report.reported_run import ReportedRun, read_run
from saln.report.tables import joined_table, to_markdown, verdicts
from saln.report.values import Drawing, Table, data_of, to_csv

# The checksums of what a report wrote, and of the summary that it is of.
_STAMP = ".report.json"


class _DrawnFigure(NamedTuple):
    """A figure and its SVG for the page."""

    figure: Drawing
    svg: str


class _DrawnSection(NamedTuple):
    """What the page shows of a section."""

    name: str
    title: str
    tables: list[Table]
    figures: list[_DrawnFigure]


@functools.cache
def _templates() -> jinja2.Environment:
    """The pages' templates; what is put into them is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("saln.report", "templates"),
        autoescape=True,  # names of classes and folders come from anywhere
        undefined=jinja2.StrictUndefined,  # a name that is misspelled must not show as nothing
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["explained"] = explained
    return environment


class _ReportFiles:
    """Files of a report, all made before the first is written: a failure leaves the old ones."""

    def __init__(self, run: ReportedRun) -> None:
        self.run = run
        self.files: dict[str, bytes] = {}

    def add(self, name: str, content: str | bytes) -> None:
        """A file; parts of file names in a text that are no UTF-8 become question marks."""
        if name in self.files:
            raise InputError(f"two parts of the report are named {Path(name).stem}; rename one")
        if isinstance(content, str):
            content = content.encode("utf-8", errors="replace")
        self.files[name] = content

    def section(self, section: Section) -> _DrawnSection:
        """What a section shows of the run; a table becomes Markdown and CSV."""
        drawn = _DrawnSection(section.name, section.title, [], [])
        for part in section.parts:
            shown = make(part, self.run)
            if isinstance(shown, Table):
                self.add(f"tables/{shown.name}.md", to_markdown(shown))
                self.add(f"tables/{shown.name}.csv", to_csv(shown.columns, shown.rows))
                drawn.tables.append(shown)
            elif shown is not None:
                drawn.figures.append(self._figure(shown))
        return drawn

    def _figure(self, figure: Drawing) -> _DrawnFigure:
        """A figure as SVG and PDF, and what it shows as CSV."""
        drawn = draw(figure, tuple(self.run.summary.arms))
        self.add(f"figures/{figure.name}.svg", drawn.svg)
        self.add(f"figures/{figure.name}.pdf", drawn.pdf)
        self.add(f"figures/{figure.name}.csv", to_csv(*data_of(figure)))
        return _DrawnFigure(figure, for_page(drawn, figure.name))

    def write(self) -> None:
        """Writes everything, and last what :func:`is_current` looks at."""
        folder = self.run.folder
        # Whole files one by one: a kill leaves a page without its stamp, which is drawn again.
        for name, content in self.files.items():
            write_bytes(folder / name, content)
        checksums = {n: xxhash.xxh3_128_hexdigest(content) for n, content in self.files.items()}
        summary = file_checksum(RunFolder(folder).summary)
        write_json(folder / _STAMP, checksums | {"summary.json": summary})


def is_current(folder: Path) -> bool:
    """Whether a run's report is there, whole, and of the summary, which more seeds change."""
    try:
        checksums = read_json(folder / _STAMP, "")
        return all(file_checksum(folder / name) == value for name, value in checksums.items())
    except (DataError, OSError, ValueError):  # ValueError: a null byte in a name
        return False


def write_report(folder: Path) -> Path:
    """Writes ``tables/``, ``figures/`` and ``report.html`` from what a run holds.

    Tables are Markdown and CSV; figures are SVG, PDF and the same data as CSV. Rows and
    summary that are damaged are made anew first; images that are damaged are left out.

    Returns:
        The path of ``report.html``.

    Raises:
        InputError: The folder holds no finished run.
        DataError: Its files are broken, or the disk cannot be written to.
    """
    run = read_run(folder)
    files = _ReportFiles(run)
    files.add("report.html", _page(run, files))
    files.write()
    return RunFolder(run.folder).report


def _about(run: ReportedRun) -> dict[str, Any]:
    """What every page says of a run."""
    return {
        "summary": run.summary,
        "noise": noise_text(run.summary),
        "command": run.command,
        "headline": headline(run.summary),
        "verdicts": verdicts(run.summary),
    }


def _page(run: ReportedRun, files: _ReportFiles) -> str:
    left_out: Sequence[str] = run.left_out  # first: a damaged file is named before all else
    gallery = None if run.chosen is None else make_gallery(run.folder, run.chosen, left_out)
    # Drawing takes seconds: the labels and the gallery, which may be refused, come before it.
    doubts = read_doubts(run.folder)
    labels = label_section(run.folder)
    drawn = [files.section(section) for section in sections()]
    values = {
        "environment": run.facts,
        "even": break_even_lines(run.summary),
        "sections": {section.name: section for section in drawn},
        "gallery": None if gallery is None else gallery.to_json(),
        "truth": run.summary.knows_truth,
        "left_out": left_out if gallery is None else gallery.left_out,
        "colors": page_colors(),
        "labels": labels,
        "first": first_screen(run.summary, doubts),
        "suspects": doubted_thumbnails(run.folder, doubts, left_out),
        "glossary": GLOSSARY,
    }
    page: str = _templates().get_template("page.html.j2").render(_about(run) | values)
    return page


def write_joined(folders: Sequence[Path], path: Path) -> Path:
    """Writes one page of several runs: a table of all arms, then each run's verdict.

    Returns:
        ``path``.

    Raises:
        InputError: A folder holds no finished run, or ``path`` is a folder.
        DataError: A run's files are broken, or the disk cannot be written to.
    """
    if path.is_dir():
        raise InputError(
            f"{parameter('path')} {path} is a folder; give the name of a file, such as joined.html"
        )
    runs = [read_run(folder) for folder in folders]
    parts = [_part(run, f"run{number}-") for number, run in enumerate(runs, start=1)]
    table = joined_table([(_shown(run.folder), run.summary) for run in runs])
    template = _templates().get_template("joined.html.j2")
    write_text(path, template.render(table=table, runs=parts, colors=page_colors()))
    return path


def _shown(folder: Path) -> str:
    return os.fsencode(folder).decode(errors="replace")


def _part(run: ReportedRun, scope: str) -> dict[str, Any]:
    """What the joined page says of one run: its answer, as its own page begins."""
    shown = [make(part, run) for part in JOINED_PARTS]
    arms = tuple(run.summary.arms)  # also those that are not drawn: colors are by place
    figures = [
        _DrawnFigure(figure, for_page(draw(figure, arms), f"{scope}{figure.name}"))
        for figure in shown
        if isinstance(figure, Drawing)
    ]
    return _about(run) | {"scope": scope, "folder": _shown(run.folder), "figures": figures}
