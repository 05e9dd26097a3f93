from __future__ import annotations

import collections

import pytest
import torch
from oracles.exact_curriculum import draws, weight
from scipy import stats

from saln.errors import InputError
from saln.randomness import derive_generator
from saln.selection import Candidates, Curriculum
from saln.selection.curriculum import curriculum_logits

DIFFICULTY = [0.0, 0.3, 1.1, 2.0, 3.0]


def candidates(difficulty=DIFFICULTY):
    n = len(difficulty)
    return Candidates(
        indices=torch.arange(n),
        difficulty=torch.tensor(difficulty, dtype=torch.float64),
        believed=torch.arange(n) % 2,
    )


def counted(selector, found, k, draws=2_000):
    return collections.Counter(
        frozenset(selector(found, k, generator=derive_generator("law", i)).positions.tolist())
        for i in range(draws)
    )


@pytest.mark.parametrize(
    ("epoch", "options"),
    [(1, {}), (4, {}), (2, {"strength": 2.0, "pace": 1.5}), (3, {"pace": 0.0})],
)
def test_the_kept_set_follows_the_exact_law(epoch, options):
    selector = Curriculum(epochs=4, **options)
    selector.begin_epoch(epoch)
    strength, pace = options.get("strength", 1.0), options.get("pace", 1.0)
    weights = [weight(each, (epoch - 0.5) / 4, strength, pace) for each in DIFFICULTY]
    expected = draws(weights, 2)
    counts = counted(selector, candidates(), 2)
    observed = [counts[kept] for kept in expected]
    assert stats.chisquare(observed, [2_000 * p for p in expected.values()]).pvalue > 1e-3
    scores = selector(candidates(), 2, generator=derive_generator(0)).scores
    ratios = torch.tensor(weights, dtype=torch.float64).log()
    torch.testing.assert_close(scores - scores[0], ratios - ratios[0])


def test_easy_first_hard_last_and_neither_in_the_middle():
    difficulty = torch.tensor([0.0, 3.0])
    signs = [float(curriculum_logits(difficulty, t)[1].sign()) for t in (0.1, 0.5, 0.9)]
    assert signs == [-1, 0, 1]
    # A quick pace reaches the end early, and stays there.
    assert curriculum_logits(difficulty, 0.5, pace=2).tolist() == [0, 3]
    assert curriculum_logits(difficulty, 1.0, pace=2).tolist() == [0, 3]


@pytest.mark.parametrize("options", [{}, {"epochs": 3}])
def test_nobody_is_preferred_where_the_length_of_the_run_is_unknown(options):
    selector = Curriculum(**options)
    if not options:
        selector.begin_epoch(1)
    assert not selector(candidates(), 2, generator=derive_generator(0)).scores.any()


def test_a_run_says_how_long_it_is():
    selector = Curriculum.for_run(epochs=8)
    selector.begin_epoch(8)
    assert selector(candidates(), 5, generator=derive_generator(0)).scores[4] == 3 * 0.875
    # Where it is follows from the epoch alone: copies in workers may choose, too.
    assert selector.state_dict() == {}


def test_classes_are_balanced_on_request():
    selector = Curriculum(balance=1.0)
    kept = selector(candidates(), 4, generator=derive_generator(1)).positions
    assert sorted((kept % 2).tolist()) == [0, 0, 1, 1]


@pytest.mark.parametrize(
    "options", [{"strength": -1.0}, {"pace": -0.1}, {"balance": 1.1}, {"epochs": 0}]
)
def test_arguments_that_mean_nothing_are_refused(options):
    with pytest.raises(InputError, match="is not allowed; give"):
        Curriculum(**options)
