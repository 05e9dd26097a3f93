from __future__ import annotations

import collections

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.dense_jest import chunk_probabilities, one_versus_rest, set_probabilities
from scipy import stats

from saln.errors import InputError
from saln.randomness import derive_generator
from saln.selection.candidates import Candidates
from saln.selection.jest import JEST, gumbel_top_k, jest_positions, one_versus_rest_losses


@settings(deadline=None)
@given(
    n=st.integers(1, 8),
    classes=st.integers(2, 5),
    scale=st.sampled_from([0.0, 1.0, 30.0, 300.0]),
    seed=st.integers(0, 10_000),
)
def test_pairwise_losses_agree_with_the_definition(n, classes, scale, seed):
    generator = derive_generator("losses", seed)
    logits = torch.randn(n, classes, generator=generator, dtype=torch.float64) * scale
    labels = torch.randint(0, classes, (n,), generator=generator)
    found = one_versus_rest_losses(logits, labels).numpy()
    expected = one_versus_rest(logits.numpy(), labels.numpy())
    # Above a loss of 700 the oracle's exp loses digits, then underflows; ours stays finite.
    exact = expected < 700
    np.testing.assert_allclose(found[exact], expected[exact], rtol=1e-9, atol=1e-12)
    assert np.isfinite(found).all()
    assert (found[~exact] > 699).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_pairwise_losses_are_finite_and_exact_at_huge_logits(dtype):
    logits = torch.tensor([[1e4, 0.0, -1e4], [-1e4, 1e4, 0.0]]).to(dtype)
    losses = one_versus_rest_losses(logits, torch.tensor([0, 2]))
    assert torch.isfinite(losses).all()
    top = float(logits[0, 0])
    # Example 0 is sure of class 0; of class 2 (example 1's) it is sure that it is not.
    torch.testing.assert_close(losses, torch.tensor([[0.0, 0.0], [0.0, top]]), rtol=0, atol=1e-6)


def test_a_sure_wrong_example_does_not_tell_itself_from_its_rival():
    logits = torch.tensor([[0.0, 50.0], [0.0, 0.0]], dtype=torch.float64)
    losses = one_versus_rest_losses(logits, torch.tensor([0, 1]))
    assert losses[0, 1] == pytest.approx(50.0)  # -log(1 - p_0(1)) with 1 - p = exp(-50)
    assert losses[1, 0] == pytest.approx(np.log(2))


def test_gumbel_top_k_draws_in_proportion():
    logits = torch.log(torch.tensor([0.5, 0.3, 0.2, 1e-30]))
    counts = collections.Counter(
        int(gumbel_top_k(logits, 1, derive_generator("gumbel", draw))[0]) for draw in range(3_000)
    )
    observed = [counts[position] for position in range(3)]
    assert counts[3] == 0
    assert stats.chisquare(observed, [1_500, 900, 600]).pvalue > 1e-3


def test_gumbel_top_k_never_draws_what_is_masked():
    logits = torch.tensor([-torch.inf, 1e30, -1e30, -torch.inf])
    for draw in range(50):
        assert sorted(gumbel_top_k(logits, 2, derive_generator(draw)).tolist()) == [1, 2]


@given(n=st.integers(1, 40), data=st.data(), chunks=st.integers(1, 50), seed=st.integers(0, 1_000))
def test_keeps_exactly_k_whatever_the_chunks(n, data, chunks, seed):
    k = data.draw(st.integers(1, n))
    generator = derive_generator("scores", seed)
    scores = torch.randn(n, n, generator=generator) * 1e4
    kept = jest_positions(scores, k, chunks=chunks, generator=generator)
    assert len(kept) == len(set(kept.tolist())) == k


def test_the_kept_set_follows_the_exact_law():
    """Exhaustive for n = 5, k = 3 in chunks of one: all orders enumerated by the oracle."""
    generator = derive_generator("law")
    scores = torch.randn(5, 5, generator=generator, dtype=torch.float64)
    law = set_probabilities(scores.numpy(), 3)
    assert sum(law.values()) == pytest.approx(1)
    draws = 4_000
    counts = collections.Counter(
        frozenset(
            jest_positions(scores, 3, chunks=3, generator=derive_generator("draw", i)).tolist()
        )
        for i in range(draws)
    )
    keys = sorted(law, key=sorted)
    observed = [counts[key] for key in keys]
    assert stats.chisquare(observed, [draws * law[key] for key in keys]).pvalue > 1e-3


def test_a_chunk_sees_the_ones_before_it_and_not_itself():
    """Two chunks of one: the second draw's law is the oracle's, given the first."""
    scores = torch.tensor([[50.0, 3.0, -3.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    second = collections.Counter(
        jest_positions(scores, 2, chunks=2, generator=derive_generator("two", i)).tolist()[1]
        for i in range(2_000)
    )
    law = chunk_probabilities(scores.numpy(), (0,))
    assert law[1] > 0.99  # s_01 + s_10 = 4 for candidate 1, -3 for candidate 2
    assert second[1] / 2_000 == pytest.approx(law[1], abs=0.01)
    # In one chunk nothing is known of the first draw: 1 and 2 are equally likely.
    together = collections.Counter(
        jest_positions(scores, 2, chunks=1, generator=derive_generator("one", i)).tolist()[1]
        for i in range(2_000)
    )
    assert together[1] / 2_000 == pytest.approx(0.5, abs=0.05)


def test_prefers_what_the_reference_has_learned_and_the_learner_has_not():
    n, labels = 40, torch.arange(40) % 2
    easy = torch.nn.functional.one_hot(labels, 2).double() * 8
    learner, reference = torch.zeros(n, 2, dtype=torch.float64), easy.clone()
    reference[20:] = -easy[20:]  # the reference is wrong on the second half
    candidates = Candidates(
        indices=torch.arange(n),
        labels=labels,
        learner_outputs=learner,
        reference_outputs=reference,
    )
    kept = JEST()(candidates, 10, generator=derive_generator("prefer")).positions
    assert (kept < 20).all()


def test_chunks_below_one_are_refused():
    with pytest.raises(InputError, match="chunks=0 is not allowed"):
        JEST(chunks=0)
