from __future__ import annotations

import collections

import pytest
import torch
from oracles.exact_remembered_loss import law
from scipy import stats

from saln.errors import InputError
from saln.randomness import derive_generator
from saln.selection import SELECTORS, Candidates

RememberedLoss = SELECTORS["remembered-loss"]
LOSSES = [0.5, 2.0, 2.0, 0.1, 1.0, 2.0]


def told(losses=LOSSES, **options):
    selector = RememberedLoss(**options)
    selector.begin_epoch(1)
    selector.observe(torch.arange(len(losses)), torch.tensor(losses))
    selector.begin_epoch(2)
    return selector


def kept_by(selector, k, n, seed=0, **fields):
    candidates = Candidates(indices=torch.arange(n), **fields)
    found = selector(candidates, k, generator=derive_generator("remembered", seed))
    return frozenset(found.positions.tolist())


@pytest.mark.parametrize(
    ("options", "size"),
    [({}, 6), ({"pool": 0.5}, 3), ({"beta": 1.0}, 6), ({"beta": 2.0, "pool": 0.6}, 4)],
)
def test_the_kept_set_follows_the_exact_law(options, size):
    selector = told(**options)
    expected = law(LOSSES, 2, size, options.get("beta"))
    counts = collections.Counter(kept_by(selector, 2, 6, seed) for seed in range(3_000))
    assert set(counts) <= set(expected)
    observed = [counts[kept] for kept in expected]
    assert stats.chisquare(observed, [3_000 * p for p in expected.values()]).pvalue > 1e-3


def test_losses_count_from_the_next_epoch_and_what_was_never_trained_as_the_highest():
    selector = told([0.0, 3.0, 1.0])
    # 3 and 4 are unknown, and as high as the highest.
    assert collections.Counter(len(kept_by(selector, 2, 5, s) & {1, 3, 4}) for s in range(20)) == {
        2: 20
    }
    assert kept_by(selector, 3, 5) == {1, 3, 4}
    selector.observe(torch.tensor([3, 4, 1]), torch.tensor([0.5, float("nan"), 0.2]))
    assert kept_by(selector, 3, 5) == {1, 3, 4}
    selector.begin_epoch(3)
    assert kept_by(selector, 2, 5) == {2, 4}


def test_classes_are_balanced_on_request():
    selector = told([5.0, 4.0, 3.0, 0.1, 0.2, 0.3], balance=1.0)
    believed = torch.tensor([0, 0, 0, 1, 1, 1])
    assert kept_by(selector, 4, 6, believed=believed) == {0, 1, 4, 5}
    with pytest.raises(InputError, match="lack believed"):
        kept_by(selector, 4, 6)


@pytest.mark.parametrize("options", [{"beta": 0.0}, {"pool": 0.0}, {"balance": -1.0}])
def test_arguments_that_mean_nothing_are_refused(options):
    with pytest.raises(InputError, match="is not allowed; give"):
        RememberedLoss(**options)
