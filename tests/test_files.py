"""Files that are whole or not there, and what is said when they cannot be."""

from __future__ import annotations

import contextlib
import errno
import resource
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch

from saln import files
from saln.errors import DataError, InputError

LIMIT = 50_000


@contextlib.contextmanager
def full_disk():
    """Files of this process end at ``LIMIT`` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def names(folder):
    return sorted(path.name for path in folder.rglob("*"))


BIG = np.random.default_rng(0).random(LIMIT)
WRITERS = {
    "text": lambda path: files.write_text(path, "x" * 2 * LIMIT),
    "bytes": lambda path: files.write_bytes(path, b"x" * 2 * LIMIT),
    "json": lambda path: files.write_json(path, ["x" * 2 * LIMIT]),
    "npz": lambda path: files.write_npz(path, {"rows": BIG}),
    "torch": lambda path: files.write_with(path, lambda at: torch.save(torch.tensor(BIG), at)),
    "npy": lambda path: files.write_with(path, lambda at: BIG.tofile(at)),
    "folder": lambda path: files.write_folder(path, lambda at: BIG.tofile(at / "rows")),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_leaves_what_was_there(tmp_path, name):
    path = tmp_path / "file"
    if name != "folder":
        path.write_text("before")
    before = names(tmp_path)
    with full_disk(), pytest.raises(DataError, match=r"file cannot be written .*free some space"):
        WRITERS[name](path)
    assert names(tmp_path) == before
    if name != "folder":
        assert path.read_text() == "before"
        WRITERS[name](path)
        assert path.stat().st_size > LIMIT


@pytest.mark.parametrize(
    ("error", "out_of_space"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), True),
        (OSError(errno.EFBIG, "File too large"), True),
        (OSError(errno.EACCES, "Permission denied"), False),
        (OSError(errno.EROFS, "Read-only file system"), False),
        (RuntimeError("Parent directory /no does not exist."), False),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("embedded null byte"), False),
        (MemoryError(), False),
    ],
)
def test_only_a_full_disk_is_out_of_space(error, out_of_space):
    assert files.is_out_of_space(error) == out_of_space
    outer = RuntimeError("while saving")
    outer.__cause__ = error
    assert files.is_out_of_space(outer) == out_of_space
    said = str(files.unwritable(files.Path("/out/file"), error))
    assert ("free some space" in said) == out_of_space
    assert said.startswith("/out/file cannot be written (")
    assert "\n" not in said


def test_a_mistake_while_writing_is_not_called_a_full_disk(tmp_path):
    def broken(at):
        at.write_text("half")
        raise RuntimeError("Expected all tensors to be on the same device")

    with pytest.raises(RuntimeError, match="same device"):
        files.write_with(tmp_path / "file", broken)
    with pytest.raises(RuntimeError, match="same device"):
        files.write_folder(tmp_path / "folder", lambda at: broken(at / "file"))
    assert names(tmp_path) == []


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit, ValueError])
def test_what_stops_a_write_leaves_nothing(tmp_path, stop):
    def stopped(at):
        at.write_text("half")
        raise stop

    with pytest.raises(stop):
        files.write_with(tmp_path / "file", stopped)
    with pytest.raises(stop):
        files.write_folder(tmp_path / "folder", lambda at: stopped(at / "file"))
    assert names(tmp_path) == []


def test_a_failed_rename_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(files.Path, "replace", fail)
    with pytest.raises(DataError, match=r"\(Input/output error\); choose another folder"):
        files.write_text(tmp_path / "file", "text", durable=True)
    with pytest.raises(DataError, match=r"\(Input/output error\); choose another folder"):
        files.write_folder(tmp_path / "folder", lambda at: (at / "a").touch(), durable=True)
    assert names(tmp_path) == []


def test_what_is_written_is_what_is_read(tmp_path):
    values = {"name": "Müller\ud800", "numbers": [1, 2.5, None]}
    files.write_json(tmp_path / "deep" / "a.json", values, durable=True)
    assert files.read_json(tmp_path / "deep" / "a.json", "run again") == values
    files.write_npz(tmp_path / "a.npz", {"rows": np.arange(5)})
    found = files.read_npz(tmp_path / "a.npz", "run again")
    assert {name: array.tolist() for name, array in found.items()} == {"rows": [0, 1, 2, 3, 4]}
    files.write_text(tmp_path / "a.txt", "not\udcff UTF-8, but ä")
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "not? UTF-8, but ä"

    def fill(at):
        (at / "in").mkdir()
        (at / "in" / "b").write_text("b")

    files.write_folder(tmp_path / "folder", fill, durable=True)
    assert (tmp_path / "folder" / "in" / "b").read_text() == "b"
    with pytest.raises(DataError, match="folder cannot be written"):
        files.write_folder(tmp_path / "folder", lambda at: (at / "other").touch())
    assert names(tmp_path / "folder") == ["b", "in"]
    longest = tmp_path / ("ä" * 127)  # 254 bytes
    files.write_text(longest, "text")
    assert longest.read_text() == "text"
    files.remove(tmp_path / "folder")
    files.remove(longest)
    files.remove(longest)
    assert names(tmp_path) == ["a.json", "a.npz", "a.txt", "deep"]


@pytest.mark.parametrize(
    "content", [b"", b"{", b"null", b"[]", b"1", b"\xff\xfe", b"[" * 100_000, b"{}x", None]
)
def test_damaged_json_is_named_with_its_cure(tmp_path, content):
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.json .*; delete it and run again$") as caught:
        files.read_json(path, "delete it and run again")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"no arrays", None])
def test_damaged_arrays_are_named_with_their_cure(tmp_path, content):
    path = tmp_path / "a.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.npz cannot be read \(\w+\); run again$"):
        files.read_npz(path, "run again")


def test_a_changed_byte_of_signed_json_is_noticed(tmp_path):
    path = tmp_path / "a.json"
    files.write_signed(path, {"seed": 3, "checksum": "of before"})
    assert path.read_text() == '{\n  "seed": 3,\n  "checksum": "3562adea0b788d5b"\n}\n'
    assert files.read_signed(path, "run again", must=True) == {"seed": 3}
    path.write_text(path.read_text().replace("3", "4", 1))
    with pytest.raises(DataError, match=r"a\.json is not what was written; run again$"):
        files.read_signed(path, "run again", must=False)
    files.write_json(path, {"seed": 3})
    assert files.read_signed(path, "run again", must=False) == {"seed": 3}
    with pytest.raises(DataError, match="is not what was written"):
        files.read_signed(path, "run again", must=True)
    wide = files.signed({"b": 1, "a": 2}, key="sum", bits=128)
    assert list(wide) == ["b", "a", "sum"]
    assert wide == files.signed({"a": 2, "sum": "of before", "b": 1}, key="sum", bits=128)
    assert len(wide["sum"]) == 32


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a\0b", r"out '.*a\\x00b' holds a null byte"),
        ("x" * 250, "a name of 250 bytes .* give at most 245"),
        ("ä" * 130, "a name of 260 bytes"),
        ("file/below", "file is a file; give a path in a folder"),
        ("file/deep/below", "file is a file; give a path in a folder"),
        ("deep/" * 1000 + "a", "File name too long"),
    ],
)
def test_a_path_that_cannot_be(tmp_path, name, message):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=message):
        files.check_new_path(tmp_path / name, "out", reserve=10)
    files.check_new_path(tmp_path / "new" / "name", "out")
    with pytest.raises(InputError, match="is no name of a file"):
        files.check_new_path(files.Path("/"), "out")


def test_the_second_is_refused_and_the_dead_hold_nothing(tmp_path):
    path = tmp_path / "in" / "lock"
    refused = []

    def second():
        with pytest.raises(InputError, match="busy; wait"), files.locked(path, "busy; wait"):
            raise AssertionError
        refused.append(True)

    with files.locked(path, "busy; wait"):
        second()  # of this thread, too
        other = threading.Thread(target=second)
        other.start()
        other.join()
        code = (
            "import sys, pathlib; from saln.files import locked\n"
            "with locked(pathlib.Path(sys.argv[1]), 'taken'): print('mine')"
        )
        run = [sys.executable, "-c", code, str(path)]
        found = subprocess.run(run, capture_output=True, text=True, check=False)
        assert "InputError: taken" in found.stderr
        assert found.stdout == ""
    assert refused == [True, True]
    assert names(tmp_path) == ["in"]
    code = code.replace("print('mine')", "import os; os.kill(os.getpid(), 9)")
    killed = subprocess.run([*run[:2], code, str(path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert path.exists()
    with files.locked(path, "busy"):
        pass
    path.mkdir()
    with pytest.raises(DataError, match="lock cannot be written"), files.locked(path, ""):
        raise AssertionError


def test_a_checksum_knows_every_byte(tmp_path):
    path = tmp_path / "file"
    content = bytearray(np.random.default_rng(0).bytes(3_000_000))
    path.write_bytes(content)
    found = {files.file_checksum(path)}
    for place in (0, 1_500_000, 2_999_999):
        content[place] ^= 1
        path.write_bytes(content)
        found.add(files.file_checksum(path))
    assert len(found) == 4


def test_a_file_is_moved_whole_or_not_at_all(tmp_path):
    old, place = tmp_path / "old", tmp_path / "place"
    old.write_text("new")
    place.write_text("before")
    files.move(old, place)
    assert (place.read_text(), old.exists()) == ("new", False)
    with pytest.raises(DataError, match=r"place cannot be written \(No such file.*choose another"):
        files.move(old, place)
    assert place.read_text() == "new"
