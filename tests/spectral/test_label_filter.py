"""The spectral filter of labels and its exact leave-one-out."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.refitted_label_filter import refitted_scores

from saln.errors import InputError
from saln.spectral.label_filter import LabelFilter, LabelSums, one_hot


def example(seed, n=30, d=5, classes=3, offset=2.0):
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, n)
    rows = random.normal(size=(n, d)) + offset
    rows[:, 0] += labels
    return rows, labels.astype(np.int64)


def sums_over(rows, signal):
    sums = LabelSums.of(rows.shape[1], signal.shape[1])
    sums.add(torch.from_numpy(rows), signal)
    return sums


def scores(rows, signal, penalty):
    found = LabelFilter(sums_over(rows, signal))
    tensor = torch.from_numpy(rows)
    smoothed = found.smoothed(tensor, found.weights(penalty))
    leverages = found.leverages(tensor, [penalty])[:, 0]
    return found.alone(smoothed, leverages, signal).numpy()


@pytest.mark.parametrize("penalty", [1e-3, 0.3, 50.0])
@pytest.mark.parametrize("shape", [(30, 5), (12, 40), (25, 1)])
def test_leave_one_out_is_a_fit_without_the_example(penalty, shape):
    rows, labels = example(0, *shape)
    labels[3] = -1  # unknown: no vote, but an answer
    signal = one_hot(labels, 3)
    expected = refitted_scores(rows, signal.toarray(), penalty)
    np.testing.assert_allclose(scores(rows, signal, penalty), expected, atol=1e-8)


def test_soft_labels_are_left_out_exactly_too():
    rows, _ = example(1)
    soft = np.random.default_rng(2).dirichlet(np.ones(3), size=len(rows))
    signal = scipy.sparse.csr_array(soft)
    np.testing.assert_allclose(
        scores(rows, signal, 0.1), refitted_scores(rows, soft, 0.1), atol=1e-8
    )


def test_leaving_out_a_group_is_a_fit_without_it():
    rows, labels = example(3)
    rows[4:9] = rows[4]
    labels[6] = -1
    signal = one_hot(labels, 3)
    groups = np.arange(len(rows))
    groups[4:9] = 4
    expected = refitted_scores(rows, signal.toarray(), 0.2, groups)[4:9]
    found = LabelFilter(sums_over(rows, signal))
    members = torch.from_numpy(rows[4:9])
    smoothed = found.smoothed(members, found.weights(0.2))
    got = found.without_group(members, smoothed, signal[4:9], 0.2)
    np.testing.assert_allclose(got.numpy(), expected, atol=1e-8)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), cut=st.integers(1, 29), scale=st.sampled_from([1e-3, 7.0, 1e4]))
def test_order_names_scale_and_parts_change_nothing(seed, cut, scale):
    rows, labels = example(seed)
    signal = one_hot(labels, 3)
    whole = LabelFilter(sums_over(rows, signal))
    expected = scores(rows, signal, 1e-3 * whole.scale)
    order = np.random.default_rng(seed).permutation(len(rows))
    got = scores(rows[order], one_hot(labels[order], 3), 1e-3 * whole.scale)
    np.testing.assert_allclose(got, expected[order], atol=1e-9)
    names = np.array([2, 0, 1])
    got = scores(rows, one_hot(names[labels], 3), 1e-3 * whole.scale)
    np.testing.assert_allclose(got[:, names], expected, atol=1e-9)
    scaled = LabelFilter(sums_over(scale * rows, signal))
    got = scores(scale * rows, signal, 1e-3 * scaled.scale)
    np.testing.assert_allclose(got, expected, atol=1e-8)
    classes = int(labels[:cut].max()) + 1  # of a part that has not seen all classes
    merged = sums_over(rows[:cut], one_hot(labels[:cut], classes)).merge(
        sums_over(rows[cut:], one_hot(labels[cut:], 3))
    )
    for name in ("total", "gram", "products", "weights"):
        torch.testing.assert_close(
            getattr(merged, name), getattr(sums_over(rows, signal), name), rtol=1e-12, atol=1e-9
        )


def test_the_only_example_and_features_without_variation_are_answered_by_the_shares():
    rows = np.ones((4, 2))
    labels = np.array([0, 0, 0, 1])
    found = scores(rows, one_hot(labels, 2), 1.0)
    np.testing.assert_allclose(found[3], [1.0, 0.0], atol=1e-9)
    np.testing.assert_allclose(found[0], [2 / 3, 1 / 3], atol=1e-9)
    alone = scores(rows[:1], one_hot(labels[:1], 2), 1.0)
    assert np.isfinite(alone).all()


def test_sums_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="no example has a label"):
        LabelFilter(LabelSums.of(3, 2))
    with pytest.raises(InputError, match="cannot be merged"):
        LabelSums.of(3, 2).merge(LabelSums.of(4, 2))
    with pytest.raises(InputError, match="do not fit"):
        LabelSums.of(3, 2).add(torch.zeros(2, 4), one_hot(np.zeros(2, dtype=np.int64), 2))
