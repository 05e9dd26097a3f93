from __future__ import annotations

import html.parser
import json
import xml.etree.ElementTree as ET

import pytest
from experiments_rows import COSTS, ROWS, about

from saln.errors import DataError, InputError
from saln.experiments.summary import summarise
from saln.report.figures import Curve, draw, run_figures
from saln.report.page import write_report
from saln.report.tables import Table, arm_cells, run_tables, to_markdown, verdicts


@pytest.fixture
def summary():
    return summarise(about(), ROWS, COSTS, {})


@pytest.fixture
def run_folder(tmp_path, summary):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "environment.json").write_text(json.dumps({"command": ["saln", "compare"]}))
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    (tmp_path / "epochs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return tmp_path


def test_tables_hold_what_the_summary_says(summary):
    tables = {table.name: table for table in run_tables(summary)}
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
    single = summarise(about(seeds=[0]), [r for r in ROWS if r["seed"] == 0], COSTS, {})
    assert "one seed has no interval" in verdicts(single)[0]


def test_verdicts_compare_the_cost_of_an_epoch_with_standards():
    renamed = [row | {"arm": {"uniform": "standard"}.get(row["arm"], row["arm"])} for row in ROWS]
    costs = {("standard" if a == "uniform" else a, s): c for (a, s), c in COSTS.items()}
    summary = summarise(about(methods=["standard", "saln"]), renamed, costs, {})
    # 5 seconds an epoch against 15
    assert verdicts(summary)[-1].endswith("loading and choosing included: saln 0.3")


def test_a_failed_arm_is_said(summary):
    failed = summarise(about(), ROWS, COSTS, {("saln", 0): "saln, seed 0: the loss is nan"})
    assert verdicts(failed) == ("saln was stopped: saln, seed 0: the loss is nan",)
    assert arm_cells("saln", failed["arms"]["saln"])[1].startswith("stopped")
    assert [row[0] for row in run_tables(failed)[0].rows] == ["uniform"]


def test_curves_are_means_with_their_range():
    figures = {figure.name: figure for figure in run_figures(ROWS)}
    uniform, saln = figures["test_accuracy_over_epoch"].curves
    assert uniform == Curve("uniform", (1, 2), pytest.approx((0.15, 0.5)), (0.1, 0.4), (0.2, 0.6))
    assert saln.y == pytest.approx((0.3, 0.6))
    by_steps = figures["test_accuracy_over_steps"].curves[0]
    assert by_steps.x == (10, 20)
    by_seconds = figures["test_accuracy_over_seconds"].curves
    assert by_seconds[0].x == (5, 10)  # (3 + 7) / 2 seconds an epoch, evaluation left out
    assert by_seconds[1].x == (15, 30)
    assert "saln ends at 0.600" in figures["test_accuracy_over_epoch"].description


def test_a_drawing_is_svg_and_repeats():
    figure = run_figures(ROWS)[0]
    text = draw(figure, ("uniform", "saln"))
    assert ET.fromstring(text[text.index("<svg") :]).tag.endswith("svg")
    assert draw(figure, ("uniform", "saln")) == text


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
    assert "script" not in reader.tags
    assert reader.tags.count("table") == 6
    assert reader.tags.count("svg") == 8
    text = " ".join(reader.text)
    assert "saln against uniform: better" in text
    assert text.index("saln against uniform: better") < text.index("Tables")
    assert "saln compare" in text
    for name in ("accuracy", "loss", "test_accuracy", "time", "counts"):
        assert (run_folder / "tables" / f"{name}.md").read_text().startswith("**")
    assert (run_folder / "figures" / "test_accuracy_over_seconds.svg").exists()


def test_markup_in_names_is_shown_not_run(run_folder, summary):
    evil = summary | {"dataset": "folder:<script>alert(1)</script>"}
    (run_folder / "summary.json").write_text(json.dumps(evil))
    text = write_report(run_folder).read_text()
    assert "<script>" not in text
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
    with pytest.raises(DataError, match=r"epochs\.jsonl, line 9 is no JSON"):
        write_report(run_folder)
