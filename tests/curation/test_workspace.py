"""Unfinished work: of one process at a time, known again after a kill, never somebody else's."""

from __future__ import annotations

import threading

import numpy as np
import pyarrow.parquet as pq
import pytest

import saln
from saln.curation.checked_files import CheckedFiles
from saln.curation.partition import PartitionJob
from saln.curation.workspace import Workspace
from saln.errors import DataError, InputError

ROWS = 120


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    labels = np.arange(ROWS) % 3
    given = labels.copy()
    given[:6] = (given[:6] + 1) % 3
    features = np.random.default_rng(0).random((ROWS, 5)) + 2 * np.eye(5)[labels]
    return saln.write_store(tmp_path_factory.mktemp("s") / "store", features, given)


def choose(store, out, selector="coherence", **more):
    options = {"candidates": 40, "filter_ratio": 0.5, "partition_rows": 40, **more}
    return saln.select(store, selector=selector, out=out, **options)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def stopped(store, out, monkeypatch, method, **more):
    def stops(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Workspace, method, stops)
        with pytest.raises(KeyboardInterrupt):
            choose(store, out, **more)


def test_of_two_that_start_together_the_second_is_refused(store, tmp_path, monkeypatch):
    """The second is refused at once, and the first is none the worse."""
    out = tmp_path / "kept.parquet"
    inside, go_on = threading.Event(), threading.Event()
    original, results = PartitionJob.choose, []

    def waits(self, number):
        inside.set()
        assert go_on.wait(60)
        return original(self, number)

    monkeypatch.setattr(PartitionJob, "choose", waits)
    first = threading.Thread(target=lambda: results.append(choose(store, out)))
    first.start()
    assert inside.wait(60)
    before = names(tmp_path / "kept.parquet.parts")
    for seed in (0, 1):
        with pytest.raises(InputError, match=r"another saln select is writing out=.*; wait for"):
            choose(store, out, seed=seed)
    assert names(tmp_path / "kept.parquet.parts") == before
    go_on.set()
    first.join()
    whole = choose(store, tmp_path / "whole.parquet")
    assert results[0].kept == whole.kept == 60
    assert out.read_bytes() == whole.path.read_bytes()
    assert names(tmp_path) == [
        "kept.labels.json", "kept.parquet", "whole.labels.json", "whole.parquet",
    ]  # fmt: skip


@pytest.mark.parametrize("method", ["publish", "clear"])
def test_a_run_stopped_at_the_end_is_finished_by_the_same_command(
    store, tmp_path, monkeypatch, method
):
    """The list of labels is there when the output is, and what is missing is mended."""
    out = tmp_path / "kept.parquet"
    stopped(store, out, monkeypatch, method)
    assert out.exists() == (tmp_path / "kept.labels.json").exists() == (method == "clear")
    found = choose(store, out)
    whole = choose(store, tmp_path / "whole.parquet")
    assert found.computed == 0
    assert out.read_bytes() == whole.path.read_bytes()
    assert found.labels.read_bytes() == whole.labels.read_bytes()
    assert (found.kept, found.doubted, found.noise_rate, found.listed) == (
        whole.kept, whole.doubted, whole.noise_rate, whole.listed,
    )  # fmt: skip
    assert len(found.listed) == found.doubted == 6
    assert not (tmp_path / "kept.parquet.parts").exists()
    with pytest.raises(InputError, match="exists; give a new name"):
        choose(store, out)


def test_a_run_stopped_between_its_two_files_is_finished_by_the_same_command(
    store, tmp_path, monkeypatch
):
    from saln.curation import workspace

    out, move = tmp_path / "kept.parquet", workspace.move

    def once(path, place):
        if place == out:
            raise KeyboardInterrupt
        move(path, place)

    with monkeypatch.context() as patch:
        patch.setattr(workspace, "move", once)
        with pytest.raises(KeyboardInterrupt):
            choose(store, out)
    assert names(tmp_path) == ["kept.labels.json", "kept.parquet.parts"]
    found = choose(store, out)
    whole = choose(store, tmp_path / "whole.parquet")
    assert out.read_bytes() == whole.path.read_bytes()
    assert found.labels.read_bytes() == whole.labels.read_bytes()


def test_parts_that_were_chosen_by_lost_beliefs_are_chosen_again(store, tmp_path, monkeypatch):
    out = tmp_path / "kept.parquet"
    stopped(store, out, monkeypatch, "publish")
    for path in (tmp_path / "kept.parquet.parts").glob("beliefs-*"):
        path.unlink()
    assert choose(store, out).computed == ROWS


def test_files_of_somebody_else_stay(store, tmp_path):
    out, parts = tmp_path / "kept.parquet", tmp_path / "kept.parquet.parts"
    listing = tmp_path / "kept.labels.json"
    listing.write_text("mine")
    with pytest.raises(InputError, match=r"kept.labels.json exists, and is written beside"):
        choose(store, out)
    assert listing.read_text() == "mine"
    assert choose(store, out, "saln").kept == 60  # which writes none
    out.unlink()
    listing.unlink()
    parts.mkdir()
    (parts / "holiday.txt").write_text("mine")
    with pytest.raises(InputError, match=r"holds other files \('holiday.txt'\), and unfinished"):
        choose(store, out)
    assert names(parts) == ["holiday.txt"]
    (parts / "holiday.txt").unlink()
    parts.rmdir()
    parts.write_text("a file")
    with pytest.raises(InputError, match=r"kept.parquet.parts holds other files"):
        choose(store, out)
    parts.unlink()
    parts.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=r"kept.parquet.parts holds other files"):
        choose(store, out)
    parts.unlink()
    # A link that leads nowhere is there, too.
    out.symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match="exists; give a new name"):
        choose(store, out)


def test_unfinished_work_of_a_version_before_is_made_anew(store, tmp_path):
    out, parts = tmp_path / "kept.parquet", tmp_path / "kept.parquet.parts"
    whole = choose(store, tmp_path / "whole.parquet")
    parts.mkdir()
    (parts / "manifest.json").write_text('{"format_version": 1, "seed": 0}')
    (parts / "part-000000.parquet").write_bytes(whole.path.read_bytes())
    (parts / ".part-000001.parquet.0123456789abcdef").write_bytes(b"half")
    found = choose(store, out)
    assert found.computed == ROWS
    assert out.read_bytes() == whole.path.read_bytes()
    assert not parts.exists()


def test_a_part_that_is_damaged_before_all_are_joined_is_made_anew(store, tmp_path, monkeypatch):
    out = tmp_path / "kept.parquet"
    read = CheckedFiles.read

    def flipped(self, path):
        if path.name.startswith("part-000001"):
            data = bytearray(path.read_bytes())
            data[-20] ^= 1
            path.write_bytes(data)
        return read(self, path)

    with monkeypatch.context() as patch:
        patch.setattr(CheckedFiles, "read", flipped)
        with pytest.raises(DataError, match=r"part-000001-.* was damaged; run the same command"):
            choose(store, out)
    assert not out.exists()
    found = choose(store, out)
    assert found.computed == 40
    assert out.read_bytes() == choose(store, tmp_path / "whole.parquet").path.read_bytes()


def test_a_folder_that_cannot_be_made_is_refused(store, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cannot be: .*file is a file; give a path in a folder"):
        choose(store, tmp_path / "file" / "kept.parquet")
    assert choose(store, tmp_path / "new" / "folder" / "kept.parquet").kept == 60
    assert len(pq.read_table(tmp_path / "new" / "folder" / "kept.parquet")) == 60
