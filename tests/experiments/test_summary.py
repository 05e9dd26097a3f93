from __future__ import annotations

import json

import pytest
from helpers.experiments_rows import COSTS, ROWS, about, summary_of

from saln.experiments.statistics import paired_difference


def test_what_the_rows_say():
    arms = summary_of(about(), ROWS, COSTS, {}).to_json()["arms"]
    uniform, saln = arms["uniform"], arms["saln"]
    assert uniform["test_accuracy"]["per_seed"] == [0.4, 0.6]  # of the last epoch
    assert uniform["test_accuracy"]["mean"] == 0.5
    assert uniform["seconds"]["load"] == 4  # (1 + 1 + 3 + 3) / 2 seeds
    assert uniform["seconds"]["per_epoch"] == 5  # ((2 + 4) + (6 + 8)) / 2 seeds / 2 epochs
    assert uniform["seconds"]["total"] == 21
    assert saln["seconds"] == {
        "total": 51, "per_epoch": 15, "features": 9, "reference": 0, "save": 1,
        "load": 2, "score": 4, "select": 8, "train": 16, "evaluate": 10,
    }  # fmt: skip
    assert (saln["steps"], saln["examples_forward"], saln["examples_backward"]) == (20, 140, 80)
    assert uniform["versus_uniform"] is None
    assert saln["versus_uniform"]["difference"] == pytest.approx(0.1)
    assert saln["versus_uniform"]["verdict"] == "better"  # 0.1 with both seeds
    assert saln["wrong_label_share_kept"] == pytest.approx((0.3 + 0.5 + 0.3 + 0.7) / 8)


def test_what_nobody_knows_is_not_0():
    """Of no label on real data is known whether it is wrong; a mean of some seeds is none."""
    unknown = [row | {"wrong_label_share_kept": None} for row in ROWS]
    arms = summary_of(about(), unknown, COSTS, {}).to_json()["arms"]
    assert arms["saln"]["wrong_label_share_kept"] is None
    assert arms["saln"]["test_accuracy"]["mean"] == pytest.approx(0.6)
    mixed = [unknown[2], *ROWS[:2], *ROWS[3:]]  # gone on with from a version that wrote 0
    arms = summary_of(about(), mixed, COSTS, {}).to_json()["arms"]
    assert arms["saln"]["wrong_label_share_kept"] is None
    assert arms["uniform"]["wrong_label_share_kept"] == pytest.approx((0.1 + 0.2 + 0.05 + 0.3) / 4)


def test_an_arm_that_failed_has_only_its_error():
    failures = {("saln", 1): "saln, seed 1: the loss is nan"}
    arms = summary_of(about(), ROWS, COSTS, failures).to_json()["arms"]
    assert arms["saln"] == {"error": "saln, seed 1: the loss is nan"}
    assert arms["uniform"]["versus_uniform"] is None


def test_without_uniform_there_is_nothing_to_compare_with():
    alone = about(methods=["saln"])
    assert summary_of(alone, ROWS, COSTS, {}).to_json()["arms"]["saln"]["versus_uniform"] is None


def with_standard():
    """Beside the two arms one that takes 40 steps of 1 s an epoch and ends at 0.45 and 0.8."""
    rows, costs = list(ROWS), dict(COSTS)
    for seed, accuracies in ((0, (0.4, 0.45)), (1, (0.5, 0.8))):
        for epoch, accuracy in enumerate(accuracies, start=1):
            rows.append({
                **ROWS[0], "arm": "standard", "seed": seed, "epoch": epoch, "steps": 40 * epoch,
                "test_accuracy": accuracy,
                "seconds": {"load": 10, "score": 0, "select": 0, "train": 30, "evaluate": 5},
            })  # fmt: skip
        costs["standard", seed] = costs["uniform", seed] | {"total": 91}
    return summary_of(about(methods=["standard", "uniform", "saln"]), rows, costs, {}).to_json()[
        "arms"
    ]


def test_equal_steps_and_seconds_by_hand():
    saln = with_standard()["saln"]
    # Uniform and saln make the same steps: as at equal epochs.
    assert saln["at_equal_steps"]["uniform"]["at"] == 20
    assert saln["at_equal_steps"]["uniform"]["difference"] == pytest.approx(0.1)
    # Standard's first point comes after 40 steps, when saln has ended.
    assert saln["at_equal_steps"]["standard"] is None
    # Uniform ends after 6 and 14 seconds; saln's first point comes after 9 + 15.
    assert saln["at_equal_seconds"]["uniform"] is None
    # Saln ends after 39 seconds, standard's first point comes after 40.
    assert saln["at_equal_seconds"]["standard"] is None


def test_equal_seconds_where_the_curves_meet():
    """Features for nothing and a dearer uniform: saln ends at 30 s, uniform at 36 and 44."""
    slow = [
        row | {"seconds": row["seconds"] | {"load": 16}} if row["arm"] == "uniform" else row
        for row in ROWS
    ]
    free = {key: cost | {"features": 0} for key, cost in COSTS.items()}
    found = summary_of(about(), slow, free, {}).to_json()["arms"]["saln"]["at_equal_seconds"][
        "uniform"
    ]
    # Uniform at 30 s: 0.2 + 0.2 * 12 / 18 and 0.1 + 0.5 * 10 / 20; saln ends at 0.5 and 0.7.
    differences = [0.5 - (0.2 + 0.2 * 12 / 18), 0.7 - 0.35]
    assert found["at"] == 30
    assert found["difference"] == pytest.approx(sum(differences) / 2)
    assert found["ci95"] == pytest.approx(paired_difference(differences, [0, 0]).ci95)


def test_seconds_to_what_standard_ends_at_by_hand():
    arms = with_standard()
    saln = arms["saln"]["seconds_to_standard"]
    # Seed 0: from 0.3 at 24 s to 0.5 at 39 s, 0.45 after three quarters. Seed 1 ends at 0.7 < 0.8.
    assert saln["per_seed"] == [pytest.approx(24 + 15 * 0.75), None]
    assert saln["mean"] is None
    assert saln["seconds_saved"] is None
    assert saln["share_reached"] == pytest.approx((1 + 0.7 / 0.8) / 2)
    assert saln["target"] == pytest.approx(0.625)
    standard = arms["standard"]["seconds_to_standard"]
    assert standard["per_seed"] == [80, 80]
    assert standard["seconds_saved"]["difference"] == 0


def test_the_break_even_by_hand():
    arms = with_standard()
    found = arms["saln"]["break_even"]["uniform"]
    # 20 steps of 1.5 s after 9 s, against 20 steps of 0.3 and 0.7 s.
    assert found["per_seed"] == pytest.approx([(6 - 9) / 30, (14 - 9) / 30])
    assert found["fewer_steps"] == pytest.approx(1 - 2 / 60)
    # Uniform ends at 0.4 and 0.6 after 20 steps; saln is there after 15 and 17.5.
    assert found["needed_share_per_seed"] == pytest.approx([0.75, 0.875])
    # Margins -0.85 and -0.708: two seeds show nothing, t(0.975, 1) is 12.7.
    assert found["verdict"] == "no difference shown"
    assert arms["uniform"]["break_even"]["uniform"] is None
    late = arms["uniform"]["break_even"]["standard"]
    assert late["needed_share_per_seed"] == [None, None]
    assert late["verdict"] == "did not reach the baseline's accuracy"


@pytest.mark.parametrize(("load", "verdict"), [(1, "does not pay"), (400, "pays")])
def test_dear_choosing_pays_where_a_step_is_dear_anyway(load, verdict):
    rows = []
    for row in ROWS:
        alike = ROWS[["uniform", "saln"].index(row["arm"]) * 2 + row["epoch"] - 1]
        rows.append(alike | {"seed": row["seed"], "seconds": alike["seconds"] | {"load": load}})
    found = summary_of(about(), rows, COSTS, {}).to_json()["arms"]["saln"]["break_even"]["uniform"]
    # 20 steps of (load + 14) / 10 s after 9 s, against 20 steps of (load + 2) / 10 s.
    assert found["steps_share"] == pytest.approx((2 * (load + 2) - 9) / (2 * (load + 14)))
    assert found["needed_share_per_seed"] == pytest.approx([0.75, 0.75])
    assert found["verdict"] == verdict


def test_against_standard_at_equal_epochs():
    arms = with_standard()
    assert arms["saln"]["versus_standard"]["difference"] == pytest.approx((0.05 - 0.1) / 2)
    assert arms["standard"]["versus_standard"] is None
    assert arms["standard"]["versus_uniform"]["difference"] == pytest.approx((0.05 + 0.2) / 2)


def test_memory_and_one_off_examples():
    arms = summary_of(about(), ROWS, COSTS, {}).to_json()["arms"]
    assert arms["saln"]["peak_bytes"] == {"rss": 52000, "cuda": None}
    assert arms["saln"]["one_off_examples"] == {
        "features_forward": 81, "reference_forward": 0, "reference_backward": 0,
    }  # fmt: skip
    json.dumps(arms)


def test_seeds_are_paired_whatever_the_order_of_the_rows():
    swapped = [row for seed in (1, 0) for row in ROWS if row["seed"] == seed]
    assert (
        summary_of(about(), swapped, COSTS, {}).to_json()
        == summary_of(about(), ROWS, COSTS, {}).to_json()
    )
