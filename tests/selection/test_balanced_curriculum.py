from __future__ import annotations

import collections

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.exact_balanced_curriculum import best_sets, law, quotas, weight
from scipy import stats

import saln
from saln.errors import InputError
from saln.randomness import derive_generator
from saln.selection import BalancedCurriculum, Candidates
from saln.selection.class_balance import balanced_top_k

CLASSES = [0, 0, 0, 7, 7, 2]
CONFIDENCE = [0.9, 0.1, 0.5, 1.0, 0.4, 0.0]
DIFFICULTY = [0.2, 0.0, 2.0, 0.1, 3.0, 1.0]


def candidates(confidence=CONFIDENCE):
    return Candidates(
        indices=torch.arange(6),
        believed=torch.tensor(CLASSES),
        difficulty=torch.tensor(DIFFICULTY, dtype=torch.float64),
        label_confidence=torch.tensor(confidence, dtype=torch.float64),
    )


@pytest.mark.parametrize(
    ("k", "options"),
    [(2, {}), (4, {}), (4, {"power": 0.5, "strength": 2.0, "pace": 2.0}), (5, {"power": 0.0})],
)
def test_the_kept_set_follows_the_exact_law(k, options):
    selector = BalancedCurriculum(epochs=4, **options)
    selector.begin_epoch(2)
    order = (1.5 / 4, options.get("strength", 1.0), options.get("pace", 1.0))
    weights = [
        confidence ** options.get("power", 4.0) * weight(difficulty, *order)
        for confidence, difficulty in zip(CONFIDENCE, DIFFICULTY, strict=True)
    ]
    weights[5] = weights[5] or 1e-300  # the last resort of its class
    expected = law(weights, CLASSES, k)
    assert sum(expected.values()) == pytest.approx(1)
    counts = collections.Counter(
        frozenset(selector(candidates(), k, generator=derive_generator("l", i)).positions.tolist())
        for i in range(3_000)
    )
    assert set(counts) <= set(expected)
    observed = [counts[kept] for kept in expected]
    assert stats.chisquare(observed, [3_000 * p for p in expected.values()]).pvalue > 1e-3


@settings(deadline=None)
@given(classes=st.lists(st.integers(0, 3), min_size=1, max_size=8), data=st.data())
def test_quotas_are_as_equal_as_the_candidates_allow(classes, data):
    k = data.draw(st.integers(1, len(classes)))
    share = data.draw(st.sampled_from([0.0, 0.25, 0.5, 1.0]))
    keys = data.draw(st.permutations(range(len(classes))))
    generator = derive_generator("quotas", data.draw(st.integers(0, 1000)))
    kept = balanced_top_k(
        torch.tensor(keys).float(), torch.tensor(classes), k, generator, share=share
    )
    assert frozenset(kept.tolist()) in best_sets(keys, classes, k, int(share * k))


def test_every_class_may_be_the_one_that_gives_one_more():
    classes = torch.arange(9) % 3
    draws = 1_500
    counts = collections.Counter(
        tuple(
            torch.bincount(
                classes[balanced_top_k(torch.arange(9.0), classes, 4, generator)]
            ).tolist()
        )
        for generator in (derive_generator("one more", i) for i in range(draws))
    )
    assert set(counts) == set(quotas([3, 3, 3], 4))
    assert stats.chisquare(list(counts.values())).pvalue > 1e-3


def test_a_confidence_below_nothing_is_refused():
    with pytest.raises(InputError, match="label_confidence of candidate 0 is -"):
        BalancedCurriculum()(candidates([-0.1, *CONFIDENCE[1:]]), 2, generator=derive_generator(0))


def test_with_nothing_but_features_and_labels_right_ones_of_all_classes_are_kept():
    """The user's path: noisy labels of uneven classes, no teacher made by hand."""
    random = np.random.default_rng(0)
    truth = random.choice(4, 1_200, p=[0.4, 0.25, 0.2, 0.15])
    rows = 2.0 * np.eye(4, 8)[truth] + 0.4 * random.normal(size=(1_200, 8))
    wrong = random.random(1_200) < 0.4
    labels = np.where(wrong, (truth + random.integers(1, 4, 1_200)) % 4, truth)
    batches = saln.SelectedBatches(
        rows, labels=labels, selector=BalancedCurriculum(epochs=3), batch_size=16,
        filter_ratio=0.8, seed=0,
    )  # fmt: skip
    batches.set_epoch(1)
    kept = np.array([row for batch in batches for row in batch])
    assert wrong[kept].mean() < 0.05
    assert np.bincount(truth[kept]).min() > 0.2 * len(kept)


def test_arguments_that_mean_nothing_are_refused():
    with pytest.raises(InputError, match="power=-1 is not allowed; give"):
        BalancedCurriculum(power=-1)
