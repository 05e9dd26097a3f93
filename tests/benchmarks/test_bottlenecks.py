"""What limits each preset: counted by hand, measured tiny, and the stored rows of all of them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from bottlenecks import measured, whole_run
from evidence_tables.rows import RESULTS, read_rows
from evidence_tables.scale import bottlenecks_table

from saln.experiments import load_preset
from saln.experiments.config import preset_names

COST = {"decode": 0.5, "load": 2.0, "step": 30.0, "forward": 7.0}


def counted(size, **changes):
    settings = {"methods": ("standard", "uniform", "top-loss"), "batch_size": 10, "epochs": 4}
    config = dataclasses.replace(load_preset("offline-cifar10"), **(settings | changes))
    images = {"train": 105, "measured": {"train": 100, "test": 200}}
    return whole_run({"seconds": COST, "images": images, "image_size": size}, config)


def test_a_run_is_counted_as_by_hand():
    found = counted(32, filter_ratio=0.8, evaluate_every=3)
    # 4 epochs of 10 steps, or of 2 of 50 candidates; all are read that are scored.
    assert found["run"] == {
        "load": 2.0 * (400 + 80 + 400),
        "score": 7.0 * 400,
        "train": 30.0 * (40 + 8 + 8),
        "evaluate": 2.0 * 300 + 3 * 2 * 7.0 * 300,
    }
    assert (found["arms"], found["evaluations"]) == (3, 2)


def test_what_does_not_fit_is_read_at_every_look_and_heads_are_measured_on_kept_outputs():
    large = counted(2048, evaluate_every=4)["run"]["evaluate"]
    assert large == 3 * (2.0 + 7.0) * 300
    head = counted(2048, evaluate_every=1, head_only=True)["run"]["evaluate"]
    assert head == (2.0 + 7.0) * 300


def test_a_preset_is_measured():
    row = measured("digits", Path("nowhere"))
    assert 0 < row["seconds"]["decode"] < row["seconds"]["load"]
    assert all(seconds > 0 for phase, seconds in row["run"].items() if phase != "score")
    assert len(bottlenecks_table([row]).splitlines()) == 3


def test_every_preset_has_a_row_and_measuring_takes_a_small_part_of_it():
    rows = {row["preset"]: row for row in read_rows(RESULTS, "bottlenecks")}
    assert set(rows) == set(preset_names())
    for name, row in rows.items():
        run = whole_run(row, load_preset(name))["run"]  # as its settings are now
        assert run["evaluate"] < 0.15 * sum(run.values()), name
