from __future__ import annotations

import collections
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.exact_infobatch import chances, expected_mean, law
from scipy import stats

from saln.errors import InputError
from saln.randomness import derive_generator
from saln.selection import Candidates, InfoBatch
from saln.selection.infobatch import inclusion_probabilities, infobatch_positions

RATIOS = st.sampled_from([Fraction(0), Fraction(1, 4), Fraction(1, 2), Fraction(9, 10)])
CASES = {"easy": st.lists(st.booleans(), min_size=1, max_size=8), "ratio": RATIOS}


def weights_of(is_easy, k, ratio):
    n_easy = sum(is_easy)
    p_easy, p_hard = inclusion_probabilities(n_easy, len(is_easy) - n_easy, k, float(ratio))
    return [k / (len(is_easy) * (p_easy if easy else p_hard)) for easy in is_easy]


@settings(deadline=None)
@given(**CASES, data=st.data())
def test_probabilities_agree_with_the_oracle(easy, ratio, data):
    k = data.draw(st.integers(1, len(easy)))
    expected = chances(easy, k, ratio)
    p_easy, p_hard = inclusion_probabilities(sum(easy), len(easy) - sum(easy), k, float(ratio))
    for is_easy, chance in zip(easy, expected, strict=True):
        assert (p_easy if is_easy else p_hard) == pytest.approx(float(chance), abs=1e-9)


@settings(deadline=None)
@given(**CASES, data=st.data())
def test_the_weighted_mean_is_unbiased(easy, ratio, data):
    """Over every set that can be kept, by the oracle's law and the library's weights."""
    k = data.draw(st.integers(1, len(easy)))
    sets = law(easy, k, chances(easy, k, ratio))
    assert sum(sets.values()) == pytest.approx(1)
    losses = [1.0 + 3 * i for i in range(len(easy))]
    weights = weights_of(easy, k, ratio)
    found = expected_mean(losses, weights, k, sets)
    assert found == pytest.approx(sum(losses) / len(losses), rel=1e-9)
    assert expected_mean([1.0] * len(easy), weights, k, sets) == pytest.approx(1)


@pytest.mark.parametrize(
    ("easy", "k", "ratio"),
    [([1, 1, 1, 0, 0, 0], 2, 0.5), ([1, 1, 0, 1, 0], 3, 0.9), ([1, 1, 1, 1, 0], 4, 0.5)],
)
def test_the_kept_set_follows_the_exact_law(easy, k, ratio):
    is_easy = [bool(value) for value in easy]
    sets = law(is_easy, k, chances(is_easy, k, Fraction(str(ratio))))
    expected_weights = weights_of(is_easy, k, ratio)
    draws, counts = 3_000, collections.Counter()
    for draw in range(draws):
        generator = derive_generator("infobatch", draw)
        positions, weights = infobatch_positions(torch.tensor(is_easy), k, ratio, generator)
        counts[frozenset(positions.tolist())] += 1
        wanted = [expected_weights[i] for i in positions.tolist()]
        assert weights.tolist() == pytest.approx(wanted, rel=1e-6)
    assert set(counts) <= set(sets)
    observed = [counts[key] for key in sets]
    if len(sets) > 1:
        assert stats.chisquare(observed, [draws * p for p in sets.values()]).pvalue > 1e-3


def test_an_easy_one_weighs_as_much_more_as_it_is_rarer():
    """The paper's weights, 1 and 1 / (1 - r), up to a common factor."""
    is_easy = torch.tensor([True] * 80 + [False] * 80)
    positions, weights = infobatch_positions(is_easy, 32, 0.5, derive_generator("weights"))
    easy, hard = weights[is_easy[positions]], weights[~is_easy[positions]]
    assert float(easy[0] / hard[0]) == pytest.approx(2)
    assert float(weights.sum()) == pytest.approx(32, rel=0.05)


def all_of(n=100):
    return Candidates(indices=torch.arange(n))


def easy_share(selector, draws=200):
    """The share of indices below 50 among the kept."""
    kept = [
        selector(all_of(), 20, generator=derive_generator("share", i)).positions
        for i in range(draws)
    ]
    return float((torch.cat(kept) < 50).float().mean())


def told(**options):
    """A selector that was told, in epoch 1, that the first half is easy."""
    selector = InfoBatch(**options)
    selector.begin_epoch(1)
    selector.observe(torch.arange(100), (torch.arange(100) >= 50).float())
    return selector


def test_losses_count_from_the_next_epoch():
    selector = told()
    assert easy_share(selector) == pytest.approx(0.5, abs=0.03)
    selector.begin_epoch(2)
    assert easy_share(selector) == pytest.approx(1 / 3, abs=0.03)


def test_the_last_epochs_give_all_the_same_chance_and_weight():
    selector = told(epochs=8)
    selector.begin_epoch(7)
    assert easy_share(selector) == pytest.approx(1 / 3, abs=0.03)
    selector.begin_epoch(8)
    assert easy_share(selector) == pytest.approx(0.5, abs=0.03)
    weights = selector(all_of(), 20, generator=derive_generator(0)).weights
    torch.testing.assert_close(weights, torch.ones(20))


def test_a_run_says_when_its_last_epochs_come():
    assert InfoBatch.for_run(epochs=8).epochs == 8


def test_keeping_all_weighs_all_the_same():
    selector = told()
    selector.begin_epoch(2)
    weights = selector(all_of(), 100, generator=derive_generator(0)).weights
    torch.testing.assert_close(weights, torch.ones(100))


def test_what_was_never_trained_counts_as_hard():
    selector = InfoBatch(prune_ratio=0.9)
    selector.begin_epoch(1)
    # 0 to 49 are known; 40 of them are below their mean of 0.2.
    selector.observe(torch.arange(50), (torch.arange(50) >= 40).float())
    selector.begin_epoch(2)
    kept = torch.cat(
        [selector(all_of(), 20, generator=derive_generator("new", i)).positions for i in range(100)]
    )
    assert float((kept < 40).float().mean()) == pytest.approx(4 / 64, abs=0.02)


def test_a_loss_that_is_not_finite_is_forgotten():
    selector = InfoBatch()
    selector.begin_epoch(1)
    selector.observe(torch.arange(3), torch.tensor([1.0, float("inf"), float("nan")]))
    selector.begin_epoch(2)
    assert selector._mean == 1.0


@pytest.mark.parametrize(
    "options", [{"prune_ratio": 1.0}, {"prune_ratio": -0.1}, {"epochs": 0}, {"full_from": 0.0}]
)
def test_arguments_that_mean_nothing_are_refused(options):
    with pytest.raises(InputError, match="is not allowed; give"):
        InfoBatch(**options)
