"""A store that several processes write and read, and what is said when one cannot be written."""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import io
import os

import numpy as np
import pytest
from helpers.feature_examples import (
    FEW_ROWS,
    Pictures,
    content,
    extract,
    extract_as_rank,
    open_until_whole,
    write_given,
)

from saln.errors import DataError
from saln.features import store as reading
from saln.features import verification
from saln.features.from_arrays import write_store
from saln.features.locks import ByteLocks
from saln.features.manifest import read_manifest
from saln.features.store import FeatureStore
from saln.features.store_writer import StoreWriter, finished_store


def together(children):
    """Lets children that said that they are ready go, and gives what they answer."""
    for _, pipe in children:
        assert pipe.recv() == "ready"
    for _, pipe in children:
        pipe.send("go")
    answers = [pipe.recv() for _, pipe in children]
    for process, _ in children:
        assert process.wait() == 0
    return answers


def test_two_processes_open_while_a_third_writes(start, tmp_path):
    rows = np.random.default_rng(0).normal(size=(4000, 3)).astype(np.float16)
    readers = [start(open_until_whole, tmp_path / "store") for _ in range(2)]
    for _, pipe in readers:
        assert pipe.recv() == "ready"
    write_store(tmp_path / "store", rows, np.arange(4000) % 3, shard_rows=200)
    for process, pipe in readers:
        found, met = pipe.recv()
        process.wait()
        assert found == rows.tobytes()
        # Never half of it, and nothing that sounds like damage.
        assert all("holds no feature store" in one or "is not finished" in one for one in met), met


def test_two_processes_write_the_same_arrays(start, tmp_path):
    rows = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float16)
    for number in range(5):
        path = tmp_path / f"{number}"
        children = [start(write_given, path, rows, np.arange(40) % 3) for _ in range(2)]
        assert together(children) == [rows.tobytes()] * 2
        assert sorted(content(path)) == ["features.npy", "labels.npy", "manifest.json"]


def test_two_processes_mend_one_store(start, tmp_path):
    path = extract(tmp_path).path
    whole = content(path)
    for name in ("features.npy", "labels.npy"):
        data = bytearray(whole[name])
        data[-3] ^= 8
        data[140] ^= 8
        (path / name).write_bytes(data)
    children = [start(extract_as_rank, tmp_path, 0, 1, None, False) for _ in range(2)]
    answers = together(children)
    assert content(path) == whole
    assert {found for found, _ in answers} == {str(path)}


def test_a_store_that_another_process_has_just_begun_to_mend_is_waited_for(tmp_path, monkeypatch):
    path = extract(tmp_path).path
    finished = read_manifest(path)
    begun = dataclasses.replace(finished, checksums=(None, *finished.checksums[1:]))
    monkeypatch.setattr(reading, "read_manifest", lambda path: begun)  # whoever reads it second
    with pytest.raises(DataError, match="is not finished"):
        FeatureStore.open(path)
    assert finished_store(path, finished.identity) is None


def test_who_finds_a_damaged_store_leaves_the_locks_to_who_mends_it(tmp_path):
    path = extract(tmp_path).path
    data = bytearray((path / "labels.npy").read_bytes())
    data[-3] ^= 8
    (path / "labels.npy").write_bytes(data)
    mending = ByteLocks(path / ".lock")
    with mending.hold(7):
        assert finished_store(path, read_manifest(path).identity) is None
        assert mending.is_current()
    mending.close()


def test_of_two_lock_files_one_counts(tmp_path):
    """A process that finishes a store removes the lock file that another has opened."""
    path = tmp_path / ".lock"
    early = ByteLocks(path)
    path.unlink()
    late = ByteLocks(path)
    with early.hold(7):
        opened, named = os.fstat(early._descriptor), path.stat()
        assert os.path.samestat(opened, named)
        assert os.path.samestat(os.fstat(late._descriptor), named)
    early.close()
    late.close()


def test_a_disk_without_locks(tmp_path, monkeypatch):
    def no_locks(*arguments):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", no_locks)
    with pytest.raises(DataError, match=r"disk gives no locks .*No locks available.* another disk"):
        extract(tmp_path)


@pytest.mark.parametrize(
    ("number", "cure"),
    [
        (errno.ENOSPC, "Free some space, or give another folder with cache_dir"),
        (errno.EDQUOT, "Free some space, or give another folder with cache_dir"),
        (errno.EROFS, "Give another folder with cache_dir"),
        (errno.EACCES, "Give another folder with cache_dir"),
        (errno.EIO, "Run again; if it stays so, look after the disk, or give another folder"),
        (errno.ENOENT, "Somebody removed it while it was written; run again"),
    ],
)
def test_only_a_full_disk_is_to_be_freed(number, cure, tmp_path, monkeypatch):
    def fails(*arguments):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("saln.features.store_writer._write_at", fails)
    with pytest.raises(DataError, match=rf"{os.strerror(number)}.*\. {cure}"):
        extract(tmp_path)


def test_a_mistake_while_writing_is_no_full_disk(tmp_path, monkeypatch):
    def fails(*arguments):
        raise RuntimeError("a mistake")

    monkeypatch.setattr("saln.features.store_writer._write_at", fails)
    with pytest.raises(RuntimeError, match=r"^a mistake$"):
        extract(tmp_path)


def test_seconds_that_cannot_be_read_stop_no_writing(tmp_path):
    manifest = read_manifest(extract(tmp_path / "a", Pictures(FEW_ROWS)).path)
    store = extract(tmp_path / "b", Pictures(FEW_ROWS))
    data = bytearray((store.path / "features.npy").read_bytes())
    data[-1] ^= 1
    (store.path / "features.npy").write_bytes(data)
    (store.path / "timing.json").write_text("{")
    assert extract(tmp_path / "b", Pictures(FEW_ROWS)).manifest == manifest.to_json()


def test_a_store_on_a_disk_that_is_only_read(tmp_path, monkeypatch):
    """Every way to write there fails, as for root no folder's mode makes it."""
    path = extract(tmp_path).path
    whole = content(path)
    rows = np.eye(4)
    given = write_store(tmp_path / "given", rows, np.arange(4))
    opened = os.open

    def read_only(name, flags, *arguments, **options):
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise OSError(errno.EROFS, "Read-only file system", str(name))
        return opened(name, flags, *arguments, **options)

    def refused(name, *arguments, **options):
        raise OSError(errno.EROFS, "Read-only file system", str(name))

    to_read = io.open

    def read_text(name, mode="r", *arguments, **options):
        return (to_read if set(mode) <= set("rbt") else refused)(name, mode, *arguments, **options)

    monkeypatch.setattr(verification, "_TICK_NS", -1)
    monkeypatch.setattr(os, "open", read_only)
    monkeypatch.setattr(io, "open", read_text)
    for name in ("unlink", "replace", "mkdir", "rmdir"):
        monkeypatch.setattr(os, name, refused)
    store = FeatureStore.open(path)
    store.verify()
    assert extract(tmp_path).path == path
    assert write_store(tmp_path / "given", rows, np.arange(4)).manifest == given.manifest
    monkeypatch.undo()
    assert content(path) == whole


def test_a_store_that_is_removed_while_it_is_written(tmp_path):
    import shutil

    path = extract(tmp_path / "a", Pictures(FEW_ROWS)).path
    found = read_manifest(path)
    begun = type(found)(found.dataset, found.identity, found.shard_rows, (None,) * 3)
    with StoreWriter(tmp_path / "b", begun) as writer:
        shutil.rmtree(tmp_path / "b")
        with pytest.raises(DataError, match="was removed while it was written; run again"):
            writer.left()
