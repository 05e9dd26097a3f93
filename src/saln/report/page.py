"""One page that says what came out, written into the run folder with tables and figures."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import jinja2

from saln.errors import DataError, InputError
from saln.files import write_text
from saln.report.figures import draw, run_figures
from saln.report.labels import label_section
from saln.report.tables import run_tables, to_markdown, verdicts

__all__ = ["write_report"]


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Any], list[dict[str, Any]]]:
    if not (folder / "config.json").exists():
        raise InputError(f"{folder} holds no run; give a folder that 'saln compare' wrote")
    if not (folder / "summary.json").exists():
        raise InputError(
            f"{folder} holds a run that was not finished; finish it with "
            f"'saln compare --resume --out {shlex.quote(str(folder))}'"
        )
    try:
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        environment = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"the run in {folder} cannot be read ({error}); run it again") from error
    rows = []
    path = folder / "epochs.jsonl"
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            raise DataError(
                f"{path}, line {number} is no JSON ({error}); remove the line or run again"
            ) from error
    return summary, environment, rows


def write_report(folder: Path) -> Path:
    """Writes ``tables/*.md``, ``figures/*.svg`` and ``report.html`` from a run's rows.

    Returns:
        The path of ``report.html``.

    Raises:
        InputError: The folder holds no finished run.
        DataError: Its files are broken, or the disk cannot be written to.
    """
    folder = folder.expanduser()
    summary, environment, rows = _read(folder)
    tables = run_tables(summary)
    for table in tables:
        write_text(folder / "tables" / f"{table.name}.md", to_markdown(table))
    arms = tuple(summary["arms"])
    figures = []
    for figure in run_figures(rows):
        svg = draw(figure, arms)
        write_text(folder / "figures" / f"{figure.name}.svg", svg)
        inline = svg[svg.index("<svg") :]  # no XML prologue inside HTML
        # Each figure numbers its shapes from 1; on one page the numbers would clash.
        figures.append((figure, inline))
    environment_of_page = jinja2.Environment(
        loader=jinja2.PackageLoader("saln.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment_of_page.get_template("page.html.j2").render(
        summary=summary,
        environment=environment,
        verdicts=verdicts(summary),
        tables=tables,
        figures=figures,
        labels=label_section(folder),
    )
    path = folder / "report.html"
    write_text(path, page)
    return path
