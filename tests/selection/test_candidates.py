from __future__ import annotations

from fractions import Fraction

import numpy as np
import pandas
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from saln.errors import InputError
from saln.randomness import derive_generator
from saln.selection import (
    BatchCoherence,
    Candidates,
    PairEmbeddings,
    candidates_needed,
    kept_count,
)


def test_kept_count_is_exact_where_floats_are_not():
    assert int(10 * (1 - 0.8)) == 1  # what the paper's listing computes
    assert kept_count(10, 0.8) == 2
    assert kept_count(320, 0.8) == 64
    assert kept_count(7, 0.5) == 3
    assert kept_count(10, 0.0) == 10
    assert kept_count(3, Fraction(2, 3)) == 1


@given(n=st.integers(1, 10_000), per_mille=st.integers(0, 999))
def test_kept_count_agrees_with_integer_arithmetic(n, per_mille):
    assert kept_count(n, per_mille / 1000) == n * (1000 - per_mille) // 1000


@given(k=st.integers(1, 2_000), per_mille=st.integers(0, 999))
def test_candidates_needed_is_the_smallest_that_keeps_k(k, per_mille):
    f = per_mille / 1000
    n = candidates_needed(k, f)
    assert kept_count(n, f) == k
    assert n == 1 or kept_count(n - 1, f) < k


@pytest.mark.parametrize("ratio", [1.0, 1.5, -0.1, float("nan"), float("inf")])
def test_filter_ratio_outside_is_refused(ratio):
    with pytest.raises(InputError, match=r"filter ratio .* is not allowed.*\[0, 1\)"):
        kept_count(10, ratio)


def test_batch_size_below_one_is_refused():
    with pytest.raises(InputError, match="batch size 0 is not allowed"):
        candidates_needed(0, 0.5)


def test_indices_must_be_int64():
    with pytest.raises(InputError, match="expected int64"):
        Candidates(indices=torch.arange(3).float())


def test_fields_must_have_one_row_for_each_index():
    with pytest.raises(InputError, match=r"features has shape .* expected 3 rows"):
        Candidates(indices=torch.arange(3), features=torch.zeros(4, 2))


def test_candidates_take_keywords_only():
    with pytest.raises(TypeError):
        Candidates(torch.arange(3))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), torch.ones(2)])
def test_pair_embeddings_take_one_finite_scale(bad):
    with pytest.raises(InputError, match=r"the scale of pair embeddings is .* one finite number"):
        PairEmbeddings(torch.ones(2, 3), torch.ones(2, 3), scale=bad)


def test_both_embeddings_of_a_pair_have_one_shape():
    with pytest.raises(InputError, match=r"shapes \(2, 3\) and \(2, 4\), expected \(n, d\)"):
        PairEmbeddings(torch.ones(2, 3), torch.ones(2, 4))
    pairs = PairEmbeddings(torch.ones(2, 3), torch.ones(2, 3))
    with pytest.raises(InputError, match=r"learner_embeddings has shape .* expected 3 rows"):
        Candidates(indices=torch.arange(3), learner_embeddings=pairs)


def test_a_learned_scale_keeps_its_gradient():
    scale = torch.tensor(2.0, requires_grad=True)
    assert PairEmbeddings(torch.ones(2, 3), torch.ones(2, 3), scale=scale).scale is scale


LABELS = [2, 0, 1, 1]


@pytest.mark.parametrize(
    "labels",
    [
        LABELS,
        np.array(LABELS, dtype=np.int8),
        np.array(LABELS, dtype=np.uint32),
        np.array(LABELS, dtype=np.float64),
        np.array(LABELS)[:, None],
        torch.tensor(LABELS, dtype=torch.int16),
        torch.tensor(LABELS)[:, None],
        torch.tensor(LABELS).float(),
        pandas.Series(LABELS, index=[7, 3, 9, 1]),
        ["owl", "cat", "dog", "dog"],
        np.array(["owl", "cat", "dog", "dog"]),
        pandas.Series(["owl", "cat", "dog", "dog"]).astype("category"),
    ],
)
def test_labels_of_other_types_are_the_same_labels(labels):
    candidates = Candidates(indices=range(4), features=np.eye(4).tolist(), labels=labels)
    assert candidates.indices.tolist() == [0, 1, 2, 3]
    assert candidates.indices.dtype == candidates.labels.dtype == torch.int64
    assert candidates.labels.tolist() == LABELS
    assert candidates.features.tolist() == np.eye(4).tolist()
    kept = BatchCoherence(neighbors=np.int16(2))(
        candidates, np.int64(3), generator=derive_generator(0)
    )
    plain = Candidates(
        indices=torch.arange(4), features=torch.eye(4).double(), labels=torch.tensor(LABELS)
    )
    same = BatchCoherence(neighbors=2)(plain, 3, generator=derive_generator(0))
    assert kept.positions.tolist() == same.positions.tolist()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"labels": [0, 1, 0.5, 1]}, r"label of example 2 is 0\.5, which is no class"),
        ({"labels": [0, None, 1, 1]}, "label of example 1 is None"),
        ({"labels": np.eye(4)}, "labels"),
        ({"labels": [[0, 1], [1], [0], [2]]}, "labels are a list that is no array"),
        ({"features": ["a", "b", "c", "d"]}, "features are <U1"),
        ({"indices": [0.0, 1.0, 2.0, 3.0]}, "expected int64"),
    ],
)
def test_what_is_no_label_and_no_number_is_refused(fields, message):
    with pytest.raises(InputError, match=message):
        Candidates(**({"indices": torch.arange(4)} | fields))


def test_a_batch_size_of_another_type():
    assert candidates_needed(8.0, 0.5) == candidates_needed(np.int8(8), 0.5) == 16
    with pytest.raises(InputError, match=r"batch_size=8\.5 is not allowed"):
        candidates_needed(8.5, 0.5)
