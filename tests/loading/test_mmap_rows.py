"""Rows of a file that is too large for memory are those of the array."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from saln.loading import mmap_rows as module
from saln.loading.mmap_rows import MmapRows


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_RESIDENT", 1000)
    random = np.random.Generator(np.random.PCG64(0))
    np.save(tmp_path / "rows.npy", random.normal(size=(60, 11)).astype(np.float16))
    return tmp_path / "rows.npy"


def open_files(path):
    """How often this process holds the file open."""
    held = 0
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the listing's own
            held += link.readlink() == path
    return held


@pytest.mark.parametrize("indices", [[5], [59, 0, 7, 7, 58], []])
def test_a_large_mapped_file_gives_the_rows_of_the_array(path, indices):
    mapped, whole = np.load(path, mmap_mode="r"), np.load(path)
    rows = MmapRows(mapped)
    assert rows._file is not None  # it is read, not mapped
    found = rows[torch.tensor(indices, dtype=torch.int64)]
    assert found.dtype == torch.float16
    np.testing.assert_array_equal(found.numpy(), whole[indices])
    assert len(rows) == 60


def test_parts_of_a_file_and_small_files_are_taken_as_they_are(path, monkeypatch):
    mapped, whole = np.load(path, mmap_mode="r"), np.load(path)
    part = MmapRows(mapped[10:50])
    assert part._file is None
    np.testing.assert_array_equal(part[torch.tensor([3, 0])].numpy(), whole[[13, 10]])
    monkeypatch.setattr(module, "_RESIDENT", 10_000)
    assert MmapRows(mapped)._file is None


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")
def test_the_file_is_closed_with_the_rows(path):
    mapped = np.load(path, mmap_mode="r")
    before = open_files(path)
    rows = MmapRows(mapped)
    assert open_files(path) == before + 1
    del rows
    assert open_files(path) == before


def test_a_file_that_was_cut_short_is_noticed(path):
    rows = MmapRows(np.load(path, mmap_mode="r"))
    os.truncate(path, path.stat().st_size - 30)
    with pytest.raises(OSError, match="was cut short"):
        rows[torch.tensor([59])]
