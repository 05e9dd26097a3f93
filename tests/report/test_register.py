"""A figure or a table from outside joins the report by one function."""

from __future__ import annotations

import json
import sys
from importlib import metadata
from types import SimpleNamespace

import pytest
from helpers.experiments_rows import ROWS, about, summary_of
from helpers.quick_figures import not_drawn

import saln.report
from saln.errors import InputError
from saln.report import Figure, IntervalCurve, ReportedRun, Table, catalog, register, write_report


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(catalog, "_added", [])
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "environment.json").write_text("{}")
    (tmp_path / "summary.json").write_text(json.dumps(summary_of(about()).to_json()))
    (tmp_path / "epochs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return tmp_path


@pytest.fixture
def outlines():
    """Without drawing: of what is drawn the first test speaks."""
    with not_drawn():
        yield


def energy(run: ReportedRun) -> Figure:
    curves = tuple(
        IntervalCurve(name, (1, 2), (spent, 2 * spent), (spent, 2 * spent), (spent, 2 * spent))
        for name, spent in (("saln", run.summary.finished["saln"].seconds.total), ("grid", 7.0))
    )
    return Figure("energy", "Energy over epoch", "epoch", "joules", curves, "Energy: two lines.")


def test_a_figure_from_outside_is_in_the_page_and_in_the_figures(folder):
    register("Energy")(energy)
    with not_drawn(but="energy"):
        page = write_report(folder).read_text()
    assert '<figure id="figure-energy"' in page
    assert '<h2 id="section-energy">Energy</h2>' in page
    assert '<a href="#section-energy">Energy</a>' in page
    assert 'aria-label="Energy: two lines."' in page
    svg = (folder / "figures" / "energy.svg").read_text()
    assert svg.count("<svg") == 1
    assert (folder / "figures" / "energy.pdf").read_bytes().startswith(b"%PDF")
    assert (folder / "figures" / "energy.csv").read_text().splitlines() == [
        "arm,epoch,joules,lowest,highest",
        "saln,1,51.0,51.0,51.0",
        "saln,2,102.0,102.0,102.0",
        "grid,1,7.0,7.0,7.0",
        "grid,2,14.0,14.0,14.0",
    ]


def test_a_table_joins_a_section_that_is_there(folder, outlines):
    @saln.report.register(section="Tables")
    def prices(run):
        return Table("prices", "What it cost", ("arm", "euros"), (("saln", "3"),), "At night.")

    @register()
    def nothing(run):
        return None

    page = write_report(folder).read_text()
    place = page.index('id="table-prices">')
    assert page.index('<h2 id="tables">') < place < page.index('<h2 id="curves">')
    assert '<p class="note">At night.</p>' in page
    assert (folder / "tables" / "prices.md").read_text().startswith("**What it cost**")
    assert (folder / "tables" / "prices.csv").read_text() == "arm,euros\nsaln,3\n"


def test_a_function_that_is_registered_twice_is_shown_once(folder, outlines):
    register("Energy")(energy)
    assert register("Curves")(energy) is energy
    page = write_report(folder).read_text()
    assert page.count('<figure id="figure-energy"') == 1
    assert "section-energy" not in page


def test_a_package_adds_its_figure_and_a_broken_one_costs_nothing(
    folder, outlines, monkeypatch, caplog
):
    points = [
        metadata.EntryPoint("energy", f"{__name__}:energy", "saln.report"),
        metadata.EntryPoint("gone", "no_such_module:figure", "saln.report"),
    ]
    monkeypatch.setattr(catalog.metadata, "entry_points", lambda group: points)
    monkeypatch.setitem(sys.modules, __name__, SimpleNamespace(energy=energy))
    catalog._load_packages.cache_clear()
    page = write_report(folder).read_text()
    catalog._load_packages.cache_clear()
    assert page.count('<figure id="figure-energy"') == 1
    assert "the part gone of the report (no_such_module:figure) cannot be used" in caplog.text


@pytest.mark.usefixtures("outlines")
@pytest.mark.parametrize(
    ("shown", "message"),
    [
        (3, "wrong gave a int for the report; give a Table, a Figure"),
        (Table("a/b", "t", ("arm",), ()), "wrong names what it shows 'a/b'; give a name of"),
        (Table("accuracy", "t", ("arm",), ()), "two parts of the report are named accuracy"),
    ],
)
def test_what_cannot_be_shown_is_refused_and_nothing_is_written(folder, shown, message):
    @register()
    def wrong(run):
        return shown

    before = sorted(folder.iterdir())
    with pytest.raises(InputError, match=message):
        write_report(folder)
    assert sorted(folder.iterdir()) == before
