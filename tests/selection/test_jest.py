from __future__ import annotations

import collections

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.dense_jest import (
    chunk_probabilities,
    one_versus_rest,
    pair_logits,
    set_probabilities,
    sigmoid_matrix,
    softmax_matrix,
)
from scipy import stats

from saln.errors import InputError, NotJointWarning
from saln.randomness import derive_generator
from saln.selection.candidates import Candidates, PairEmbeddings
from saln.selection.jest import (
    JEST,
    ImageTextJEST,
    gumbel_top_k,
    is_outer_difference,
    jest_positions,
    one_versus_rest_losses,
    sigmoid_losses,
    softmax_losses,
)


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


def test_an_unknown_variant_is_refused():
    with pytest.raises(InputError, match="variant='hard' is not allowed; give one of learnability"):
        JEST(variant="hard")
    with pytest.raises(InputError, match="loss='hinge' is not allowed; give sigmoid or softmax"):
        ImageTextJEST(loss="hinge")


def pairs_of(n, d=4, seed=0, scale=2.0, bias=-1.0, dtype=torch.float64):
    image, text = torch.randn(
        2, n, d, generator=derive_generator("pairs", seed), dtype=torch.float64
    ).to(dtype)
    return PairEmbeddings(image, text, torch.tensor(scale), torch.tensor(bias))


@settings(deadline=None)
@given(
    n=st.integers(1, 7),
    scale=st.sampled_from([0.0, 1.0, 10.0, 60.0]),
    bias=st.sampled_from([0.0, -10.0, 3.0]),
    seed=st.integers(0, 10_000),
)
def test_image_text_losses_agree_with_the_definition(n, scale, bias, seed):
    pairs = pairs_of(n, seed=seed, scale=scale, bias=bias)
    logits = pair_logits(pairs.image.numpy(), pairs.text.numpy(), scale, bias)
    found = sigmoid_losses(pairs).numpy()
    np.testing.assert_allclose(found, sigmoid_matrix(logits), rtol=1e-9, atol=1e-9)
    if n > 1:
        found, expected = softmax_losses(pairs).numpy(), None
        spread = max(max(row) for row in logits) - min(min(row) for row in logits)
        if spread < 600:  # beyond, the oracle's exp underflows
            expected = softmax_matrix(logits)
            np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-9)
        assert np.isfinite(found).all()


def test_the_diagonal_of_the_softmax_form_is_clips_loss():
    pairs = pairs_of(6)
    logits = pairs.scale * pairs.image @ pairs.text.T + pairs.bias
    own = torch.arange(6)
    clip = sum(
        torch.nn.functional.cross_entropy(z, own, reduction="none") for z in (logits, logits.T)
    )
    torch.testing.assert_close(softmax_losses(pairs).diagonal(), clip / 2)


@pytest.mark.parametrize("form", [sigmoid_losses, softmax_losses])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_image_text_losses_are_finite_and_right_at_logits_of_1e4(form, dtype):
    eye = torch.eye(3, dtype=dtype)
    pairs = PairEmbeddings(eye, eye.flip(0), scale=1e4)
    losses = form(pairs)
    assert torch.isfinite(losses).all()
    # Image 0 is sure of text 2 and so wrong about its own by the whole logit.
    assert float(losses[0, 0]) == pytest.approx(
        1e4 if form is softmax_losses else np.log(2), rel=1e-3
    )
    assert float(losses[0, 2]) == pytest.approx(1e4, rel=1e-3)
    assert float(losses[1, 1]) == pytest.approx(0.0, abs=1e-6)
    for variant in ("learnability", "easy-reference", "hard-learner"):
        selector = ImageTextJEST(2, variant, "sigmoid" if form is sigmoid_losses else "softmax")
        candidates = Candidates(
            indices=torch.arange(3),
            learner_embeddings=pairs,
            reference_embeddings=PairEmbeddings(eye, eye, scale=1e4),
        )
        kept = selector(candidates, 2, generator=derive_generator("1e4")).positions
        assert len(set(kept.tolist())) == 2


@pytest.mark.parametrize("kind", ["classes", "pairs"])
def test_variants_score_by_what_they_are_named_after(kind):
    generator = derive_generator("variants")
    labels = torch.randint(0, 3, (8,), generator=generator)
    logits = torch.randn(2, 8, 3, generator=generator, dtype=torch.float64)
    pairs = [pairs_of(8, seed=seed) for seed in (1, 2)]
    if kind == "classes":
        selector = JEST
        fields = {"labels": labels, "learner_outputs": logits[0], "reference_outputs": logits[1]}
        learner, reference = (one_versus_rest(z.numpy(), labels.numpy()) for z in logits)
    else:
        selector = ImageTextJEST
        fields = {"learner_embeddings": pairs[0], "reference_embeddings": pairs[1]}
        learner, reference = (
            sigmoid_matrix(pair_logits(pair.image.numpy(), pair.text.numpy(), 2.0, -1.0))
            for pair in pairs
        )
    for variant, expected, unread in (
        ("learnability", learner - reference, ""),
        ("easy-reference", -reference, "learner_"),
        ("hard-learner", learner, "reference_"),
    ):
        given_fields = {
            name: value
            for name, value in fields.items()
            if not (unread and name.startswith(unread))
        }
        chooser = selector(variant=variant)
        assert set(given_fields) == chooser.requires
        candidates = Candidates(indices=torch.arange(8), **given_fields)
        selection = chooser(candidates, 3, generator=derive_generator("variant"))
        np.testing.assert_allclose(selection.scores.numpy(), expected.diagonal(), rtol=1e-9)
        # The same draw as from the oracle's matrix.
        drawn = jest_positions(
            torch.from_numpy(expected), 3, chunks=16, generator=derive_generator("variant")
        )
        assert selection.positions.tolist() == drawn.tolist()


@given(n=st.integers(3, 12), seed=st.integers(0, 1_000), scale=st.sampled_from([1e-3, 1.0, 1e4]))
def test_an_outer_difference_is_found(n, seed, scale):
    rows, columns = torch.randn(2, n, generator=derive_generator("outer", seed)) * scale
    scores = rows[:, None] - columns[None, :]
    assert is_outer_difference(scores.double())
    with pytest.warns(NotJointWarning, match="RHO-LOSS with a temperature"):
        jest_positions(scores, 2, chunks=2, generator=derive_generator(0))
    joint = scores.double().clone()
    joint[1, 2] += 0.01 * scale
    assert not is_outer_difference(joint)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_an_outer_difference_is_found_in_every_precision(dtype):
    rows, columns = torch.randn(2, 20, generator=derive_generator("precision"))
    scores = rows.to(dtype)[:, None] - columns.to(dtype)[None, :]
    assert is_outer_difference(scores)
    joint = torch.randn(20, 20, generator=derive_generator("joint")).to(dtype)
    assert not is_outer_difference(joint)


def test_an_outer_difference_is_rho_loss_with_a_temperature():
    """What the warning says: every logit is a_j - b_j times one more than the number kept."""
    rows, columns = torch.randn(2, 6, generator=derive_generator("claim"), dtype=torch.float64)
    scores = rows[:, None] - columns[None, :]
    kept = [4, 1]
    logits = scores.diagonal() + scores[kept].sum(dim=0) + scores[:, kept].sum(dim=1)
    rest = logits - (1 + len(kept)) * (rows - columns)
    torch.testing.assert_close(rest, rest[0].expand(6))


def test_what_is_no_outer_difference_is_not_taken_for_one():
    assert not is_outer_difference(torch.zeros(4, 4, dtype=torch.float64))
    assert not is_outer_difference(torch.eye(3, dtype=torch.float64))
    assert not is_outer_difference(torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float64))


def test_an_image_text_batch_of_one_pair():
    candidates = Candidates(
        indices=torch.arange(1),
        learner_embeddings=pairs_of(1),
        reference_embeddings=pairs_of(1, seed=1),
    )
    for loss in ("sigmoid", "softmax"):
        selection = ImageTextJEST(loss=loss)(candidates, 1, generator=derive_generator(0))
        assert selection.positions.tolist() == [0]


def test_the_features_take_the_place_of_the_reference_model():
    """The same draws as with a model that says what the teacher does."""
    draw = derive_generator("teacher")
    learner, teacher = torch.randn(2, 9, 3, generator=draw, dtype=torch.float64)
    labels = torch.arange(9) % 3
    known = {"indices": torch.arange(9), "labels": labels, "learner_outputs": learner}
    by_features, by_model = JEST(chunks=2, reference="features"), JEST(chunks=2)
    assert by_features.requires == {"labels", "learner_outputs", "teacher_outputs"}
    found = by_features(
        Candidates(**known, teacher_outputs=teacher), 4, generator=derive_generator(1)
    )
    expected = by_model(
        Candidates(**known, reference_outputs=teacher), 4, generator=derive_generator(1)
    )
    assert found.positions.tolist() == expected.positions.tolist()
    own = one_versus_rest(learner.numpy(), labels.numpy())
    taken = one_versus_rest(teacher.numpy(), labels.numpy())
    np.testing.assert_allclose(found.scores.numpy(), np.diagonal(own - taken), rtol=1e-9)
    # What was stored before there was a choice still fits.
    assert by_model._stored() == "JEST(chunks=2, variant='learnability')"
    assert (
        JEST(variant="hard-learner", reference="features").requires
        == JEST(variant="hard-learner").requires
    )
    with pytest.raises(InputError, match="reference='features' is not allowed; give model"):
        ImageTextJEST(reference="features")
