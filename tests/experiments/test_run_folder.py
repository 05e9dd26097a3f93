"""Which folder a run gets, and that nobody else gets it too."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import time

import pytest
from helpers.stopped_runs import Quiet, again, small_run, stopped

from saln.errors import DataError, InputError
from saln.experiments.run import compare
from saln.experiments.run_folder import LOCK, claimed, held

FORK = multiprocessing.get_context("fork")  # the locks are a process's: threads share them


def claim(config, start, tried, found):
    """One of several processes that ask for a folder at the same moment."""
    start.wait()
    try:
        with claimed(config) as path:
            found.put(str(path))
            tried.wait()
    except InputError as error:
        found.put(f"refused: {error}")
        tried.wait()


def files_of(path):
    return [entry for entry in path.rglob("*") if entry.is_file()]


def claims(config, count):
    start, tried, found = FORK.Barrier(count), FORK.Barrier(count), FORK.Queue()
    children = [
        FORK.Process(target=claim, args=(config, start, tried, found)) for _ in range(count)
    ]
    for child in children:
        child.start()
    results = [found.get(timeout=60) for _ in children]
    for child in children:
        child.join()
    return results


def test_of_several_runs_that_start_at_once_one_gets_the_folder(tmp_path):
    config = small_run(tmp_path)
    results = claims(config, 4)
    refused = [result for result in results if result.startswith("refused: ")]
    assert len(refused) == 3, results
    assert {str(config.out)} == set(results) - set(refused)
    (line,) = set(refused)
    assert line == (
        f"refused: out={config.out}: another process is at work on a run there; wait for its "
        "end, or give another folder"
    )
    assert files_of(config.out) == []  # none of them wrote anything


def test_runs_without_a_folder_of_their_own_get_one_each(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    results = claims(dataclasses.replace(small_run(tmp_path), out=None), 3)
    assert len(set(results)) == 3
    assert all(result.startswith("runs/digits-") for result in results)
    assert files_of(tmp_path / "runs") == []


def take_turns(path, start, found):
    """Claims and leaves again and again; says whether it was ever not alone."""
    start.wait()
    mine, until = 0, time.monotonic() + 20
    while 0 <= mine < 20 and time.monotonic() < until:
        try:
            with held(path):
                os.close(os.open(path / "inside", os.O_CREAT | os.O_EXCL))
                mine += 1
                (path / "inside").unlink()
        except InputError:
            continue
        except FileExistsError:
            mine = -1
    found.put(mine)


def test_a_lock_that_is_removed_at_its_end_still_keeps_others_out(tmp_path):
    start, found = FORK.Barrier(4), FORK.Queue()
    args = (tmp_path / "run", start, found)
    children = [FORK.Process(target=take_turns, args=args) for _ in range(4)]
    for child in children:
        child.start()
    counts = [found.get(timeout=60) for _ in children]
    for child in children:
        child.join()
    assert min(counts) >= 0, counts
    assert max(counts) == 20
    assert files_of(tmp_path / "run") == []


def test_a_lock_that_a_kill_left_keeps_nobody_out(tmp_path):
    config = small_run(tmp_path, seeds=(0,), methods=("uniform",), epochs=1)
    config.out.mkdir()
    (config.out / LOCK).touch()
    compare(config, Quiet())
    assert not (config.out / LOCK).exists()


def test_folders_made_for_nothing_go_again_and_others_stay(tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    for out in (mine / "a" / "b", mine):
        with pytest.raises(InputError, match="needs 700 candidates"):
            compare(small_run(tmp_path, out=out, batch_size=140), Quiet())
        assert list(mine.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a\0b", "out=.* is not allowed; give a path"),
        ("a" * 300, "out=.* is not allowed; give a path .*name too long"),
        ("file", "out=.*file is a file; give a folder"),
        ("nowhere", "out=.*nowhere cannot be written .*; give another folder"),
        ("file/run", "out=.* cannot be: .*file is a file; give a path in a folder"),
    ],
)
def test_names_that_can_be_no_folder(tmp_path, name, message):
    (tmp_path / "file").touch()
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    with pytest.raises(InputError, match=message) as caught:
        compare(small_run(tmp_path, out=tmp_path / name), Quiet())
    assert len(str(caught.value).splitlines()) == 1


def test_settings_that_are_gone_are_missed(tmp_path):
    config = small_run(tmp_path)
    stopped(config, 1)
    (config.out / "config.json").unlink()
    with pytest.raises(DataError, match=r"config\.json is missing; put the file back"):
        compare(again(config), Quiet())
    with pytest.raises(InputError, match="holds other files; give a new or an empty folder"):
        compare(config, Quiet())
