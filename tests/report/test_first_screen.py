"""The first screen says what the numbers say, and nothing that they do not."""

from __future__ import annotations

import dataclasses

import pytest
from helpers.experiments_rows import COSTS, ROWS, about, summary_of

from saln.experiments.rows import Summary
from saln.experiments.statistics import Difference
from saln.report.first_screen import first_screen, labels_line, leading_arm, next_step
from saln.report.label_section import DoubtedLabel, LabelDoubts


def compared(low: float | None, high: float | None, verdict: str, mean: float = 0.1) -> Summary:
    """The made-up run with another difference to uniform."""
    summary = summary_of(about(label_noise=0.4), ROWS, COSTS, {})
    gain = Difference(mean, None if low is None or high is None else (low, high), verdict)
    entry = dataclasses.replace(summary.finished["saln"], versus_uniform=gain)
    return dataclasses.replace(summary, arms={**summary.arms, "saln": entry})


def doubts(wrong: bool | None, rate: float | None = 0.4) -> LabelDoubts:
    labels = tuple(
        DoubtedLabel(example=n, image=f"{n}.png", given=0, believed=1, confidence=0.01, wrong=wrong)
        for n in range(4)
    )
    return LabelDoubts(
        seed=0, classes=("cat", "dog"), training_labels=1000, estimated_noise_rate=rate,
        tells_nothing=None if rate is not None else "the features say nothing", doubted=123,
        true_noise_rate=0.4 if wrong is not None else None, transition=((1.0, 0.0), (0.0, 1.0)),
        labels=labels,
    )  # fmt: skip


def test_the_verdict_gives_points_interval_and_seconds():
    first = first_screen(compared(0.05, 0.15, "better"), None)
    # Means of the made-up costs without evaluation (10) and saving (1): 51 - 11 and 21 - 11.
    assert first.verdict == (
        "saln is 10.0 points [5.0, 15.0] more accurate than uniform, in 4.0 times its time."
    )
    accuracy, time, labels = first.tiles
    assert (accuracy.value, accuracy.detail) == ("60.0%", "uniform 50.0%")
    assert (time.value, time.detail) == ("40.0 s", "uniform 10.0 s")
    assert (labels.value, labels.detail) == ("-", "no arm judged the labels")
    assert first.recommendation.startswith("Train with saln")
    assert first.seeds == "2 seeds are enough: the interval against uniform excludes zero."


def test_a_loss_is_said_with_the_ends_turned_round():
    first = first_screen(compared(-0.15, -0.05, "worse", -0.1), None)
    assert "10.0 points [5.0, 15.0] less accurate than uniform" in first.verdict
    assert first.recommendation.startswith("Train on everything")


def test_an_interval_with_zero_asks_for_more_seeds():
    first = first_screen(compared(-0.1, 0.3, "no difference shown"), None)
    assert "not shown to differ in accuracy from uniform ([-10.0, +30.0] points)" in first.verdict
    # Half of the interval is twice the difference: four times the seeds.
    assert "2 seeds are too few: at this spread about 8 would" in first.seeds


def test_one_seed_gives_no_verdict_and_no_interval():
    single = summary_of(about(seeds=[0]), [r for r in ROWS if r["seed"] == 0], COSTS, {})
    first = first_screen(single, None)
    assert first.verdict.startswith("One seed gives no verdict on saln")
    assert "[" not in first.verdict
    assert "more are needed" in first.seeds
    assert "Run more" in first.recommendation


def test_the_most_accurate_arm_leads_and_a_stopped_one_does_not():
    assert leading_arm(summary_of()) == "saln"
    failed = summary_of(about(), ROWS, COSTS, {("saln", 0): "the loss is nan"})
    assert leading_arm(failed) is None
    first = first_screen(failed, None)
    assert "nothing to compare" in first.verdict
    assert [tile.value for tile in first.tiles] == ["-", "-", "-"]


@pytest.mark.parametrize("wrong", [True, None])
def test_suspected_labels_say_how_many_are_wrong_only_where_that_is_known(wrong):
    tile = first_screen(summary_of(), doubts(wrong)).tiles[2]
    assert tile.value == "123"
    assert tile.detail.startswith("of 1,000; about 40.0% look wrong")
    assert ("most doubtful" in tile.detail) == (wrong is not None)
    line = labels_line(doubts(wrong))
    assert ("on purpose" in line) == ("4 of the 4 most doubtful are wrong" in line) == bool(wrong)


def test_labels_of_which_nothing_is_known_have_no_number():
    tile = first_screen(summary_of(), doubts(None, rate=None)).tiles[2]
    assert (tile.value, tile.detail) == ("-", "the features say nothing")
    assert labels_line(doubts(None, rate=None)) is None
    assert labels_line(None) is None


def test_the_next_step_names_the_data_of_the_run():
    assert next_step(summary_of(about(dataset="digits"))) == "saln labels folder:PHOTOS"
    assert next_step(summary_of(about(dataset="folder:my photos"))) == (
        "saln labels 'folder:my photos'"
    )
