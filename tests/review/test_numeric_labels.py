"""Numbers are judged by an exact leave-one-out fit; wrong ones are ranked and counted."""

from __future__ import annotations

import numpy as np
import pytest
from oracles.refitted_label_filter import fitted
from sklearn.datasets import load_diabetes, make_regression
from sklearn.linear_model import RidgeCV
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import KFold, cross_val_predict

from saln.errors import InputError
from saln.review.numeric_labels import fit_mixture, judge_numbers


def refitted(rows, numbers, penalty, groups):
    """What a fit without an example, or its group, foretells: by fitting again, n times."""
    known = np.isfinite(numbers)
    found = np.empty(len(rows))
    for i in range(len(rows)):
        others = known & (groups != groups[i])
        weights, constant = fitted(rows[others], numbers[others, None], penalty)
        found[i] = (rows[i] @ weights + constant)[0]
    return found


def linear(n=60, d=8, seed=0, noise=1.0):
    random = np.random.default_rng(seed)
    rows = random.standard_normal((n, d))
    return rows, 100.0 + 7.0 * (
        rows @ random.standard_normal(d) + noise * random.standard_normal(n)
    )


def penalty_of(found, rows, known):
    centered = rows[known] - rows[known].mean(axis=0)
    return found.penalty * (centered**2).sum()


@pytest.mark.parametrize("unknown", [0, 7])
def test_what_is_expected_is_what_a_fit_without_the_example_says(unknown):
    rows, numbers = linear()
    numbers[:unknown] = np.nan
    known = np.isfinite(numbers)
    found = judge_numbers(rows, numbers)
    expected = refitted(rows, numbers, penalty_of(found, rows, known), np.arange(60))
    np.testing.assert_allclose(found.expected, expected, rtol=0, atol=1e-8 * numbers[known].std())
    assert np.isnan(found.confidence[:unknown]).all()
    assert (found.confidence[unknown:] > 0.5).all()


def test_the_penalty_is_that_of_the_least_left_out_error():
    from saln.review.numeric_labels import FARTHEST, PENALTIES

    rows, numbers = linear(n=40, d=20, noise=3.0, seed=2)
    found = judge_numbers(rows, numbers)
    scale = penalty_of(found, rows, np.ones(40, dtype=bool)) / found.penalty
    most = FARTHEST * 1.4826 * np.median(np.abs(numbers - np.median(numbers)))
    errors = {}
    for share in PENALTIES:
        off = np.abs(numbers - refitted(rows, numbers, share * scale, np.arange(40)))
        errors[share] = np.minimum(off, most).mean()
    assert found.penalty == min(errors, key=errors.get)


def test_near_duplicates_have_no_voice_about_each_other():
    rows, numbers = linear(n=80)
    rows[1] = rows[0] + 1e-9
    numbers[:2] += 60.0  # both wrong, in the same way
    found = judge_numbers(rows, numbers)
    assert [group.tolist() for group in found.groups] == [[0, 1]]
    assert (found.confidence[:2] < 0.1).all()
    groups = np.arange(80)
    groups[1] = 0
    # The doubted numbers have been replaced by then, so only the two tell the fit without both.
    both = refitted(rows, numbers, penalty_of(found, rows, groups >= 0), groups)[:2]
    assert np.abs(found.expected[:2] - both).max() < 0.2 * found.scale


def wrongly(numbers, rate, seed):
    random = np.random.default_rng(seed)
    wrong = random.random(len(numbers)) < rate
    given = numbers.copy()
    given[wrong] = random.uniform(numbers.min(), numbers.max(), int(wrong.sum()))
    return given, wrong


def data(name):
    if name == "diabetes":
        rows, numbers = load_diabetes(return_X_y=True)
        return rows / rows.std(axis=0), numbers
    rows, numbers = make_regression(800, 30, n_informative=10, noise=30, random_state=0)
    return rows, numbers


@pytest.mark.parametrize(("name", "least"), [("generated", 0.02), ("diabetes", -0.003)])
def test_wrong_numbers_are_ranked_at_least_as_well_as_by_cross_validation(name, least):
    rows, numbers = data(name)
    gains = []
    for seed in range(3):
        given, wrong = wrongly(numbers, 0.2, seed)
        found = judge_numbers(rows, given)
        ridge = RidgeCV(np.logspace(-2, 4, 13))
        folds = KFold(5, shuffle=True, random_state=seed)
        residuals = np.abs(given - cross_val_predict(ridge, rows, given, cv=folds))
        ours = roc_auc_score(wrong, -found.confidence)
        gains.append(ours - roc_auc_score(wrong, residuals))
        assert ours > (0.94 if name == "generated" else 0.65)
    assert np.mean(gains) > least


def test_probabilities_are_of_the_size_that_they_say():
    rows, numbers = data("generated")
    given, wrong = wrongly(numbers, 0.2, 0)
    found = judge_numbers(rows, given)
    low, high = found.noise_interval
    assert low < found.noise_rate < high
    assert abs(found.noise_rate - wrong.mean()) < 0.06
    doubted = found.confidence < 0.5
    assert wrong[doubted].mean() > 0.85
    assert doubted[wrong].mean() > 0.75


def test_right_numbers_are_not_doubted():
    rows, numbers = data("diabetes")
    found = judge_numbers(rows, numbers)
    assert found.informative
    assert (found.confidence < 0.5).sum() == 0
    assert found.noise_rate < 0.01


def test_features_that_tell_nothing_doubt_nothing():
    random = np.random.default_rng(0)
    found = judge_numbers(random.standard_normal((200, 5)), random.standard_normal(200) ** 3)
    assert not found.informative
    assert "no number is doubted" in found.message
    assert (found.confidence == 1.0).all()
    assert np.isnan(found.noise_rate)


@pytest.mark.parametrize("shift", [0.0, 1e6])
def test_size_and_place_of_the_numbers_do_not_matter(shift):
    rows, numbers = linear(n=200)
    given, _ = wrongly(numbers, 0.1, 1)
    one, other = judge_numbers(rows, given), judge_numbers(rows, 1e-3 * given + shift)
    np.testing.assert_allclose(one.confidence, other.confidence, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(1e-3 * one.expected + shift, other.expected, rtol=1e-6)


def test_numbers_that_are_all_alike_are_right():
    rows, _ = linear()
    found = judge_numbers(rows, np.full(60, 3.0))
    assert (found.confidence[np.isfinite(found.confidence)] > 0.5).all()


def test_the_mixture_finds_the_shares_and_scales_it_was_drawn_from():
    random = np.random.default_rng(0)
    expected = random.standard_normal(10_000)
    residuals = 0.2 * random.standard_normal(10_000)
    residuals[:1500] = 1.5 * random.standard_cauchy(1500)
    numbers = expected + residuals
    numbers[1500:3000] = random.standard_cauchy(1500)
    mixture, right = fit_mixture(numbers - expected, numbers)
    assert abs(mixture.far - 0.15) < 0.04
    assert abs(mixture.other - 0.15) < 0.04
    assert abs(mixture.right - 0.2) < 0.01
    assert abs(mixture.wrong - 1.5) < 0.3
    assert abs(right.mean() - 0.7) < 0.02
    low, high = mixture.interval(numbers - expected, numbers)
    assert low < 0.3 < high < low + 0.05


@pytest.mark.parametrize("kind", ["swapped", "shifted", "times ten"])
def test_whatever_is_wrong_with_numbers_their_share_is_about_right(kind):
    rows, numbers = linear(n=600, noise=0.5)
    random = np.random.default_rng(0)
    wrong = random.random(600) < 0.15
    given = numbers.copy()
    if kind == "swapped":
        given[wrong] = random.permutation(numbers)[wrong]
    elif kind == "shifted":
        given[wrong] += random.choice([-1, 1], wrong.sum()) * random.uniform(40, 90, wrong.sum())
    else:
        given[wrong] *= 10
    found = judge_numbers(rows, given)
    # Some of what is swapped lies where it should, and nobody could know.
    assert wrong.mean() - 0.05 < found.noise_rate < wrong.mean() + 0.04
    assert wrong[found.confidence < 0.5].mean() > 0.9


def test_what_is_no_number_a_row_is_refused():
    rows, numbers = linear()
    with pytest.raises(InputError, match="60 rows of features and numbers"):
        judge_numbers(rows, numbers[:5])
    with pytest.raises(InputError, match="one finite number a row"):
        judge_numbers(rows, np.where(np.arange(60) == 3, np.inf, numbers))
    with pytest.raises(InputError, match="9 numbers are too few"):
        judge_numbers(rows, np.where(np.arange(60) < 9, numbers, np.nan))
