from __future__ import annotations

import html.parser
import json
import re
import xml.etree.ElementTree as ET

import pytest
from helpers.experiments_rows import COSTS, ROWS, about, made, run_of, summary_of
from helpers.quick_figures import not_drawn

from saln.errors import DataError, InputError
from saln.report.catalog import SECTIONS
from saln.report.drawing import draw, for_page
from saln.report.figures import CURVES, DIFFERENCES, seconds
from saln.report.page import write_joined, write_report
from saln.report.tables import accuracy_against_uniform, arm_cells, to_markdown, verdicts
from saln.report.values import (
    Bars,
    HeatMap,
    IntervalCurve,
    Intervals,
    Panel,
    Table,
    data_of,
    to_csv,
)


@pytest.fixture
def summary():
    return summary_of(about(label_noise=0.4), ROWS, COSTS, {})


@pytest.fixture
def run_folder(tmp_path, summary):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "environment.json").write_text(json.dumps({"command": ["saln", "compare"]}))
    (tmp_path / "summary.json").write_text(json.dumps(summary.to_json()))
    (tmp_path / "epochs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return tmp_path


def test_tables_hold_what_the_summary_says(summary):
    tables = made(SECTIONS[1].parts, run_of(summary))
    assert tables["accuracy"].columns == ("arm", "train", "validation", "test")
    # Test accuracies 0.4, 0.6: mean 50, half interval t(0.975, 1) * 10 = 127.1 points.
    assert tables["accuracy"].rows[0] == ("uniform", *["50.0 ± 127.1"] * 3)
    assert tables["test_accuracy"].rows[1][2:] == ("+10.0 [+10.0, +10.0]", "better")
    assert tables["time"].rows[1] == (
        "saln", "15.000", "51.0", "9.0", "0.0", "1.0", "2.0", "4.0", "8.0", "16.0", "10.0",
    )  # fmt: skip
    assert tables["counts"].rows[1] == ("saln", "20", "140", "80", "22.5")


def test_markdown_is_a_table_and_escapes_bars():
    text = to_markdown(Table("t", "Title", ("arm", "x"), (("a|b", "1"),)))
    assert text == "**Title**\n\n| arm | x |\n| --- | ---: |\n| a\\|b | 1 |\n"


def test_verdicts_are_sentences(summary):
    lines = verdicts(summary)
    assert lines == (
        "saln against uniform: better (+10.0 points of test accuracy; 95% interval +10.0 to +10.0)",
    )
    single = summary_of(about(seeds=[0]), [r for r in ROWS if r["seed"] == 0], COSTS, {})
    assert "one seed has no interval" in verdicts(single)[0]


def test_verdicts_compare_the_cost_of_an_epoch_with_standards():
    renamed = [row | {"arm": {"uniform": "standard"}.get(row["arm"], row["arm"])} for row in ROWS]
    costs = {("standard" if a == "uniform" else a, s): c for (a, s), c in COSTS.items()}
    summary = summary_of(about(methods=["standard", "saln"]), renamed, costs, {})
    # 5 seconds an epoch against 15
    assert verdicts(summary)[-1].endswith("loading and choosing included: saln 0.3")


def test_a_failed_arm_is_said(summary):
    failed = summary_of(about(), ROWS, COSTS, {("saln", 0): "saln, seed 0: the loss is nan"})
    assert verdicts(failed) == ("saln was stopped: saln, seed 0: the loss is nan",)
    assert arm_cells("saln", failed.arms["saln"])[1].startswith("stopped")
    assert [row[0] for row in accuracy_against_uniform(run_of(failed)).rows] == ["uniform"]


def test_curves_are_means_with_their_range():
    figures = made(CURVES, run_of())
    uniform, saln = figures["test_accuracy_over_epoch"].curves
    assert uniform == IntervalCurve(
        "uniform", (1, 2), pytest.approx((0.15, 0.5)), (0.1, 0.4), (0.2, 0.6)
    )
    assert saln.y == pytest.approx((0.3, 0.6))
    by_steps = figures["test_accuracy_over_steps"].curves[0]
    assert by_steps.x == (10, 20)
    by_seconds = figures["test_accuracy_over_seconds"].curves
    assert by_seconds[0].x == (5, 10)  # (3 + 7) / 2 seconds an epoch, evaluation left out
    assert by_seconds[1].x == (15, 30)
    assert "saln ends at 0.600" in figures["test_accuracy_over_epoch"].description


def test_a_drawing_is_svg_and_repeats():
    figure = CURVES[0](run_of())
    drawn = draw(figure, ("uniform", "saln"))
    assert ET.fromstring(drawn.svg[drawn.svg.index("<svg") :]).tag.endswith("svg")
    assert draw(figure, ("uniform", "saln")) == drawn
    assert b"/FontFile2" in drawn.pdf  # TrueType inside, no type 3


def test_a_figure_on_a_page_has_the_pages_colors_and_its_own_names():
    figure = CURVES[0](run_of())
    svg = for_page(draw(figure, ("uniform", "saln")), "one")
    root = ET.fromstring(svg)
    names = [e.get("id") for e in root.iter() if e.get("id")]
    assert names
    other = for_page(draw(figure, ("uniform", "saln")), "two")
    assert not set(names) & {e.get("id") for e in ET.fromstring(other).iter()}
    assert len(set(names)) == len(names)
    links = {value[1:] for e in root.iter() for key, value in e.items() if key.endswith("href")}
    assert links <= set(names)
    assert "var(--color-0)" in svg
    assert "var(--ink)" in svg
    assert "#1c2330" not in svg
    assert "#0072b2" not in svg


def test_the_difference_and_the_seconds_are_values(summary):
    run = run_of(summary)
    (difference,) = made(DIFFERENCES, run).values()
    assert difference == Intervals(
        "difference_to_uniform",
        "Test accuracy against uniform after as many epochs",
        "points of test accuracy, with 95% interval over seeds",
        ("saln",),
        (pytest.approx(10),),
        (pytest.approx(10),),
        (pytest.approx(10),),
        "Test accuracy against uniform after as many epochs, in points: saln +10.0, better.",
    )
    bars = seconds(run)
    assert isinstance(bars, Bars)
    assert bars.arms == ("uniform", "saln")
    assert bars.parts == ("features", "save", "load", "score", "select", "train", "evaluate")
    assert bars.values[:3] == ((0, 9), (1, 1), (4, 2))
    assert bars.description.endswith("In all: uniform 21.0; saln 51.0.")


def test_the_data_of_every_kind_of_figure_are_rows():
    bars = Bars("b", "t", "s", ("a", "b"), ("load", "train"), ((1, 2), (3, 4)), "")
    assert data_of(bars) == (("arm", "load", "train"), [("a", 1, 3), ("b", 2, 4)])
    intervals = Intervals("i", "t", "points", ("a",), (1.0,), (None,), (None,), "")
    assert data_of(intervals)[1] == [("a", 1.0, "", "")]
    heat = HeatMap("h", "t", "x", "y", ("r",), (), (Panel("p", ((1.0, 2.0),)),), None, "")
    assert data_of(heat) == (("panel", "y", "x", "value"), [("p", "r", 0, 1.0), ("p", "r", 1, 2.0)])
    assert to_csv(("a", "b"), [("x,y", 1.5)]) == 'a,b\n"x,y",1.5\n'
    for figure in (bars, intervals, heat):
        assert draw(figure, ("a", "b")).svg.count("<svg") == 1


class Reader(html.parser.HTMLParser):
    """Collects the tags and what is loaded from elsewhere."""

    def __init__(self):
        super().__init__()
        self.tags, self.text, self.loads = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href") and not value.startswith("#"):
                self.loads.append(value)

    def handle_data(self, data):
        self.text.append(data)


def test_the_report_is_one_file_that_loads_nothing(run_folder):
    path = write_report(run_folder)
    assert path == run_folder / "report.html"
    reader = Reader()
    reader.feed(path.read_text())
    assert reader.loads == []
    assert reader.tags.count("table") == 10 - 1  # no standard: no time to its accuracy
    assert reader.tags.count("svg") == 12
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    assert policy in path.read_text()
    text = " ".join(reader.text)
    assert "saln against uniform: better" in text
    first, tables = text.index("more accurate than uniform"), text.index("Cross-entropy after")
    assert first < text.index("saln against uniform: better") < tables
    assert "saln compare" in text
    for name in ("accuracy", "loss", "test_accuracy", "time", "counts"):
        assert (run_folder / "tables" / f"{name}.md").read_text().startswith("**")
        assert (run_folder / "tables" / f"{name}.csv").read_text().startswith("arm,")
    for ending in ("svg", "pdf", "csv"):
        assert (run_folder / "figures" / f"test_accuracy_over_seconds.{ending}").exists()
    data = (run_folder / "figures" / "test_accuracy_over_steps.csv").read_text().splitlines()
    assert data[0] == "arm,gradient steps,accuracy,lowest,highest"
    assert data[1].startswith("uniform,10,0.15")


def test_markup_in_names_is_shown_not_run(run_folder, summary):
    evil = summary.to_json() | {"dataset": "folder:<script>alert(1)</script>"}
    (run_folder / "summary.json").write_text(json.dumps(evil))
    with not_drawn():  # no figure says the name
        text = write_report(run_folder).read_text()
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds no run"):
        write_report(tmp_path)


def test_an_unfinished_run_is_refused(run_folder):
    (run_folder / "summary.json").unlink()
    with pytest.raises(InputError, match="was not finished"):
        write_report(run_folder)


def test_a_broken_row_is_named(run_folder):
    with (run_folder / "epochs.jsonl").open("a") as stream:
        stream.write('{"arm": "sa\n')
    with pytest.raises(DataError, match=r"epochs\.jsonl line 9 is no JSON"):
        write_report(run_folder)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[]", "line 9: it is []; give an object with named fields"),
        ('{"arm": "saln"}', "line 9: seed is missing; give a whole number"),
        (json.dumps(ROWS[0] | {"test_loss": "low"}), "line 9: test_loss is 'low'; give a number"),
    ],
)
def test_a_row_that_is_json_but_no_row_is_named(run_folder, line, message):
    with (run_folder / "epochs.jsonl").open("a") as stream:
        stream.write(line + "\n")
    with pytest.raises(DataError, match=re.escape(message)):
        write_report(run_folder)


def test_several_runs_on_one_page(run_folder, tmp_path, summary):
    other = tmp_path / "other <b>"
    other.mkdir()
    for name in ("config.json", "environment.json", "epochs.jsonl"):
        (other / name).write_text((run_folder / name).read_text())
    (other / "summary.json").write_text(json.dumps(summary.to_json() | {"label_noise": 0.4}))
    path = write_joined([run_folder, other], tmp_path / "all.html")
    text = path.read_text()
    reader = Reader()
    reader.feed(text)
    assert reader.loads == []
    assert reader.tags.count("svg") == 4
    assert "other &lt;b&gt;" in text
    assert "other <b>" not in text
    names = re.findall(r'\bid="([^"]+)"', text)
    assert len(set(names)) == len(names)
    with pytest.raises(InputError, match="is a folder; give the name of a file"):
        write_joined([run_folder, other], tmp_path)
