"""A store that is killed, shared, or meets a full disk."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import threading
import time

import numpy as np
import pytest
from helpers.feature_examples import (
    BATCH,
    BEFORE,
    FEW_ROWS,
    ROWS,
    SHARD_ROWS,
    Pictures,
    content,
    extract,
    extract_as_rank,
    read_when_told,
    stop_at_step,
    tiny_backbone,
)
from torch import nn

from saln.errors import DataError
from saln.features import store_writer as writing
from saln.features.manifest import read_manifest
from saln.features.store import FeatureStore


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The files of a store that nothing interrupted."""
    return content(extract(tmp_path_factory.mktemp("whole")).path)


def only(cache):
    (folder,) = cache.iterdir()
    return folder


def read_together(pipe, count):
    """Lets a child read so many examples; returns when it has begun the last of them."""
    for _ in range(count):
        pipe.send_bytes(b".")
        pipe.recv_bytes()


@pytest.mark.parametrize("moment", range(20))
def test_killed_at_a_random_moment_the_store_is_the_same(start, moment, whole, tmp_path):
    """A SIGKILL from outside. The child waits to be told to read its next example, so that it
    is always in the middle; meanwhile it may be computing, or writing in the background."""
    random = np.random.Generator(np.random.PCG64(moment))
    reads = int(random.integers(1, ROWS))
    if moment % 2:  # just after a shard's last example, when that shard is written
        reads = max(SHARD_ROWS, reads - reads % SHARD_ROWS)
    process, pipe = start(read_when_told, tmp_path)
    read_together(pipe, BEFORE + reads)
    time.sleep(float(random.uniform(0, 0.004)))
    process.kill()
    assert process.wait() == -signal.SIGKILL
    folder = only(tmp_path)
    manifest = read_manifest(folder)
    assert manifest.left
    with pytest.raises(DataError, match=rf"not finished: {manifest.rows_done} of {ROWS} rows"):
        FeatureStore.open(folder)
    seen = []
    store = extract(tmp_path, Pictures(read=seen.append))
    assert content(store.path) == whole
    # No finished shard is computed again, and every other one is.
    assert seen[BEFORE:] == [row for shard in manifest.left for row in manifest.shard(shard)]
    store.verify()


@pytest.mark.parametrize("torn", [False, True])
def test_killed_at_every_step_the_store_is_the_same(start, torn, tmp_path):
    """A SIGKILL before each call that changes the disk, or in the middle of each write."""
    whole = content(extract(tmp_path / "whole", Pictures(FEW_ROWS)).path)
    process, pipe = start(stop_at_step, tmp_path / "count", 10**6, torn)
    steps = pipe.recv()
    process.wait()
    assert content(only(tmp_path / "count")) == whole
    assert steps == 6 if torn else 30 < steps < 60
    for step in range(1, steps + 1):
        process, _ = start(stop_at_step, tmp_path / f"{step}", step, torn)
        assert process.wait() == -signal.SIGKILL, step
        store = extract(tmp_path / f"{step}", Pictures(FEW_ROWS))
        assert content(store.path) == whole, step


def test_a_second_run_waits_and_takes_over_from_a_killed_one(start, whole, tmp_path, caplog):
    process, pipe = start(read_when_told, tmp_path)
    read_together(pipe, BEFORE + 2 * SHARD_ROWS)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        folders = [*tmp_path.iterdir()] if tmp_path.exists() else []
        if folders and (found := read_manifest(folders[0])) and found.rows_done == 2 * SHARD_ROWS:
            break
        time.sleep(0.005)
    seen, stores = [], []
    second = threading.Thread(
        target=lambda: stores.append(extract(tmp_path, Pictures(read=seen.append)))
    )
    second.start()
    while "waiting for another process" not in caplog.text and time.monotonic() < deadline:
        time.sleep(0.005)
    assert len(seen) == BEFORE  # it computes nothing while the first one lives
    process.kill()
    process.wait()
    second.join()
    assert seen[BEFORE:] == list(range(2 * SHARD_ROWS, ROWS))
    assert content(stores[0].path) == whole


def test_a_run_that_fails_leaves_another_ones_work_alone(start, whole, tmp_path):
    """The other one computes the first half, and has finished no shard yet."""
    process, pipe = start(read_when_told, tmp_path, 0, 2)
    read_together(pipe, BEFORE + 1)
    read = []

    def broken(index):
        read.append(index)
        if len(read) > BEFORE:
            raise OSError("a bad sector")

    with pytest.raises(DataError, match=r"example 24 of Pictures cannot be read .*a bad sector"):
        extract(tmp_path, Pictures(read=broken))
    read_together(pipe, ROWS - 1)  # its own half, then what the failed run gave up
    assert process.wait() == 0
    assert content(only(tmp_path)) == whole


def test_two_threads_take_turns(whole, tmp_path):
    seen, stores = [], []
    threads = [
        threading.Thread(
            target=lambda: stores.append(extract(tmp_path, Pictures(read=seen.append)))
        )
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [content(store.path) for store in stores] == [whole, whole]
    assert len(seen) == 2 * BEFORE + ROWS


@pytest.mark.parametrize("gloo", [True, False])
def test_ranks_make_one_store_of_the_same_bytes(start, gloo, whole, tmp_path):
    children = [
        start(extract_as_rank, tmp_path / "cache", rank, 2, tmp_path / "meeting", gloo)
        for rank in range(2)
    ]
    for _, pipe in children:
        assert pipe.recv() == "ready"
    for _, pipe in children:
        pipe.send("go")
    answers = [pipe.recv() for _, pipe in children]
    for process, _ in children:
        assert process.wait() == 0
    assert content(only(tmp_path / "cache")) == whole
    assert {path for path, _ in answers} == {str(only(tmp_path / "cache"))}
    read = [seen[BEFORE:] for _, seen in answers]
    assert sorted(read[0] + read[1]) == list(range(ROWS))  # each example once, by one of them


@pytest.mark.parametrize("given", [True, False])
def test_each_rank_computes_its_slice(given, tmp_path, monkeypatch):
    """One after the other: the first does the second's slice too, as nobody has begun it."""
    ranks = {"rank": 1, "world_size": 2}
    if not given:
        for name, value in ranks.items():  # as torchrun sets them
            monkeypatch.setenv(name.upper(), str(value))
        ranks = {}
    seen = []
    extract(tmp_path / "a", Pictures(read=seen.append), **ranks)
    assert seen[BEFORE:] == [*range(3 * SHARD_ROWS, ROWS), *range(3 * SHARD_ROWS)]
    again = []
    extract(tmp_path / "a", Pictures(read=again.append), rank=0, world_size=2)
    assert len(again) == BEFORE


def test_a_full_disk_at_the_beginning_leaves_nothing(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(DataError, match=r"No space left on device.*Free some space.*cache_dir"):
        extract(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_in_the_middle_keeps_finished_shards(whole, tmp_path, monkeypatch):
    write, calls = writing._write_at, []

    def full(stream, data, position):
        calls.append(position)
        if len(calls) > 5:  # two shards of two arrays, and one array of the third
            raise OSError(errno.ENOSPC, "No space left on device")
        write(stream, data, position)

    monkeypatch.setattr(writing, "_write_at", full)
    with pytest.raises(DataError, match=r"No space left on device.*rows that are done stay"):
        extract(tmp_path)
    monkeypatch.undo()
    with pytest.raises(DataError, match=r"not finished: 16 of 46 rows are done.*goes on where"):
        FeatureStore.open(only(tmp_path))
    seen = []
    assert content(extract(tmp_path, Pictures(read=seen.append)).path) == whole
    assert seen[BEFORE:] == list(range(16, ROWS))


def test_a_real_limit_on_file_size(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (400, before[1]))
    try:
        with pytest.raises(DataError, match=r"cannot be written \(.*File too large"):
            extract(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_to(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(DataError, match="cannot be written"):
        extract(tmp_path / "file")
    path = extract(tmp_path / "cache").path
    only_read = os.open

    def read_only(name, flags, *arguments, **options):
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise OSError(errno.EROFS, "Read-only file system")
        return only_read(name, flags, *arguments, **options)

    monkeypatch.setattr(os, "open", read_only)
    assert extract(tmp_path / "cache").path == path  # a finished store is only read
    with pytest.raises(DataError, match="Read-only file system"):
        extract(tmp_path / "other")


class _Break(nn.Module):
    """Spoils the output for one example, known by its batch's number."""

    def __init__(self, value):
        super().__init__()
        self.value = value
        self.batches = 0

    def forward(self, rows):
        if len(rows) == BATCH:
            self.batches += 1
        if self.batches == 6:
            rows = rows.clone()
            rows[1, 2] = self.value
        return rows


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (float("nan"), "example 21 by .* hold NaN or infinity; check that example"),
        (float("-inf"), "example 21 by .* hold NaN or infinity; check that example"),
        (7e4, r"example 21 by .* reach 7e\+04, more than float16 holds \(65504\); scale"),
    ],
)
def test_rows_that_float16_cannot_hold_are_named(value, message, tmp_path):
    backbone = nn.Sequential(*tiny_backbone(), _Break(value))
    with pytest.raises(DataError, match=message):
        extract(tmp_path, backbone=backbone)
    assert read_manifest(only(tmp_path)).rows_done == 16


def test_a_data_set_that_is_shorter_than_it_says(tmp_path):
    class Short(Pictures):
        def __getitem__(self, index):
            if index == 28:  # none of those that the fingerprint opens
                raise IndexError("list index out of range")
            return super().__getitem__(index)

    for workers in (0, 2):
        with pytest.raises(DataError, match=r"example 28 of Short cannot be read \(IndexError"):
            extract(tmp_path / "cache", Short(), workers=workers)
    assert read_manifest(only(tmp_path / "cache")).rows_done == 24


def test_seconds_are_those_of_all_runs(tmp_path, monkeypatch):
    store = extract(tmp_path)
    timing = json.loads((store.path / "timing.json").read_text())["seconds"]
    assert list(timing) == [str(shard) for shard in range(6)]
    assert store.seconds == pytest.approx(sum(timing.values()), abs=1e-3)
    assert store.seconds > 0
    assert extract(tmp_path).seconds == store.seconds
