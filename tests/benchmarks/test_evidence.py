"""Every figure in the README and the docs is that of its row."""

from __future__ import annotations

import functools
import json

import evidence
import pytest
from evidence_tables import RESULTS, TABLES

DOCUMENTS = evidence.documents()
rebuilt = functools.cache(evidence.rebuilt)  # the command makes all of them once more


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_figures_are_those_of_the_rows(path):
    text = path.read_text()
    assert rebuilt(text) == text, "run `make evidence-tables`"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_prose_has_no_figures_of_its_own(path):
    assert evidence.stray_figures(path.read_text()) == []


def test_the_documents_show_every_table():
    shown = {name for path in DOCUMENTS for _, name, _ in evidence.BLOCK.findall(path.read_text())}
    assert shown == set(TABLES)


def test_a_changed_figure_is_put_right_again():
    text = (RESULTS / "README.md").read_text()
    wrong = text.replace("| 70.6 | 68.8 |", "| 70.6 | 78.8 |", 1)
    assert wrong != text
    assert evidence.rebuilt(wrong) == text


@pytest.mark.parametrize(
    "prose", ["It wins by 11.6 points.", "8x faster", "takes 3 s", "88.2 ± 1 %"]
)
def test_figures_in_prose_are_found(prose):
    assert evidence.stray_figures(prose)
    assert not evidence.stray_figures(f"<!-- rows: cost -->\n{prose}\n<!-- end -->")
    assert not evidence.stray_figures(f"```\n{prose}\n```\n`{prose}` with a 95% interval, f = 0.8")


def test_a_marker_without_its_end_and_an_unknown_name_are_refused():
    with pytest.raises(ValueError, match="needs one"):
        evidence.rebuilt("<!-- rows: cost -->\n| 1 |")
    with pytest.raises(KeyError, match="no-such"):
        evidence.rebuilt("<!-- rows: no-such -->\n<!-- end -->")


def test_the_table_of_a_busy_machine(tmp_path):
    """Of rows as the benchmark writes them; nothing while there are none."""
    assert TABLES["busy-machine"](tmp_path) == ""
    facts = {"question": "beside", "policy": "PASSIVE", "threads": 2, "unit": "images/s"}
    lines = [{"environment": {}}, facts | {"value": 103.6, "baseline": 219.0, "ratio": 0.473}]
    (tmp_path / "busy-machine.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (line,) = TABLES["busy-machine"](tmp_path).splitlines()[2:]
    assert line == "| 2, sleeping | 219 | 104 | 47% |"


def test_the_command_checks_and_writes_nothing(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["evidence.py", "--check"])
    monkeypatch.setattr(evidence, "rebuilt", rebuilt)
    assert evidence.main() == 0
    monkeypatch.setattr(evidence, "rebuilt", lambda text: text + "!")
    assert evidence.main() == 1
    assert "README.md differs" in capsys.readouterr().out
    assert not (evidence.ROOT / "README.md").read_text().endswith("!")
