"""Pages that say what came out, written into the run folder with tables and figures."""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import xxhash

from saln.errors import DataError, InputError
from saln.experiments.finished_run import FinishedRun, read_finished
from saln.experiments.run_folder import ANEW, held, read_settings
from saln.files import file_checksum, read_json, read_signed, write_bytes, write_json, write_text
from saln.messages import parameter
from saln.report.choice_section import Chosen, chosen_figures, chosen_tables, read_chosen
from saln.report.comparisons import break_even_lines, comparison_tables, headline, paper_table
from saln.report.drawing import draw, for_page, page_colors
from saln.report.figures import run_figures, summary_figures
from saln.report.gallery import make_gallery
from saln.report.known_labels import knows_truth, noise_text
from saln.report.label_section import label_section
from saln.report.tables import joined_table, run_tables, to_markdown, verdicts
from saln.report.values import Drawing, Table, data_of, to_csv
from saln.report.weight_section import final_weights, weight_figures

# The checksums of what a report wrote, and of the summary that it is of.
_STAMP = ".report.json"


class _ReportedRun(NamedTuple):
    """A finished run's files, read."""

    folder: Path
    preset: str | None
    found: FinishedRun
    environment: dict[str, Any]

    @property
    def summary(self) -> dict[str, Any]:
        return self.found.summary.to_json()

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [row.to_json() for row in self.found.rows]

    @property
    def command(self) -> str:
        """How it was called, as far as that is known."""
        command = self.environment.get("command")
        if isinstance(command, list) and all(isinstance(part, str) for part in command):
            return shlex.join(command)
        return "environment.json, which says it, is damaged; the settings are in config.json"

    @property
    def facts(self) -> dict[str, Any]:
        """What it ran on."""
        return {name: value for name, value in self.environment.items() if name != "command"}


class _Shown(NamedTuple):
    """A figure and its SVG for the page."""

    figure: Drawing
    svg: str


def _read(folder: Path) -> _ReportedRun:
    if not any((folder / name).exists() for name in ("config.json", "progress.json")):
        raise InputError(f"{folder} holds no run; give a folder that 'saln compare' wrote")
    found = read_finished(folder)
    if found is None:
        raise InputError(
            f"{folder} holds a run that was not finished, for it has no summary.json; finish it "
            f"with 'saln compare --resume --out {shlex.quote(str(folder))}'"
        )
    settings = read_settings(folder)
    if not found.is_whole(folder):
        with held(folder):
            found.mend(folder)
    try:
        environment = read_signed(folder / "environment.json", ANEW, must=False)
    except DataError:  # nothing but what the run ran on is lost, and the page says so
        environment = {}
    return _ReportedRun(folder, settings.preset, found, environment)


@contextlib.contextmanager
def _explained(run: _ReportedRun) -> Iterator[None]:
    """Says which file is at fault where nothing could check it before."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, jinja2.UndefinedError) as error:
        if isinstance(error, InputError) or run.found.record is not None:
            raise
        source = run.folder / "summary.json"
        raise DataError(
            f"{source} holds no summary of a run ({type(error).__name__}: {error}); delete it, "
            f"and 'saln compare --resume --out {shlex.quote(str(run.folder))}' makes it anew"
        ) from error


def _templates() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("saln.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


class _Drawn:
    """Files of a report, all made before the first is written: a failure leaves the old ones."""

    def __init__(self, folder: Path, arms: tuple[str, ...]) -> None:
        self.folder = folder
        self.arms = arms
        self.files: dict[str, bytes] = {}

    def add(self, name: str, text: str) -> None:
        """A text; parts of file names in it that are no UTF-8 become question marks."""
        self.files[name] = text.encode("utf-8", errors="replace")

    def table(self, table: Table) -> None:
        """A table as Markdown and as CSV."""
        self.add(f"tables/{table.name}.md", to_markdown(table))
        self.add(f"tables/{table.name}.csv", to_csv(table.columns, table.rows))

    def figure(self, figure: Drawing) -> _Shown:
        """A figure as SVG and PDF, and what it shows as CSV."""
        drawn = draw(figure, self.arms)
        self.add(f"figures/{figure.name}.svg", drawn.svg)
        self.files[f"figures/{figure.name}.pdf"] = drawn.pdf
        self.add(f"figures/{figure.name}.csv", to_csv(*data_of(figure)))
        return _Shown(figure, for_page(drawn, figure.name))

    def write(self) -> None:
        """Writes everything, and last what :func:`is_current` looks at."""
        for name, content in self.files.items():
            write_bytes(self.folder / name, content)
        checksums = {n: xxhash.xxh3_128_hexdigest(content) for n, content in self.files.items()}
        summary = self.folder / "summary.json"
        write_json(self.folder / _STAMP, checksums | {"summary.json": file_checksum(summary)})


def is_current(folder: Path) -> bool:
    """Whether a run's report is there, whole, and of what the run found.

    It is not when drawing it was cut short, or when seeds were added since.
    """
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
    folder = folder.expanduser()
    run = _read(folder)
    left_out = _check_files(run)
    with _explained(run):
        drawn = _draw_report(run, left_out)
    drawn.write()
    return folder / "report.html"


# What is not what was written, and what to do; names are relative to the run folder.
_CURES = {
    "checkpoints": "put the file back, or remove it to draw the report without its weights",
    "choices": "put the file back, or remove the folder choices to draw the report without it",
    "labels.json": "put the file back, or remove it to leave the labels out of the report",
}


def _check_files(run: _ReportedRun) -> tuple[str, ...]:
    """Compares what a report is drawn from with its checksums; gives what is left out of it."""
    record = run.found.record
    if record is None:
        return ()
    left_out = []
    for name in record.files:
        kind = name.split("/")[0]
        unread = kind == "checkpoints" and not name.endswith(f"-seed{run.summary['seeds'][0]}.pt")
        if unread or kind not in _CURES:
            continue
        damaged, image = record.is_damaged(name), name.endswith(".webp")
        if damaged and not image:
            raise DataError(f"{run.folder / name} is not what was written; {_CURES[kind]}")
        if damaged or not (run.folder / name).exists():
            left_out.append(name)
    return tuple(left_out)


def _draw_report(run: _ReportedRun, left_out: tuple[str, ...]) -> _Drawn:
    folder, summary = run.folder, run.summary
    drawn = _Drawn(folder, tuple(summary["arms"]))
    chosen: Chosen | None = read_chosen(folder, summary)
    gallery = None if chosen is None else make_gallery(folder, chosen, left_out)
    tables = (*run_tables(summary), *comparison_tables(summary))
    of_chosen = () if chosen is None else chosen_tables(chosen)
    paper = paper_table(summary, run.preset)
    for table in (*tables, *of_chosen, *([paper[0]] if paper else [])):
        drawn.table(table)

    def shown(figures: Sequence[Drawing]) -> list[_Shown]:
        return [drawn.figure(figure) for figure in figures]

    sums = shown(summary_figures(summary))
    curves = shown(run_figures(run.rows, truth=knows_truth(summary)))
    page = (
        _templates()
        .get_template("page.html.j2")
        .render(
            summary=summary,
            noise=noise_text(summary),
            environment=run.facts,
            command=run.command,
            headline=headline(summary),
            verdicts=verdicts(summary),
            even=break_even_lines(summary),
            paper=paper,
            tables=tables,
            first=[*sums[:1], *curves[:1]],
            curves=[*sums[1:], *curves[1:]],
            gallery=None if gallery is None else gallery.to_json(),
            truth=knows_truth(summary),
            left_out=left_out if gallery is None else gallery.left_out,
            chosen_tables=of_chosen,
            chosen_figures=[] if chosen is None else shown(chosen_figures(chosen)),
            weight_figures=shown(weight_figures(final_weights(folder, summary))),
            colors=page_colors(),
            labels=label_section(folder),
        )
    )
    drawn.add("report.html", page)
    return drawn


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
    runs = [_read(folder.expanduser()) for folder in folders]
    parts = []
    for number, run in enumerate(runs, start=1):
        with _explained(run):
            parts.append(_part(run, f"run{number}-"))
    table = joined_table([(_shown(run.folder), run.summary) for run in runs])
    page = (
        _templates()
        .get_template("joined.html.j2")
        .render(table=table, runs=parts, colors=page_colors())
    )
    write_text(path, page)
    return path


def _shown(folder: Path) -> str:
    return os.fsencode(folder).decode(errors="replace")


def _part(run: _ReportedRun, scope: str) -> dict[str, Any]:
    """What the joined page says of one run."""
    arms = tuple(run.summary["arms"])
    figures = [*summary_figures(run.summary)[:1], *run_figures(run.rows, truth=False)[:1]]
    return {
        "scope": scope,
        "folder": _shown(run.folder),
        "summary": run.summary,
        "noise": noise_text(run.summary),
        "command": run.command,
        "headline": headline(run.summary),
        "verdicts": verdicts(run.summary),
        "figures": [
            _Shown(figure, for_page(draw(figure, arms), f"{scope}{figure.name}"))
            for figure in figures
        ],
    }
