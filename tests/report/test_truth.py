"""Where nobody knows which labels are wrong, nothing says that none are."""

from __future__ import annotations

import json

import numpy as np
import pytest
from helpers.experiments_rows import COSTS, ROWS, about, run_of, summary_of

from saln.experiments.kept_examples import ArmChoices, SeedExamples
from saln.report import page as page_module
from saln.report.choice_section import chosen_table, class_mix
from saln.report.drawing import Drawn
from saln.report.figures import wrong_labels
from saln.report.page import write_joined, write_report
from saln.report.reported_run import Chosen
from saln.report.tables import counts, joined_table


def clean(share):
    return summary_of(about(), [row | {"wrong_label_share_kept": share} for row in ROWS], COSTS)


def keep(folder, summary, rows=ROWS):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text("{}")
    (folder / "environment.json").write_text(json.dumps({"command": ["saln", "compare"]}))
    (folder / "summary.json").write_text(json.dumps(summary.to_json()))
    (folder / "epochs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_the_tables_show_a_dash():
    table = counts(run_of(clean(0.0)))
    assert [row[-1] for row in table.rows] == ["-", "-"]
    assert {row[2] for row in joined_table([("run", clean(0.0))]).rows} == {"-"}
    # Also where the rows themselves say that it is unknown.
    assert counts(run_of(clean(None))).rows == table.rows
    known = summary_of(about(label_noise=0.4), ROWS, COSTS, {})
    assert [row[-1] for row in counts(run_of(known)).rows] == ["16.2", "22.5"]
    assert {row[2] for row in joined_table([("run", known)]).rows} == {"40"}


def test_no_curve_is_drawn_of_what_is_unknown():
    assert wrong_labels(run_of(summary_of(about(label_noise=0.0)))) is None
    drawn = wrong_labels(run_of(summary_of(about(label_noise=0.4))))
    assert [curve.y for curve in drawn.curves] == [
        pytest.approx((0.075, 0.25)), pytest.approx((0.15, 0.3)),
    ]  # fmt: skip


def test_what_was_chosen_shows_a_dash():
    labels = np.array([0, 1], dtype=np.int32)
    kept = ArmChoices(np.array([[True, False]]), {}, ())
    examples = SeedExamples(labels, labels, ("cat", "dog"))
    for truth, said, label in (
        (False, "-", "class as labeled"),
        (True, "+0.0", "true class"),
    ):
        chosen = Chosen({0: examples}, {0: {"uniform": kept}}, truth=truth)
        run = run_of(chosen=chosen)
        assert chosen_table(run).rows[0][3] == said
        assert class_mix(run).x_label == label


def test_the_pages_say_that_it_is_unknown(tmp_path, monkeypatch):
    monkeypatch.setattr(page_module, "draw", lambda figure, arms: Drawn("<svg></svg>", b"%PDF"))
    rows = [row | {"wrong_label_share_kept": None} for row in ROWS]
    keep(tmp_path / "real", clean(None), rows)
    keep(tmp_path / "noisy", summary_of(about(label_noise=0.4), ROWS, COSTS, {}))
    real, noisy = (write_report(tmp_path / name).read_text() for name in ("real", "noisy"))
    assert "label noise unknown" in real
    assert "label noise 40%" in noisy
    both = write_joined([tmp_path / "real", tmp_path / "noisy"], tmp_path / "both.html").read_text()
    assert "label noise unknown" in both
    assert "label noise 40%" in both
    for text in (real, both):
        assert "label noise 0%" not in text
