"""Where nobody knows which labels are wrong, nothing says that none are."""

from __future__ import annotations

import json

import numpy as np
from helpers.experiments_rows import COSTS, ROWS, about, summary_of

from saln.experiments.kept_examples import ArmChoices, SeedExamples
from saln.report import page as page_module
from saln.report.choice_section import Chosen, chosen_figures, chosen_tables
from saln.report.drawing import Drawn
from saln.report.figures import run_figures
from saln.report.page import write_joined, write_report
from saln.report.tables import joined_table, run_tables


def clean(rows=ROWS):
    return summary_of(
        about(), [row | {"wrong_label_share_kept": 0.0} for row in rows], COSTS, {}
    ).to_json()


def keep(folder, summary, rows=ROWS):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text("{}")
    (folder / "environment.json").write_text(json.dumps({"command": ["saln", "compare"]}))
    (folder / "summary.json").write_text(json.dumps(summary))
    (folder / "epochs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_the_tables_say_unknown():
    tables = {table.name: table for table in run_tables(clean())}
    assert [row[-1] for row in tables["counts"].rows] == ["unknown", "unknown"]
    assert {row[2] for row in joined_table([("run", clean())]).rows} == {"unknown"}
    # Also where the rows themselves say that it is unknown.
    unknown = clean()
    for entry in unknown["arms"].values():
        entry["wrong_label_share_kept"] = None
    assert run_tables(unknown)[-1].rows == tables["counts"].rows
    known = summary_of(about(label_noise=0.4), ROWS, COSTS, {}).to_json()
    assert [row[-1] for row in run_tables(known)[-1].rows] == ["16.2", "22.5"]
    assert {row[2] for row in joined_table([("run", known)]).rows} == {"40"}


def test_no_curve_is_drawn_of_what_is_unknown():
    names = [figure.name for figure in run_figures(ROWS, truth=False)]
    assert "wrong_labels_over_epoch" not in names
    assert len(names) == len(run_figures(ROWS, truth=True)) - 1


def test_what_was_chosen_says_unknown():
    labels = np.array([0, 1], dtype=np.int32)
    kept = ArmChoices(np.array([[True, False]]), {}, ())
    examples = SeedExamples(labels, labels, ("cat", "dog"))
    for truth, said, label in (
        (False, "unknown", "class as labeled"),
        (True, "+0.0", "true class"),
    ):
        chosen = Chosen({0: examples}, {0: {"uniform": kept}}, truth=truth)
        assert chosen_tables(chosen)[0].rows[0][3] == said
        figures = {figure.name: figure for figure in chosen_figures(chosen)}
        assert figures["class_mix"].x_label == label


def test_the_pages_say_that_it_is_unknown(tmp_path, monkeypatch):
    monkeypatch.setattr(page_module, "draw", lambda figure, arms: Drawn("<svg></svg>", b"%PDF"))
    rows = [row | {"wrong_label_share_kept": None} for row in ROWS]
    summary = clean()
    for entry in summary["arms"].values():
        entry["wrong_label_share_kept"] = None
    keep(tmp_path / "real", summary, rows)
    keep(tmp_path / "noisy", summary_of(about(label_noise=0.4), ROWS, COSTS, {}).to_json())
    real, noisy = (write_report(tmp_path / name).read_text() for name in ("real", "noisy"))
    assert "label noise unknown" in real
    assert "label noise 40%" in noisy
    both = write_joined([tmp_path / "real", tmp_path / "noisy"], tmp_path / "both.html").read_text()
    assert "label noise unknown" in both
    assert "label noise 40%" in both
    for text in (real, both):
        assert "label noise 0%" not in text
