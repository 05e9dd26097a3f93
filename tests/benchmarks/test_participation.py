"""What the published criterion's eigenvector sits on, beside a dense definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from evidence_tables.claims import eigenvector_svg
from evidence_tables.rows import RESULTS
from participation import KEPT, look_at


@pytest.fixture(scope="module")
def features():
    """300 alike examples, and one that is like none of them."""
    random = np.random.default_rng(0)
    rows = 1 + 0.3 * random.random((300, 40))
    rows[123] = np.eye(40)[7] + 0.05
    return rows


def test_the_facts_are_those_of_the_dense_eigenvector(features):
    facts, entries = look_at(torch.from_numpy(features))
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    similarity = unit @ unit.T
    degrees = similarity.sum(axis=1)
    values, vectors = np.linalg.eigh(np.diag(degrees) - similarity)
    vector = np.abs(vectors[:, 1])
    assert facts["participation_ratio"] == pytest.approx(1 / (vector**4).sum())
    assert facts["largest_entry_squared"] == pytest.approx(vector.max() ** 2)
    assert facts["largest_is_least_alike"] is True
    assert vector.argmax() == 123
    assert facts["value_over_smallest_degree"] == pytest.approx(values[1] / (degrees.min() - 1))
    kept = set(np.argsort(-vector)[:KEPT])
    oddest = set(np.argsort(degrees)[:KEPT])
    assert facts["kept_among_least_alike"] == len(kept & oddest) / KEPT
    # One outlier and no other: it decides nearly everything.
    assert facts["kept_by_the_outlier_alone"] > 0.9
    np.testing.assert_allclose(entries["entries"], vector, rtol=1e-3, atol=1e-9)
    np.testing.assert_allclose(entries["alike"], (degrees - 1) / 299, atol=1e-5)


def test_the_picture_shows_every_entry_and_marks_the_kept():
    svg = eigenvector_svg(RESULTS)
    assert svg is not None
    assert svg.count("<circle") == 2 * 320
    assert svg.count("#c2410c") == 2 * KEPT


def test_there_is_no_picture_without_rows(tmp_path):
    assert eigenvector_svg(tmp_path) is None
