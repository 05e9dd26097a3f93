"""The tuned study's tables, of rows by hand and of the stored ones."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from evidence_tables import RESULTS, TABLES
from evidence_tables.tuned import RULE, study_table
from scipy import stats


def row(arm, seed, accuracy, selector="uniform", beliefs=0.0, features=0.0, **more):
    return {
        "stage": "final", "noise": "symmetric", "asked_rate": 0.4, "seed": seed, "arm": arm,
        "selector": selector, "beliefs": beliefs, "features": features, "smoothing": 0.0,
        "robust": 0.0, "learning_rate": 0.1, "steps": 10, "test_accuracy": accuracy,
        "wrong_label_share_kept": 0.25,
    } | more  # fmt: skip


def cells(table, arm):
    (line,) = (line for line in table.splitlines() if f"| `{arm}` |" in line)
    return [cell.strip() for cell in line.split("|")[1:-1]]


def test_the_control_has_the_same_shares_of_targets_whatever_it_is_called():
    """Of two uniform arms with targets, the one with other shares is no control."""
    rows = []
    for seed, noise in enumerate((0.0, 0.01, -0.01)):
        rows += [
            row("uniform", seed, 0.5 + noise),
            row("uniform+targets", seed, 0.6 + noise, beliefs=0.7, features=0.3),
            row("uniform+other", seed, 0.65 + noise, beliefs=0.3, features=0.3),
            row("chosen+other", seed, 0.7 + noise, "chosen", beliefs=0.3, features=0.3),
            row("alone+targets(1)", seed, 0.7 + noise, "chosen", beliefs=1.0),
        ]
    table = study_table(rows)
    assert cells(table, "chosen+other")[5:7] == ["+20.0 ± 0.0 (better)", "+5.0 ± 0.0 (better)"]
    assert cells(table, "uniform+other")[5:7] == ["+15.0 ± 0.0 (better)", "–"]
    assert cells(table, "alone+targets(1)")[6] == "–"  # nobody draws at random on these
    assert cells(table, "uniform")[5:] == ["–", "–", "25.0"]


@pytest.mark.parametrize(("rate", "shown"), [(0.2, "0.2"), (0.4, "0.4 (edge)")])
def test_a_learning_rate_at_the_edge_of_those_tried_is_marked(rate, shown):
    trials = [
        row("uniform", 100, 0, stage="tuning", learning_rate=tried) for tried in (0.1, 0.2, 0.4)
    ]
    table = study_table([*trials, row("uniform", 0, 0.5, learning_rate=rate)])
    assert cells(table, "uniform")[3] == shown


def stored():
    lines = (RESULTS / "tuned-scratch.jsonl").read_text().splitlines()
    return [found for found in map(json.loads, lines) if "stage" in found]


def test_the_rates_are_those_that_validation_chose():
    """Every tested row has the best rate of its trials, which were on seeds of their own."""
    rows = stored()
    trials = [found for found in rows if found["stage"] == "tuning"]
    assert {found["seed"] for found in trials} == {100}
    for final in (found for found in rows if found["stage"] == "final"):
        # Five more for these two, whose difference was as large as its interval.
        more = final["noise"] == "symmetric" and final["arm"] in ("standard", RULE)
        assert final["seed"] in range(10 if more else 5)
        tried = {
            found["learning_rate"]: found["validation_accuracy"]
            for found in trials
            if (found["arm"], found["noise"]) == (final["arm"], final["noise"])
        }
        # Everything on soft targets was trained on a CPU, with two of the rates.
        assert len(tried) == (2 if final["arm"] == "standard+targets" else 5)
        assert final["learning_rate"] == max(tried, key=tried.get)


def test_what_stored_rows_say_of_an_arm_is_what_its_text_says():
    from tuned_study import StudyArm

    for found in stored():
        arm = StudyArm(found["arm"])
        expected = {"selector": arm.selector, **arm.about()}
        assert {name: found[name] for name in expected} == expected


def test_the_rule_is_compared_seed_by_seed():
    accuracies = {
        arm: np.array([
            100 * found["test_accuracy"]
            for found in sorted(stored(), key=lambda found: found["seed"])
            if (found["stage"], found["noise"], found["arm"]) == ("final", "pair-flips", arm)
        ])
        for arm in (RULE, "standard", "uniform+gce", "uniform+smoothing")
    }  # fmt: skip
    gains = accuracies[RULE] - accuracies["standard"]
    half = stats.t.interval(0.95, 4, 0, stats.sem(gains))[1]
    (line,) = re.findall(r".*which trains on everything \|.*", TABLES["tuned-rule"](RESULTS))
    assert line.split(" | ")[3] == f"{gains.mean():+.1f} ± {half:.1f} (better) |"
    best = max(accuracies["uniform+gce"].mean(), accuracies["uniform+smoothing"].mean())
    (line,) = re.findall(r".*robust loss.*", TABLES["tuned-short"](RESULTS))
    assert line.split(" | ")[3].startswith(f"{best:.1f} ± ")


def test_the_search_names_the_best_mean_first():
    lines = TABLES["tuned-search"](RESULTS).splitlines()
    assert lines[0] == "| arm | clean | random | mean |"
    means = [float(line.split(" | ")[3].rstrip(" |")) for line in lines[2:]]
    assert len(means) == 30
    assert means == sorted(means, reverse=True)
    assert f"`{RULE}`" in lines[2]


def probe_rows(**wanted):
    lines = (RESULTS / "tuned-probe.jsonl").read_text().splitlines()
    rows = [found for found in map(json.loads, lines) if "stage" in found]
    return [row for row in rows if all(row[name] == value for name, value in wanted.items())]


def test_a_probe_is_tested_at_the_pair_that_validation_chose():
    keys = ("dataset", "noise", "asked_rate", "filter_ratio", "arm")
    tried = {}
    for trial in probe_rows(stage="tuning"):
        assert trial["seed"] == 100
        pair = (trial["learning_rate"], trial["weight_decay"])
        tried.setdefault(tuple(trial[key] for key in keys), {})[pair] = trial["validation_accuracy"]
    finals = probe_rows(stage="final")
    assert finals
    for final in finals:
        trials = tried[tuple(final[key] for key in keys)]
        assert len(trials) == 24
        assert (final["learning_rate"], final["weight_decay"]) == max(trials, key=trials.get)
        # Five more for these two, whose difference was as large as its interval.
        more = final["noise"] == "symmetric" and final["arm"] in ("standard", RULE)
        assert final["seed"] in range(10 if more else 5)


def test_a_probes_gain_is_paired_by_seed_and_an_edge_is_marked():
    cell = {"stage": "final", "dataset": "cifar10", "noise": "pair-flips"}
    rule, uniform = (
        sorted(probe_rows(**cell, arm=arm, filter_ratio=0.8), key=lambda row: row["seed"])
        for arm in (RULE, "uniform+targets")
    )
    gains = [
        100 * (own["test_accuracy"] - other["test_accuracy"])
        for own, other in zip(rule, uniform, strict=True)
    ]
    half = stats.t.interval(0.95, 4, 0, stats.sem(gains))[1]
    (line,) = re.findall(r".*which chooses nothing \|.*", TABLES["tuned-probe-rule"](RESULTS))
    assert line.split(" | ")[-1] == f"{np.mean(gains):+.1f} ± {half:.1f} (worse) |"
    (uniform,) = {
        (row["learning_rate"], row["weight_decay"])
        for row in probe_rows(**cell, arm="uniform", filter_ratio=0.8)
    }
    assert uniform[1] == 0.3  # the largest that was tried
    table = TABLES["tuned-probe"](RESULTS).partition("**CIFAR-10**")[2]
    assert cells(table, "uniform")[4].endswith("*")
    assert not cells(table, "uniform")[1].endswith("*")
