"""Nearly all neighbors in a small part of the time: how nearly is measured, not hoped for."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch

import saln
from saln.errors import MissingExtraError
from saln.features import neighbors as module
from saln.features.approximate_neighbors import RECALL, approximate_neighbors
from saln.features.neighbors import nearest_neighbors, neighbor_table
from saln.features.unit_rows import UnitRows


def clustered(n, d=48, classes=30, seed=0):
    """Classes with a spectrum that falls, and no negative numbers, as pooled features."""
    random = np.random.default_rng(seed)
    scale = np.arange(1, d + 1) ** -0.7
    means = 1.5 * random.normal(size=(classes, d)) * scale
    labels = random.integers(0, classes, n)
    rows = means[labels] + random.normal(size=(n, d)) * scale
    return np.maximum(rows + 0.2, 0).astype(np.float32), labels


def recall_of(found, exact):
    return np.mean(
        [len(np.intersect1d(mine, its)) / len(its) for mine, its in zip(found, exact, strict=True)]
    )


@pytest.mark.parametrize("n", [3000, 6000])
def test_it_holds_nearly_all_neighbors_and_knows_how_many(n):
    features, _ = clustered(n)
    exact = nearest_neighbors(features, 20, engine="exact")
    table = nearest_neighbors(features, 20, engine="approximate")
    true = recall_of(table.indices, exact.indices)
    assert true > RECALL - 0.03
    assert table.recall == pytest.approx(true, abs=0.02)
    assert exact.recall == 1.0
    # What it says of a pair is true, and the nearest comes first.
    rows = UnitRows(features)
    own = rows.exact(np.arange(n))
    for row in range(0, n, 97):
        others = table.indices[row]
        assert row not in others
        assert len(set(others.tolist())) == 20
        np.testing.assert_allclose(table.similarities[row], own[others] @ own[row], atol=2e-6)
        assert (np.diff(table.similarities[row]) <= 1e-6).all()


def test_it_is_the_same_every_time():
    features, _ = clustered(2000)
    first, second = (nearest_neighbors(features, 10, engine="approximate") for _ in range(2))
    assert np.array_equal(first.indices, second.indices)
    assert np.array_equal(first.similarities, second.similarities)
    assert first.recall == second.recall


@pytest.mark.parametrize("n", [2, 3, 25, 90])
def test_small_and_equal_rows(n):
    """Every row has its k neighbors, also where lists are short or all rows are equal."""
    random = np.random.default_rng(n)
    for features in (random.random((n, 3)), np.ones((n, 3)), np.repeat(np.eye(3), n, axis=0)[:n]):
        table = nearest_neighbors(features, 7, engine="approximate")
        k = min(7, n - 1)
        assert table.indices.shape == (n, k)
        assert np.isfinite(table.similarities).all()
        for row in range(n):
            assert row not in table.indices[row]
            assert len(set(table.indices[row].tolist())) == k


def test_rows_that_do_not_stay_in_memory(monkeypatch):
    features, _ = clustered(1500)
    resident = approximate_neighbors(UnitRows(features), 10)
    monkeypatch.setattr("saln.features.unit_rows.RESIDENT_BYTES", 0)
    rows = UnitRows(features)
    assert rows.resident is None
    assert np.array_equal(approximate_neighbors(rows, 10).indices, resident.indices)


def test_it_is_the_same_with_any_number_of_threads():
    features, _ = clustered(1500)
    rows, before = UnitRows(features), torch.get_num_threads()
    tables = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            tables.append(approximate_neighbors(rows, 10))
    finally:
        torch.set_num_threads(before)
    assert np.array_equal(tables[0].indices, tables[1].indices)


def test_it_looks_more_widely_where_neighbors_are_hard_to_find():
    easy, _ = clustered(4000)
    hard = np.random.default_rng(0).normal(size=(4000, 256))  # no row is much nearer than others
    widths = [approximate_neighbors(UnitRows(rows), 5) for rows in (easy, hard)]
    assert widths[0].width < widths[1].width
    assert widths[1].recall > RECALL - 0.03
    exact = nearest_neighbors(hard, 5, engine="exact")
    assert recall_of(widths[1].indices, exact.indices) > RECALL - 0.03


def test_equal_rows_are_as_good_as_one_another():
    """Many copies of each row: whichever is named, it is a nearest one."""
    random = np.random.default_rng(0)
    features = np.repeat(random.normal(size=(40, 16)), 50, axis=0)
    found = approximate_neighbors(UnitRows(features), 20)
    assert found.recall == 1.0
    assert (found.similarities > 1 - 1e-5).all()
    assert (found.indices // 50 == np.arange(2000)[:, None] // 50).all()


def test_without_faiss_the_error_names_the_extra(monkeypatch):
    features, _ = clustered(60)
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(MissingExtraError, match=r"an approximate search needs .*saln\[faiss\].*"):
        nearest_neighbors(features, 5, engine="approximate")
    assert nearest_neighbors(features, 5).recall == 1.0  # few rows: exact, without it
    monkeypatch.setattr(module, "EXACT_ROWS", 50)
    with pytest.raises(MissingExtraError, match="use engine 'exact'"):
        nearest_neighbors(features, 5)


def test_auto_is_approximate_for_many_rows_alone(tmp_path, monkeypatch):
    features, labels = clustered(700)
    store = saln.write_store(tmp_path / "store", features, labels)
    exact = neighbor_table(store, 5)
    assert exact.recall == 1.0
    monkeypatch.setattr(module, "EXACT_ROWS", 500)
    table = neighbor_table(store, 5)  # the kept one does not fit any more
    manifest = json.loads((store.path / "neighbours-5" / "manifest.json").read_text())
    assert manifest["search"] == "approximate"
    assert manifest["recall"] == table.recall > 0.9
    again = neighbor_table(store, 5)
    assert (again.seconds, again.recall) == (manifest["seconds"], table.recall)


def test_beliefs_about_labels_hardly_change():
    """What the table is for: whose labels look wrong."""
    features, labels = clustered(4000, classes=12)
    random = np.random.default_rng(1)
    wrong = random.random(4000) < 0.3
    given = np.where(wrong, (labels + random.integers(1, 12, 4000)) % 12, labels)
    rates = []
    for engine in ("exact", "approximate"):
        table = nearest_neighbors(features, 20, engine=engine)
        beliefs = saln.label_beliefs(
            torch.from_numpy(table.indices), torch.from_numpy(table.similarities),
            torch.from_numpy(given), 12,
        )  # fmt: skip
        doubted = beliefs.confidence.numpy() < 0.5
        rates.append((beliefs.noise_rate, (doubted & wrong).sum() / wrong.sum()))
    assert rates[1][0] == pytest.approx(rates[0][0], abs=0.02)
    assert rates[1][1] == pytest.approx(rates[0][1], abs=0.02)
