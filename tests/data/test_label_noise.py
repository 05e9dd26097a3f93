from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saln.data.label_noise import flip_labels
from saln.errors import InputError


@given(
    n=st.integers(1, 200),
    classes=st.integers(2, 12),
    per_cent=st.integers(0, 99),
    seed=st.integers(0, 1_000),
)
def test_exactly_the_share_is_wrong_and_in_range(n, classes, per_cent, seed):
    labels = np.arange(n) % classes
    noisy = flip_labels(labels, per_cent / 100, classes, seed)
    assert (noisy != labels).sum() == round(per_cent / 100 * n)
    assert noisy.min() >= 0
    assert noisy.max() < classes
    assert np.array_equal(noisy, flip_labels(labels, per_cent / 100, classes, seed))
    assert np.array_equal(labels, np.arange(n) % classes)  # the input is left alone


def test_other_seed_other_labels():
    labels = np.zeros(500, dtype=np.int64)
    assert not np.array_equal(flip_labels(labels, 0.4, 10, 0), flip_labels(labels, 0.4, 10, 1))


def test_every_other_class_is_about_equally_likely():
    noisy = flip_labels(np.full(10_000, 3), 0.9, 10, 0)
    counts = np.bincount(noisy, minlength=10)
    assert counts[3] == 1_000
    others = np.delete(counts, 3)
    assert others.min() > 900
    assert others.max() < 1_100


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_share_outside_is_refused(share):
    with pytest.raises(InputError, match=r"label noise=.* is not allowed"):
        flip_labels(np.zeros(3, dtype=np.int64), share, 2, 0)


def test_one_class_cannot_be_wrong():
    with pytest.raises(InputError, match="at least 2 classes"):
        flip_labels(np.zeros(10, dtype=np.int64), 0.5, 1, 0)
