"""What tuning tries, and what it chooses of it."""

from __future__ import annotations

import math
import sys

import pytest

from saln.errors import MissingExtraError
from saln.experiments.config import Config
from saln.experiments.search import Search, grid, tpe
from saln.experiments.trials import Point, Score, Trial, Tried, best_of, tried, tuned_arms


def walk(search: Search, start: Point, count: int, score) -> list[Tried]:
    """All trials of a search, each scored by what it tries."""
    done: list[Tried] = []
    for _ in range(count):
        point = search(start, count, tuple(done))
        done.append(Tried(point, score(point)))
    return done


def peak(at: float):
    """Scores that fall with the distance from a rate; decay helps by a little."""
    return lambda point: Score(
        1 / (1 + abs(math.log(point.learning_rate / at))), point.weight_decay
    )


def test_a_small_grid_is_learning_rates_outward_from_what_is_given():
    done = walk(grid, Point(0.03, 1e-3), 5, peak(0.03))
    assert [each.point.weight_decay for each in done] == [1e-3] * 5
    rates = [each.point.learning_rate for each in done]
    assert rates == pytest.approx([0.03, 0.09, 0.01, 0.3, 0.003])


@pytest.mark.parametrize(("given", "other"), [(0.0, 5e-4), (1e-3, 0.0)])
def test_from_six_trials_on_a_second_decay_is_tried_with_the_best_rates(given, other):
    done = walk(grid, Point(0.03, given), 7, peak(0.3))
    assert [each.point.weight_decay for each in done] == [given] * 5 + [other] * 2
    assert [each.point.learning_rate for each in done[5:]] == pytest.approx([0.3, 0.09])


@pytest.mark.parametrize("trials", [10, 12])
def test_many_trials_are_a_full_grid(trials):
    points = {each.point for each in walk(grid, Point(1.0, 0.0), trials, peak(1.0))}
    rates = {point.learning_rate for point in points}
    assert len(rates) == trials // 2
    assert points == {Point(rate, decay) for rate in rates for decay in (0.0, 5e-4)}


def test_a_second_decay_comes_last_to_the_rates_that_were_lost():
    def score(point: Point) -> Score | None:
        return None if point.learning_rate > 0.05 else Score(0.0, 0.0)

    done = walk(grid, Point(0.03, 0.0), 9, score)
    assert [each.point.learning_rate for each in done[5:8]] == pytest.approx([0.03, 0.01, 0.003])


def test_optunas_search_begins_with_what_is_given_and_comes_near_the_best_rate():
    pytest.importorskip("optuna")
    done = walk(tpe, Point(0.01, 0.0), 12, peak(0.1))
    assert done == walk(tpe, Point(0.01, 0.0), 12, peak(0.1))
    assert done[0].point == Point(0.01, 0.0)
    assert len({each.point for each in done}) == 12
    for each in done[1:]:
        assert 0.01 / 30 <= each.point.learning_rate <= 0.3
        assert 1e-6 <= each.point.weight_decay <= 1e-2
    best = best_of(done)
    assert best is not None
    assert abs(math.log(best.point.learning_rate / 0.1)) < math.log(2)


def test_optunas_search_keeps_away_from_what_diverges():
    pytest.importorskip("optuna")

    def score(point: Point) -> Score | None:
        return None if point.learning_rate > 0.01 else Score(0.5, 0.0)

    late = walk(tpe, Point(0.01, 0.0), 24, score)[12:]
    # Drawn at random, half of them would be.
    assert sum(each.score is None for each in late) <= 3


def test_without_optuna_its_search_is_refused_with_the_cure(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'saln\[optuna\]', or give tune_sea"):
        Config(tune=3, tune_search="optuna").check()
    Config(tune_search="optuna").check()  # nothing is tuned


def trial(number: int, accuracy: float | None, loss: float | None = 1.0, **other) -> Trial:
    rate = other.pop("rate", 0.1 * number)
    lost = accuracy is None
    return Trial(
        arm="uniform", trial=number, seed=other.pop("seed", 0), learning_rate=rate,
        weight_decay=0.0, validation_accuracy=accuracy, validation_loss=None if lost else loss,
        seconds=2.0, steps=1, examples_forward=5, examples_backward=3,
        error="it diverged" if lost else None,
    )  # fmt: skip


def chosen(*trials: Trial):
    return tuned_arms(trials)["uniform"]


def test_of_equal_accuracies_the_lower_loss_is_chosen_and_of_equal_losses_the_first():
    assert chosen(trial(1, 0.5, 1.0), trial(2, 0.7, 1.0), trial(3, 0.7, 0.9)).learning_rate == (
        pytest.approx(0.3)
    )
    assert chosen(trial(1, 0.5), trial(2, 0.7), trial(3, 0.7)).learning_rate == pytest.approx(0.2)


def test_a_trial_of_several_seeds_is_their_mean_and_lost_with_any():
    found = chosen(
        trial(1, 0.5, seed=0), trial(1, 0.7, seed=1), trial(2, 0.9, seed=0), trial(2, None, seed=1)
    )
    assert (found.learning_rate, found.validation_accuracy) == (0.1, pytest.approx(0.6))
    assert (found.trials, found.lost, found.seconds) == (2, 1, 8.0)
    assert (found.examples_forward, found.examples_backward) == (20, 12)
    assert tried([trial(1, None), trial(1, 0.9, seed=1)])[0].score is None


def test_the_edge_is_the_lowest_or_highest_rate_that_was_tried_lost_ones_included():
    assert chosen(trial(1, 0.5), trial(2, 0.7)).on_edge
    assert chosen(trial(1, 0.7), trial(2, 0.5)).on_edge
    assert not chosen(trial(1, 0.5), trial(2, 0.7), trial(3, 0.6)).on_edge
    assert not chosen(trial(1, 0.5), trial(2, 0.7), trial(3, None)).on_edge
    assert chosen(trial(1, 0.5)).on_edge


def test_where_all_trials_are_lost_nothing_is_chosen_but_what_was_given():
    found = chosen(trial(1, None), trial(2, None))
    assert (found.learning_rate, found.validation_accuracy, found.lost) == (0.1, None, 2)
