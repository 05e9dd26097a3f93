from __future__ import annotations

import pytest
from experiments_rows import COSTS, ROWS, about

from saln.experiments.summary import summarise


def test_what_the_rows_say():
    arms = summarise(about(), ROWS, COSTS, {})["arms"]
    uniform, saln = arms["uniform"], arms["saln"]
    assert uniform["test_accuracy"]["per_seed"] == [0.4, 0.6]  # of the last epoch
    assert uniform["test_accuracy"]["mean"] == 0.5
    assert uniform["seconds"]["load"] == 4  # (1 + 1 + 3 + 3) / 2 seeds
    assert uniform["seconds"]["per_epoch"] == 5  # ((2 + 4) + (6 + 8)) / 2 seeds / 2 epochs
    assert uniform["seconds"]["total"] == 21
    assert saln["seconds"] == {
        "total": 51, "per_epoch": 15, "features": 9, "reference": 0,
        "load": 2, "score": 4, "select": 8, "train": 16, "evaluate": 10,
    }  # fmt: skip
    assert (saln["steps"], saln["examples_forward"], saln["examples_backward"]) == (20, 140, 80)
    assert uniform["versus_uniform"] is None
    assert saln["versus_uniform"]["difference"] == pytest.approx(0.1)
    assert saln["versus_uniform"]["verdict"] == "better"  # 0.1 with both seeds
    assert saln["wrong_label_share_kept"] == pytest.approx((0.3 + 0.5 + 0.3 + 0.7) / 8)


def test_an_arm_that_failed_has_only_its_error():
    failures = {("saln", 1): "saln, seed 1: the loss is nan"}
    arms = summarise(about(), ROWS, COSTS, failures)["arms"]
    assert arms["saln"] == {"error": "saln, seed 1: the loss is nan"}
    assert arms["uniform"]["versus_uniform"] is None


def test_without_uniform_there_is_nothing_to_compare_with():
    alone = about(methods=["saln"])
    assert summarise(alone, ROWS, COSTS, {})["arms"]["saln"]["versus_uniform"] is None
