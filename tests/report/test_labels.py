"""The report's section on labels that look wrong."""

from __future__ import annotations

import html.parser
import json

import pytest
from helpers.experiments_rows import COSTS, ROWS, about, summary_of

from saln.errors import DataError
from saln.report.label_section import label_section
from saln.report.page import write_report

pytestmark = pytest.mark.usefixtures("quick_figures")
LABELS = {
    "seed": 7,
    "classes": ["cat", "dog", "<b>owl"],
    "training_labels": 3000,
    "estimated_noise_rate": 0.1234,
    "true_noise_rate": 0.125,
    "doubted": 1301,
    # Smoothing alone gives 0.02 / 3 off the diagonal.
    "transition": [[0.9, 0.0066, 0.0934], [0.3, 0.69, 0.01], [0.0934, 0.0, 0.9066]],
    "labels": [
        {"example": 1000 + i, "image": f"cat/{i}.png", "given": 0, "believed": 2,
         "confidence": 0.001 * i, "wrong": i != 1}
        for i in range(30)
    ],
}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "environment.json").write_text(json.dumps({"command": ["saln", "compare"]}))
    summary = summary_of(about(), ROWS, COSTS, {}).to_json()
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    (tmp_path / "epochs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return tmp_path


def keep(folder, **changes):
    (folder / "labels.json").write_text(json.dumps(LABELS | changes))


def test_the_section_says_rate_confusions_and_labels(folder):
    keep(folder)
    section = label_section(folder)
    assert section.sentences == (
        "About 12.3% of the training labels look wrong; 12.5% were replaced on purpose (seed 7).",
        "The neighbors believe another class for 1,301 of 3,000 labels; labels.json lists the "
        "30 that they believe least, of which 29 were replaced on purpose.",
    )
    confusions, labels = section.tables
    assert confusions.rows == (
        ("dog", "cat", "30.0"), ("cat", "<b>owl", "9.3"), ("<b>owl", "cat", "9.3"),
    )  # fmt: skip
    assert len(labels.rows) == 20
    assert labels.columns[0] == "image"
    assert labels.rows[0][-2:] == ("< 0.1", "yes")
    assert labels.rows[1] == ("cat/1.png", "1,001", "cat", "<b>owl", "0.1", "no")


def test_features_or_labels_that_tell_nothing_have_no_rate(folder):
    keep(
        folder, estimated_noise_rate=None, true_noise_rate=None, doubted=0, labels=[],
        transition=[], tells_nothing="the features tell nothing: they are all the same",
    )  # fmt: skip
    section = label_section(folder)
    assert section.sentences == ("The features tell nothing: they are all the same (seed 7).",)
    assert section.tables == ()


def test_without_injected_noise_the_truth_is_not_shown(folder):
    unknown = [label | {"wrong": None} for label in LABELS["labels"]]
    keep(folder, true_noise_rate=None, labels=unknown)
    section = label_section(folder)
    assert "on purpose" not in " ".join(section.sentences)
    assert "replaced on purpose" not in section.tables[1].columns
    assert all(len(row) == 5 for row in section.tables[1].rows)


def test_clean_labels_have_no_tables(folder):
    alike = [[0.9868, 0.0066, 0.0066]] * 3
    clean = [[alike[0][(c - t) % 3] for c in range(3)] for t in range(3)]
    keep(folder, transition=clean, labels=[], doubted=0)
    section = label_section(folder)
    assert section.tables == ()
    assert section.sentences[1] == "The neighbors believe another class for 0 of 3,000 labels."
    keep(folder, judge="labels", transition=clean, labels=[], doubted=0)
    said = label_section(folder).sentences[1]
    assert said == "The other examples believe another class for 0 of 3,000 labels."


class Tables(html.parser.HTMLParser):
    """The headings, captions and cells of a page's tables."""

    def __init__(self):
        super().__init__()
        self.inside, self.found = "", {"caption": [], "h2": [], "col": [], "row": []}

    def handle_starttag(self, tag, attrs):
        self.inside = dict(attrs).get("scope", "") if tag == "th" else tag

    def handle_data(self, data):
        if self.inside in self.found:
            self.found[self.inside].append(data)

    def handle_endtag(self, tag):
        self.inside = ""


def test_the_page_shows_them_with_captions_and_headings(folder):
    keep(folder)
    text = write_report(folder).read_text()
    page = Tables()
    page.feed(text)
    assert page.found["h2"].count("Labels that look wrong") == 1
    assert page.found["caption"].count("The 20 training labels that are believed least") == 1
    assert "believed class" in page.found["col"]
    assert "cat/19.png" in page.found["row"]
    assert "cat/20.png" not in page.found["row"]
    assert "<b>owl" not in text
    assert "&lt;b&gt;owl" in text


def test_a_run_without_labels_has_no_such_section(folder):
    assert label_section(folder) is None
    assert "Labels that look wrong" not in write_report(folder).read_text()


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"classes": []}', json.dumps(LABELS | {"classes": ["cat"]})]
)
def test_a_broken_file_is_named(folder, content):
    (folder / "labels.json").write_text(content)
    with pytest.raises(DataError, match=r"labels\.json.* remove it to leave the labels out"):
        write_report(folder)
