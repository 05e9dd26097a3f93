from __future__ import annotations

import pytest
from helpers.experiments_rows import COSTS, ROWS, about, made, run_of, summary_of

from saln.experiments.config import load_preset, preset_names
from saln.experiments.rows import Summary
from saln.report.catalog import SECTIONS
from saln.report.comparisons import break_even_lines, headline, paper_table
from saln.report.paper_claims import CLAIMS, UNREAD
from saln.report.values import Table


@pytest.fixture
def summary():
    return summary_of(about(), ROWS, COSTS, {})


def renamed(old: str, new: str):
    rows = [row | {"arm": {old: new}.get(row["arm"], row["arm"])} for row in ROWS]
    costs = {({old: new}.get(arm, arm), seed): cost for (arm, seed), cost in COSTS.items()}
    return rows, costs


def test_the_headline_says_who_was_better(summary):
    assert headline(summary) == "Better than a uniform choice after as many epochs: saln."
    raw = summary.to_json()
    raw["arms"]["saln"]["versus_uniform"]["verdict"] = "worse"
    worse = Summary.from_json(raw)
    assert headline(worse) == "No selector was shown to beat a uniform choice. Worse: saln."
    raw["arms"]["saln"]["versus_uniform"] = None
    assert (
        headline(Summary.from_json(raw))
        == "No selector was compared with a uniform choice in this run."
    )


def test_the_tables_of_equal_costs(summary):
    tables = made(SECTIONS[1].parts, run_of(summary))
    # The curves over steps end together; over seconds saln's begins after uniform's ends.
    assert tables["equal_costs"] == Table(
        "equal_costs",
        "Difference of test accuracy (points, 95% interval) at an equal cost",
        ("arm", "against", "equal epochs", "equal steps", "equal seconds"),
        (("saln", "uniform", *["+10.0 [+10.0, +10.0] better"] * 2, "–"),),
    )
    # uniform: 6 and 14 s for 20 steps; saln: 0.75 + 0.75 s a step and 9 s once.
    # (6 - 9) / 30 and (14 - 9) / 30: mean 1/30. Needed: (15 of 20, 17.5 of 20) steps.
    assert tables["break_even"].rows == (("saln", "uniform", "3", "75, 88", "no difference shown"),)
    assert tables["one_off"].rows[1] == ("saln", "0", "–", "81", "0", "0")
    assert "time_to_standard" not in tables


def test_the_time_to_standards_accuracy():
    rows, costs = renamed("uniform", "standard")
    summary = summary_of(about(methods=["standard", "saln"]), rows, costs, {})
    tables = made(SECTIONS[1].parts, run_of(summary))
    time = {row[0]: row[1:] for row in tables["time_to_standard"].rows}
    # standard ends at 0.4 and 0.6; saln, from 9 s on, is there at 31.5 and 35.25 s.
    assert time["saln"][:2] == ("50.0", "100")
    assert time["saln"][2].startswith("33.4 ± ")
    assert time["saln"][3].startswith("-23.4 ± ")
    assert time["standard"][2].startswith("10.0 ± ")


def test_break_even_in_words(summary):
    (line,) = break_even_lines(summary)
    assert line == "saln must need 97% fewer steps than uniform to pay. Here: no difference shown."
    for share, said in ((-0.5, "cannot pay: its one-off work"), (1.25, "may make 25% more steps")):
        raw = summary.to_json()
        raw["arms"]["saln"]["break_even"]["uniform"]["steps_share"] = share
        assert said in break_even_lines(Summary.from_json(raw))[0]


def test_the_papers_numbers_stand_beside_ours(summary):
    table = paper_table(run_of(summary, preset="paper-oxford-pet"))
    assert "its claims" in table.note
    assert "small-cnn over 2 epochs" in table.note
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["saln"] == (
        "96.5 | 60.0", "94.02 | 60.0", "86.8 | 60.0", "0.1606 | 0.600", "0.2102 | 0.600",
        "– | 0.85",
    )  # fmt: skip
    assert rows["jest"][2] == "87.55 | –"  # not run here
    table = paper_table(run_of(summary, preset="paper-cifar10"))
    assert table.rows[0][3:6] == ("82.46 | 60.0", "0.508 | 0.600", "0.4607 | 0.600")
    assert table.rows[0][6] == "22.66 | 0.85"
    assert paper_table(run_of(summary, preset="digits")) is None
    assert paper_table(run_of(summary)) is None


def test_every_preset_of_the_paper_has_its_claims():
    presets = {name for name in preset_names() if name.startswith("paper-")}
    assert presets == set(CLAIMS) == set(UNREAD)
    for name, claims in CLAIMS.items():
        assert {claim.arm for claim in claims} <= set(load_preset(name).methods)
