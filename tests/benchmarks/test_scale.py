"""The benchmark of scale, small: every question gets its row."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import scale

BENCHMARK = Path(scale.__file__)


def test_every_question_has_rows(warm, tmp_path, monkeypatch):
    """One size, so that nothing is compared. One measurement is started by a true interpreter."""
    truly = scale.measured

    def measured(name, *arguments):
        if name == "neighbors":
            return truly(name, *arguments)
        (row,) = warm.call_together(
            scale.MEASURES[name], [([*map(str, arguments)],)], tmp_path / "started"
        )
        return row

    (tmp_path / "started").mkdir()
    monkeypatch.setattr(scale, "measured", measured)
    monkeypatch.setattr(scale, "IMAGES", (20,))
    monkeypatch.setattr(scale, "NAMING_SECONDS", 0.05)
    rows = []
    scale.rows_of((700,), tmp_path, rows.append)
    assert [row["question"] for row in rows] == [
        "extraction", "extraction on disk", "batches named by uniform", "batches named by saln",
        "batches named by coherence-batch", "batches named by k-center", "saln select by saln",
        "saln select by coherence-batch", "neighbor table",
    ]  # fmt: skip
    for row in rows:
        assert row["value"] > 0
        assert {"question", "value", "unit", "baseline", "ratio"} <= row.keys()
    assert rows[-1]["recall"] == 1.0


def test_costs_are_compared_in_turns(tmp_path, monkeypatch):
    monkeypatch.setattr(scale, "PARTITION", 640)
    stores = [tmp_path / "small", tmp_path / "large"]
    for path, rows in zip(stores, (2000, 4000), strict=True):
        store = scale.make_store(path, rows, 16)
        assert store.features.shape == (rows, 16)
        assert (store.features[:50] >= 0).all()
    found = scale.measure_flat([*map(str, stores), "saln"])
    # Seven parts of the larger; of the smaller all four, then the first three again.
    assert found["rows"] == [2000 + 3 * 640, 4000]
    assert found["parts"] == 7
    assert min(found["seconds"]) > 0


def test_sizes_that_cannot_be_compared_are_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["scale.py", "--json", "--sizes", "100,200"])
    with pytest.raises(SystemExit) as stop:
        scale.main()
    assert stop.value.code == 2
    printed = capsys.readouterr()
    assert "--sizes must be" in printed.err
    assert not printed.out


def test_rows_of_the_stored_run():
    rows = [json.loads(line) for line in (BENCHMARK.parents[1] / "results" / "scale.jsonl")
            .read_text().splitlines()][1:]  # fmt: skip
    flat = [row for row in rows if "parts" in row]
    assert {row["n"] for row in rows if row["question"] == "neighbor table"} >= {1_000_000}
    assert flat
