from __future__ import annotations

import errno
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas
import pytest
import torch
from helpers.feature_examples import ask_for_the_table
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import dense_coherence

from saln.errors import DataError, InputError, MissingExtraError
from saln.features import neighbors as neighbors
from saln.features import unit_rows
from saln.features.from_arrays import write_store
from saln.features.neighbors import nearest_neighbors, neighbor_table


def draw(n, d, seed=0, dtype=np.float16):
    return np.random.Generator(np.random.PCG64(seed)).random((n, d)).astype(dtype)


def assert_is_the_definitions(features, k, **options):
    table = nearest_neighbors(features, k, **options)
    indices, similarities = dense_coherence.neighbors(features, k)
    assert table.indices.dtype == np.int32
    assert table.similarities.dtype == np.float32
    assert np.array_equal(table.indices, indices.reshape(len(features), -1))
    np.testing.assert_allclose(
        table.similarities, similarities.reshape(len(features), -1), atol=1e-6
    )


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 60), d=st.integers(1, 5), k=st.integers(1, 8), seed=st.integers(0, 10_000))
def test_table_is_that_of_the_definition_ties_and_all(n, d, k, seed):
    random = np.random.Generator(np.random.PCG64(seed))
    assert_is_the_definitions(random.integers(0, 3, (n, d)).astype(np.float16), k)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_every_floating_dtype(dtype):
    assert_is_the_definitions(draw(80, 20, dtype=dtype), 6)


def test_block_sizes_and_memory_change_nothing(monkeypatch):
    features = draw(150, 12)
    whole = nearest_neighbors(features, 9)
    for module in (neighbors, unit_rows):
        monkeypatch.setattr(module, "QUERIES", 7)
        monkeypatch.setattr(module, "KEYS", 11)
    monkeypatch.setattr(unit_rows, "RESIDENT_BYTES", 0)
    parts = nearest_neighbors(features, 9)
    assert np.array_equal(whole.indices, parts.indices)
    assert np.array_equal(whole.similarities, parts.similarities)


def test_rows_that_float32_cannot_order_are_searched_again():
    """Far more equal rows than spare proposals: only the second search sees the lowest."""
    features = np.repeat(draw(3, 8, dtype=np.float32), 60, axis=0)
    assert_is_the_definitions(features, 5)
    close = np.repeat(draw(2, 8, dtype=np.float64), 50, axis=0)
    close += 1e-5 * draw(100, 8, seed=1, dtype=np.float64)
    assert_is_the_definitions(close, 5)


def test_faiss_gives_the_same_table():
    assert_is_the_definitions(draw(120, 16), 7, engine="faiss")
    assert_is_the_definitions(np.repeat(draw(3, 8), 30, axis=0), 5, engine="faiss")


def test_faiss_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(MissingExtraError, match=r"saln\[faiss\]"):
        nearest_neighbors(draw(10, 3), 2, engine="faiss")


def test_bad_input_is_refused():
    with pytest.raises(InputError, match="k=0"):
        nearest_neighbors(draw(10, 3), 0)
    with pytest.raises(InputError, match=r"expected floating \(n, d\)"):
        nearest_neighbors(np.arange(6).reshape(3, 2), 1)
    with pytest.raises(InputError, match="unknown engine 'fast'"):
        nearest_neighbors(draw(10, 3), 1, engine="fast")
    broken = draw(10, 3)
    broken[6, 1] = np.nan
    with pytest.raises(InputError, match="example 6 are NaN"):
        nearest_neighbors(broken, 2)


@pytest.fixture
def store(tmp_path):
    return write_store(tmp_path / "store", draw(40, 6), np.zeros(40, dtype=np.int64))


def test_a_table_is_kept_and_taken_again(store, monkeypatch):
    first = neighbor_table(store, 4)
    manifest = json.loads((store.path / "neighbours-4" / "manifest.json").read_text())
    assert manifest["neighbours"] == 4
    assert manifest["rows"] == 40
    monkeypatch.setattr(neighbors, "nearest_neighbors", never)
    again = neighbor_table(store, 4)
    assert np.array_equal(first.indices, again.indices)
    assert np.array_equal(first.similarities, again.similarities)
    assert again.seconds == pytest.approx(first.seconds, abs=1e-3)


def test_a_part_of_the_rows_has_a_table_of_its_own(store):
    rows = np.arange(0, 40, 3)
    table = neighbor_table(store, 4, rows=rows)
    alone = nearest_neighbors(store.features[rows], 4)
    assert np.array_equal(table.indices, alone.indices)
    assert len(neighbor_table(store, 4)) == 40
    assert np.array_equal(neighbor_table(store, 4, rows=rows).indices, alone.indices)


def spoil_manifest(folder):
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text.replace('"features": "', '"features": "x'))


def flip_a_bit(folder):
    """Another neighbor, as likely as the right one."""
    content = bytearray((folder / "indices.npy").read_bytes())
    content[-4] ^= 1
    (folder / "indices.npy").write_bytes(content)


@pytest.mark.parametrize(
    "spoil",
    [
        spoil_manifest,
        lambda folder: (folder / "manifest.json").write_text("{"),
        lambda folder: (folder / "manifest.json").write_text("[]"),
        lambda folder: (folder / "manifest.json").write_text('{"checksums": 3}'),
        lambda folder: (folder / "manifest.json").write_bytes(b""),
        lambda folder: (folder / "manifest.json").unlink(),
        lambda folder: (folder / "indices.npy").write_bytes(b"no array"),
        lambda folder: (folder / "indices.npy").write_bytes(b""),
        lambda folder: np.save(folder / "indices.npy", np.zeros((40, 3), dtype=np.int32)),
        lambda folder: (folder / "similarities.npy").unlink(),
        flip_a_bit,
        lambda folder: (shutil.rmtree(folder), folder.write_text("a file")),
    ],
)
def test_a_table_that_does_not_fit_is_made_again(store, spoil):
    first = nearest_neighbors(store.features, 4)
    neighbor_table(store, 4)
    spoil(store.path / "neighbours-4")
    again = neighbor_table(store, 4)
    assert np.array_equal(first.indices, again.indices)
    assert np.array_equal(np.load(store.path / "neighbours-4" / "indices.npy"), first.indices)
    assert np.array_equal(again.indices, neighbor_table(store, 4).indices)
    assert [path.name for path in store.path.glob("*neighbours*")] == ["neighbours-4"]


FILES = ["features.npy", "labels.npy", "manifest.json", "timing.json"]


@pytest.mark.parametrize(
    ("number", "cure"),
    [
        (errno.ENOSPC, "free some space, or choose another folder"),
        (errno.EDQUOT, "free some space, or choose another folder"),
        (errno.EIO, "choose another folder"),
        (None, "choose another folder"),
    ],
)
def test_only_a_full_disk_is_to_be_freed(number, cure, store, monkeypatch):
    def fails(*_, **__):
        raise OSError(number, "It cannot be") if number else OSError("It cannot be")

    monkeypatch.setattr(np, "save", fails)
    with pytest.raises(DataError, match=rf"-4 cannot be written \(It cannot be\); {cure}$"):
        neighbor_table(store, 4)
    assert sorted(path.name for path in store.path.iterdir()) == FILES


def test_a_mistake_while_writing_is_no_full_disk(store, monkeypatch):
    def fails(*_, **__):
        raise RuntimeError("a mistake")

    monkeypatch.setattr(np, "save", fails)
    with pytest.raises(RuntimeError, match=r"^a mistake$"):
        neighbor_table(store, 4)
    assert sorted(path.name for path in store.path.iterdir()) == FILES


def read_only_below(folder, number, monkeypatch):
    """Every way to write below a folder fails, as for root no folder's mode makes it."""
    mkdir, rename = os.mkdir, os.rename

    def refused(real):
        def call(name, *arguments, **options):
            if str(name).startswith(str(folder)):
                raise OSError(number, os.strerror(number), str(name))
            return real(name, *arguments, **options)

        return call

    monkeypatch.setattr(os, "mkdir", refused(mkdir))
    monkeypatch.setattr(os, "rename", refused(rename))


def never(*_, **__):
    raise AssertionError("searched again")


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
@pytest.mark.parametrize("outdated", [False, True])
def test_on_a_disk_that_is_only_read_the_table_lies_in_the_cache(
    number, outdated, store, tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    first = nearest_neighbors(store.features, 4)
    if outdated:
        neighbor_table(store, 4)
        spoil_manifest(store.path / "neighbours-4")
    read_only_below(store.path, number, monkeypatch)
    before = sorted(store.path.rglob("*"))
    assert np.array_equal(neighbor_table(store, 4).indices, first.indices)
    assert sorted(store.path.rglob("*")) == before
    monkeypatch.setattr(neighbors, "nearest_neighbors", never)
    again = neighbor_table(store, 4)
    assert np.array_equal(again.indices, first.indices)
    assert np.array_equal(again.similarities, first.similarities)
    # Another store's are others.
    with pytest.raises(AssertionError, match="searched again"):
        neighbor_table(write_store(tmp_path / "b", draw(40, 6, seed=9), np.zeros(40, int)), 4)


def no_home(path):
    raise RuntimeError("Could not determine home directory.")


@pytest.mark.parametrize("home", [True, False])
def test_without_any_place_the_table_is_kept_in_memory(home, store, tmp_path, monkeypatch, caplog):
    if home:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    else:
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        monkeypatch.setattr(Path, "expanduser", no_home)
    read_only_below(tmp_path, errno.EROFS, monkeypatch)
    table = neighbor_table(store, 4)
    assert np.array_equal(table.indices, nearest_neighbors(store.features, 4).indices)
    assert "kept in memory alone" in caplog.text
    assert "free" not in caplog.text
    assert sorted(path.name for path in store.path.iterdir()) == FILES


def test_processes_that_search_together_all_get_the_table(store, monkeypatch):
    """Another process's table comes in at each moment of this one's writing."""
    first = neighbor_table(store, 4)
    right = store.path / "neighbours-4"
    shutil.copytree(right, store.path / "other")

    def arrive():
        if not right.exists():
            shutil.copytree(store.path / "other", right)

    for moment in ("before", "while", "outdated"):
        shutil.rmtree(right)
        if moment == "outdated":
            arrive()
            spoil_manifest(right)
        original = neighbors.write_folder

        def write(path, fill, moment=moment, original=original):
            def filled(beside):
                fill(beside)
                if moment != "before":
                    arrive()

            if moment == "before":
                arrive()
            original(path, filled)

        monkeypatch.setattr(neighbors, "write_folder", write)
        table = neighbor_table(store, 4)
        monkeypatch.undo()
        assert np.array_equal(table.indices, first.indices)
        kept = sorted(path.name for path in store.path.iterdir())
        assert kept == sorted([*FILES, "neighbours-4", "other"])


def test_ranks_that_search_at_once(start, store):
    children = [start(ask_for_the_table, store.path) for _ in range(3)]
    for _, pipe in children:
        assert pipe.recv() == "ready"
    for _, pipe in children:
        pipe.send("go")
    answers = [pipe.recv() for _, pipe in children]
    for process, _ in children:
        process.wait()
    assert answers == [nearest_neighbors(store.features, 4).indices.tobytes()] * 3


@pytest.mark.parametrize("kind", [torch.from_numpy, np.ndarray.tolist, pandas.DataFrame])
def test_features_of_other_types(kind):
    features = draw(30, 4, dtype=np.float64)
    table = nearest_neighbors(kind(features), np.int8(3))
    assert np.array_equal(table.indices, nearest_neighbors(features, 3).indices)
