from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.exhaustive_herding import away, greedy, unit_rows

from saln.errors import InputError
from saln.randomness import derive_generator
from saln.selection import SELECTORS, Candidates
from saln.selection.herding import herding_positions

Herding = SELECTORS["herding"]


@settings(deadline=None)
@given(n=st.integers(1, 10), data=st.data(), seed=st.integers(0, 10_000))
def test_what_the_naive_greedy_keeps(n, data, seed):
    k = data.draw(st.integers(1, n))
    rows = np.random.default_rng(seed).normal(size=(n, 4)) + 0.5
    positions, _ = herding_positions(torch.from_numpy(rows), k)
    assert positions.tolist() == greedy(rows, unit_rows(rows).mean(axis=0), k, [n], [0] * n)


@settings(deadline=None)
@given(seed=st.integers(0, 10_000))
def test_quotas_are_kept_and_the_target_is_that_of_the_classes(seed):
    rows = np.random.default_rng(seed).normal(size=(9, 4)) + 0.5
    classes, quotas = [0, 0, 0, 0, 0, 1, 1, 1, 2], [2, 2, 1]
    target = sum(
        quota / 5 * unit_rows(rows)[np.array(classes) == c].mean(axis=0)
        for c, quota in enumerate(quotas)
    )
    positions, agreement = herding_positions(
        torch.from_numpy(rows), 5, classes=torch.tensor(classes), quotas=torch.tensor(quotas)
    )
    assert positions.tolist() == greedy(rows, target, 5, quotas, classes)
    np.testing.assert_allclose(agreement, unit_rows(rows) @ target, atol=1e-12)


def test_the_kept_match_the_mean_far_better_than_by_chance():
    rows = np.random.default_rng(0).normal(size=(320, 16)) + 0.5
    mean = unit_rows(rows).mean(axis=0)
    positions, _ = herding_positions(torch.from_numpy(rows), 64)
    random = [np.random.default_rng(i).permutation(320)[:64].tolist() for i in range(20)]
    by_chance = min(away(rows, mean, kept) for kept in random)
    assert away(rows, mean, positions.tolist()) < 0.2 * by_chance


def test_believed_classes_are_balanced_on_request():
    rows = torch.randn(12, 5, generator=derive_generator("rows"))
    believed = torch.tensor([7] * 8 + [3] * 3 + [5])
    selector = Herding(balance=True)
    assert selector.requires == {"features", "believed"}
    candidates = Candidates(indices=torch.arange(12), features=rows, believed=believed)
    more = set()
    for seed in range(20):
        kept = selector(candidates, 6, generator=derive_generator(seed)).positions
        counts = torch.bincount(believed[kept], minlength=8)
        assert counts[5] == 1
        more.add((int(counts[3]), int(counts[7])))
    assert more == {(2, 3), (3, 2)}


def test_rows_of_zeros_and_copies_do_no_harm():
    rows = torch.zeros(6, 3)
    rows[4:] = 1.0
    positions, _ = herding_positions(rows, 6)
    assert sorted(positions.tolist()) == list(range(6))
    assert herding_positions(rows, 1)[0].tolist() == [0]


def test_balance_is_a_truth_value():
    with pytest.raises(InputError, match="balance=3 is not allowed"):
        Herding(balance=3)
