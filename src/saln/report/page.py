"""Pages that say what came out, written into the run folder with tables and figures."""

from __future__ import annotations

import functools
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2

from saln.errors import DataError, InputError
from saln.experiments.choices import sheet_path
from saln.experiments.summary import METRICS
from saln.files import write_text, write_with
from saln.report.chosen import Chosen, chosen_figures, chosen_tables, read_chosen
from saln.report.comparisons import break_even_lines, comparison_tables, headline, paper_table
from saln.report.drawing import draw, for_page, page_colours
from saln.report.figures import run_figures, summary_figures
from saln.report.gallery import Gallery, make_gallery
from saln.report.labels import label_section
from saln.report.tables import joined_table, run_tables, to_markdown, verdicts
from saln.report.values import Drawing, Table, data_of, to_csv
from saln.report.weights import final_weights, weight_figures
from saln.training.ledger import PHASES

__all__ = ["write_joined", "write_report"]

# Tiles of fewer pixels are shown as squares, not as a blur.
SMALL_TILE = 24


class _Run(NamedTuple):
    """A finished run's files, read."""

    folder: Path
    preset: str | None
    summary: dict[str, Any]
    environment: dict[str, Any]
    rows: list[dict[str, Any]]


class _Shown(NamedTuple):
    """A figure and its SVG for the page."""

    figure: Drawing
    svg: str


def _read(folder: Path) -> _Run:
    if not (folder / "config.json").exists():
        raise InputError(f"{folder} holds no run; give a folder that 'saln compare' wrote")
    if not (folder / "summary.json").exists():
        raise InputError(
            f"{folder} holds a run that was not finished; finish it with "
            f"'saln compare --resume --out {shlex.quote(str(folder))}'"
        )
    try:
        config, summary, environment = (
            json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
            for name in ("config", "summary", "environment")
        )
        text = (folder / "epochs.jsonl").read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise DataError(f"the run in {folder} cannot be read ({error}); run it again") from error
    rows = [
        _row(line, f"{folder / 'epochs.jsonl'}, line {number}")
        for number, line in enumerate(text.splitlines(), start=1)
    ]
    return _Run(folder, config.get("preset"), summary, environment, rows)


def _row(line: str, where: str) -> dict[str, Any]:
    """One row of ``epochs.jsonl``, with everything that is drawn of it."""
    try:
        row = json.loads(line)
    except ValueError as error:
        raise DataError(f"{where} is no JSON ({error}); remove the line or run again") from error
    numbers = ["seed", "epoch", "steps", "examples_backward"]
    try:
        found = [row[name] for name in numbers]
        measured = [row[name] for name in METRICS]
        if any(value is not None for value in measured):  # else --evaluate-every left them out
            found += measured
        if row["wrong_label_share_kept"] is not None:  # else nobody knows which are wrong
            found.append(row["wrong_label_share_kept"])
        found += [row["seconds"][name] for name in PHASES]
        whole = isinstance(row["arm"], str) and all(isinstance(n, int | float) for n in found)
    except (KeyError, TypeError) as error:
        raise DataError(
            f"{where} is no row of a run (it lacks {error}); remove the line or run again"
        ) from error
    if not whole:
        raise DataError(
            f"{where} is no row of a run (a value is no number); remove the line or run again"
        )
    return dict(row)


def _templates() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("saln.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _write_table(folder: Path, table: Table) -> None:
    write_text(folder / "tables" / f"{table.name}.md", to_markdown(table))
    write_text(folder / "tables" / f"{table.name}.csv", to_csv(table.columns, table.rows))


def _write_figure(folder: Path, figure: Drawing, arms: tuple[str, ...]) -> _Shown:
    drawn = draw(figure, arms)
    write_text(folder / "figures" / f"{figure.name}.svg", drawn.svg)
    write = functools.partial(_write_bytes, drawn.pdf)
    write_with(folder / "figures" / f"{figure.name}.pdf", write)
    write_text(folder / "figures" / f"{figure.name}.csv", to_csv(*data_of(figure)))
    return _Shown(figure, for_page(drawn, figure.name))


def _write_bytes(content: bytes, path: Path) -> None:
    path.write_bytes(content)


def _gallery_data(folder: Path, gallery: Gallery) -> dict[str, Any]:
    """The gallery as plain values for the page's script."""
    from PIL import Image

    first = gallery.batches[0]
    with Image.open(sheet_path(folder, first.epoch, first.step), formats=["WEBP"]) as sheet:
        small = sheet.width // gallery.columns < SMALL_TILE
    batches = [batch._asdict() for batch in gallery.batches]
    return {**gallery._asdict(), "batches": batches, "small": small}


def write_report(folder: Path) -> Path:
    """Writes ``tables/``, ``figures/`` and ``report.html`` from what a run holds.

    Tables are Markdown and CSV; figures are SVG, PDF and the same data as CSV.

    Returns:
        The path of ``report.html``.

    Raises:
        InputError: The folder holds no finished run.
        DataError: Its files are broken, or the disk cannot be written to.
    """
    folder = folder.expanduser()
    run = _read(folder)
    summary, arms = run.summary, tuple(run.summary["arms"])
    chosen: Chosen | None = read_chosen(folder, summary)
    gallery = None if chosen is None else make_gallery(folder, chosen)
    tables = (*run_tables(summary), *comparison_tables(summary))
    of_chosen = () if chosen is None else chosen_tables(chosen)
    paper = paper_table(summary, run.preset)
    for table in (*tables, *of_chosen, *([paper[0]] if paper else [])):
        _write_table(folder, table)

    def shown(figures: Sequence[Drawing]) -> list[_Shown]:
        return [_write_figure(folder, figure, arms) for figure in figures]

    sums, curves = shown(summary_figures(summary)), shown(run_figures(run.rows))
    page = (
        _templates()
        .get_template("page.html.j2")
        .render(
            summary=summary,
            environment=run.environment,
            command=shlex.join(run.environment["command"]),
            headline=headline(summary),
            verdicts=verdicts(summary),
            even=break_even_lines(summary),
            paper=paper,
            tables=tables,
            first=[*sums[:1], *curves[:1]],
            curves=[*sums[1:], *curves[1:]],
            gallery=None if gallery is None else _gallery_data(folder, gallery),
            chosen_tables=of_chosen,
            chosen_figures=[] if chosen is None else shown(chosen_figures(chosen)),
            weight_figures=shown(weight_figures(final_weights(folder, summary))),
            colours=page_colours(),
            labels=label_section(folder),
        )
    )
    path = folder / "report.html"
    write_text(path, page)
    return path


def write_joined(folders: Sequence[Path], path: Path) -> Path:
    """Writes one page of several runs: a table of all arms, then each run's verdict.

    Returns:
        ``path``.

    Raises:
        InputError: A folder holds no finished run, or ``path`` is a folder.
        DataError: A run's files are broken, or the disk cannot be written to.
    """
    if path.is_dir():
        raise InputError(f"--out {path} is a folder; give the name of a file, such as joined.html")
    runs = [_read(folder.expanduser()) for folder in folders]
    parts = []
    for number, run in enumerate(runs, start=1):
        arms = tuple(run.summary["arms"])
        figures = [*summary_figures(run.summary)[:1], *run_figures(run.rows)[:1]]
        parts.append(
            {
                "scope": f"run{number}-",
                "folder": str(run.folder),
                "summary": run.summary,
                "command": shlex.join(run.environment["command"]),
                "headline": headline(run.summary),
                "verdicts": verdicts(run.summary),
                "figures": [
                    _Shown(figure, for_page(draw(figure, arms), f"run{number}-{figure.name}"))
                    for figure in figures
                ],
            }
        )
    table = joined_table([(str(run.folder), run.summary) for run in runs])
    page = (
        _templates()
        .get_template("joined.html.j2")
        .render(table=table, runs=parts, colours=page_colours())
    )
    write_text(path, page)
    return path
