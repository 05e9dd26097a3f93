"""The tables of the confirmation, of rows by hand: cells with all rivals, and one without."""

from __future__ import annotations

import json

import numpy as np
import pytest
from evidence_tables import TABLES
from evidence_tables.tuned import RULE
from scipy import stats

SOFTER = "uniform+targets(beliefs=0.3,features=0.3)"
GAINS = np.array([0.031, 0.044, 0.025, 0.038, 0.029])


def row(arm, seed, accuracy, *, dataset="pets-64", ratio=0.8, **more):
    shares = 0.3 if "targets" in arm else 0.0
    return {
        "stage": "final", "dataset": dataset, "noise": "clean", "asked_rate": 0.0,
        "filter_ratio": ratio, "seed": seed, "arm": arm, "selector": arm.split("+")[0],
        "beliefs": shares, "features": shares, "smoothing": 0.0, "robust": 0.0,
        "learning_rate": 0.1, "weight_decay": 5e-4, "train_images": 3679, "epochs": 100,
        "steps": 1100, "test_accuracy": accuracy, "validation_accuracy": accuracy,
        "wrong_label_share_kept": 0.0, "choosing_ms_per_step": 0.2,
    } | more  # fmt: skip


@pytest.fixture
def results(tmp_path):
    """A cell that is whole, one at another filter ratio, and one of a single arm."""
    rows = [row("uniform", 100, 0.4, stage="tuning", learning_rate=rate) for rate in (0.1, 0.2)]
    for seed, gain in enumerate(GAINS):
        rows += [
            row("uniform", seed, 0.50 + seed / 100),
            row(SOFTER, seed, 0.51 + seed / 100),
            row(RULE, seed, 0.50 + seed / 100 + gain),
            row("standard", seed, 0.60, ratio=0.0, steps=5700),
            row("uniform+gce", seed, 0.48),
            row("uniform", seed, 0.40, ratio=0.5),
            *[row("uniform+smoothing", seed, 0.41, ratio=0.5)] * (seed < 2),
            row(RULE, seed, 0.45, ratio=0.5, steps=2800),
        ]
    rows += [row("coherence", seed, 0.7 + seed / 100, dataset="pets-fine-tune") for seed in (0, 1)]
    alone = {"dataset": "pets-64", "step_ms": {"uniform": [1.2, 1.1], RULE: [1.2]}}
    text = "\n".join(map(json.dumps, [{"environment": {}}, *rows, alone]))
    (tmp_path / "tuned-confirmation.jsonl").write_text(text)
    return tmp_path


def line(table, start):
    (found,) = (each for each in table.splitlines() if each.startswith(f"| {start} |"))
    return [cell.strip() for cell in found.split("|")[2:-1]]


def test_accuracies_of_cells_that_are_not_all_there(results):
    scratch = TABLES["tuned-confirmation"](results)
    mean, half = 52.0, stats.t.interval(0.95, 4, 0, stats.sem([50, 51, 52, 53, 54]))[1]
    assert line(scratch, "`uniform`") == [f"{mean:.1f} ± {half:.1f}*", "40.0 ± 0.0", "1,100"]
    assert line(scratch, "`standard`") == ["60.0 ± 0.0", "60.0 ± 0.0", "5,700"]
    assert line(scratch, f"`{SOFTER}`")[1] == "–"
    assert line(scratch, "arm") == ["clean", "clean, f = 0.5", "steps"]
    assert line(scratch, "`uniform+smoothing`")[1].endswith("(2 of 5 seeds)")
    assert line(scratch, f"`{RULE}`")[-1] == "1,100 / 2,800"
    assert "EfficientNet" not in scratch


def test_a_cell_without_its_rivals_is_not_shown_but_named(results):
    left = TABLES["tuned-confirmation-left-out"](results)
    assert line(left, "Pets, all layers of EfficientNet-Lite0 fine-tuned, 96 px") == [
        "clean", "`coherence`", "`uniform`, `standard`, a robust loss",
    ]  # fmt: skip
    assert "64 px" not in left


def test_the_rules_gains_are_paired_by_seed(results):
    table = TABLES["tuned-confirmation-rule"](results)
    half = stats.t.interval(0.95, 4, 0, 100 * stats.sem(GAINS))[1]
    gain = f"{100 * GAINS.mean():+.1f} ± {half:.1f} (better)"
    assert line(table, "`uniform`") == [gain, "+5.0 ± 0.0 (better)"]
    fewer = f"{100 * GAINS.mean() - 1:+.1f} ± {half:.1f} (better)"
    assert line(table, "`uniform` with the same targets: what choosing gives") == [fewer, "–"]
    assert "EfficientNet" not in table  # the rule was not trained there


def test_what_a_step_takes_is_beside_what_choosing_takes(results):
    (uniform, rule) = TABLES["tuned-confirmation-seconds"](results).splitlines()[2:]
    assert uniform.endswith("| `uniform` | 1.100 | 0.200 |")
    assert rule.endswith(f"| `{RULE}` | 1.200 | 0.200 |")


def test_nothing_is_said_where_there_are_no_rows(tmp_path):
    for name in ("tuned-confirmation", "tuned-confirmation-rule", "tuned-confirmation-seconds"):
        assert "No rows" in TABLES[name](tmp_path)
