"""Runs whose folder was damaged: the same rows, or the damaged file named with its cure."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch
from helpers.stopped_runs import Quiet, again, rows_of, small_run, stop_after, stopped, summary_of

from saln.errors import DataError, InputError
from saln.experiments.config import Config
from saln.experiments.run import compare


@pytest.fixture
def config(tmp_path) -> Config:
    return small_run(tmp_path)


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, Path]:
    """The same run, stopped in its second arm, and finished."""
    folder = tmp_path_factory.mktemp("runs")
    config = small_run(folder)
    stopped(dataclasses.replace(config, out=folder / "stopped"), 4)
    compare(dataclasses.replace(config, out=folder / "whole"), Quiet())
    return {name: folder / name for name in ("stopped", "whole")}


@pytest.fixture
def begun(runs, config) -> Config:
    """A copy of the one that was stopped."""
    shutil.copytree(runs["stopped"], config.out)
    return config


def test_a_damaged_state_is_noticed_and_its_arm_begins_anew(begun, runs):
    """One changed byte of it would give other rows."""
    config = begun
    state = config.out / "resume" / "jest-seed0.pt"
    content = bytearray(state.read_bytes())
    content[len(content) // 2] ^= 1
    state.write_bytes(content)
    watching = Quiet()
    compare(again(config), watching)
    assert watching.notes[0].endswith("is not what was written: jest, seed 0, begins anew")
    assert watching.notes[0].startswith(str(state))
    assert watching.epochs[0] == ("jest", 0, 1)
    assert rows_of(config.out) == rows_of(runs["whole"])


def test_a_damaged_reference_is_trained_again(begun, runs):
    config = begun
    reference = config.out / "resume" / "reference-0.pt"
    reference.write_bytes(reference.read_bytes()[:-40])
    watching = Quiet()
    compare(again(config), watching)
    assert any("the reference model of seed 0 is trained anew" in note for note in watching.notes)
    assert rows_of(config.out) == rows_of(runs["whole"])


def test_rows_are_made_anew_of_what_was_kept(begun, runs):
    config = begun
    rows = config.out / "epochs.jsonl"
    rows.write_text(rows.read_text().replace("0.", "1.", 1))
    compare(again(config), Quiet())
    assert rows_of(config.out) == rows_of(runs["whole"])
    for name in ("epochs.jsonl", "summary.json"):
        before = (config.out / name).read_bytes()
        for content in (None, b"", before[:100], before.replace(b"1", b"2", 1)):
            (config.out / name).unlink()
            if content is not None:
                (config.out / name).write_bytes(content)
            assert compare(again(config), Quiet()).nothing_to_do
            assert (config.out / name).read_bytes() == before


def test_a_deleted_progress_lets_no_rows_be_written(begun):
    config = begun
    before = (config.out / "epochs.jsonl").read_bytes()
    (config.out / "progress.json").unlink()
    with pytest.raises(DataError, match=r"progress\.json is missing, .* put the file back, or"):
        compare(again(config), Quiet())
    assert (config.out / "epochs.jsonl").read_bytes() == before


def test_other_settings_on_the_disk_are_noticed(begun):
    config = begun
    before = {path: path.read_bytes() for path in config.out.rglob("*") if path.is_file()}
    source = config.out / "config.json"
    text = source.read_text()
    for other in (
        text.replace('"batch_size": 6', '"batch_size": 7'),
        json.dumps({key: value for key, value in json.loads(text).items() if key != "checksum"}),
        "{}",
        "[]",
        "",
    ):
        assert other != text
        source.write_text(other)
        with pytest.raises(
            DataError, match=r"config\.json .*; put the file back, or begin"
        ) as error:
            compare(again(config), Quiet())
        assert len(str(error.value).splitlines()) == 1
        source.write_text(text)
    assert {path: path.read_bytes() for path in config.out.rglob("*") if path.is_file()} == before


def test_a_run_of_the_version_before_goes_on(begun, runs):
    """It had no checksums, and no rows in its progress."""
    config, whole = begun, runs["whole"]
    make_old(config.out)
    stopped_again = stop_after(1)
    with pytest.raises(KeyboardInterrupt):
        compare(again(config), stopped_again)
    assert stopped_again.epochs == [("jest", 0, 2)]
    compare(again(config), Quiet())
    assert rows_of(config.out) == rows_of(whole)
    assert summary_of(config.out) == summary_of(whole)
    make_old(config.out)
    assert compare(again(config), Quiet()).nothing_to_do


def make_old(folder):
    """A run folder as format version 2 had it."""
    for name in ("config.json", "environment.json", "progress.json"):
        values = json.loads((folder / name).read_text())
        del values["checksum"]
        if name == "progress.json":
            values = {key: values[key] for key in ("facts", "costs", "failed")}
            values["format_version"] = 2
        (folder / name).write_text(json.dumps(values))
    for state in (folder / "resume").glob("*.pt"):
        torch.save(torch.load(state), state)


def test_broken_files_of_the_version_before_are_named_with_the_cure(begun):
    config = begun
    make_old(config.out)
    rows = config.out / "epochs.jsonl"
    lines = rows.read_text().splitlines(keepends=True)
    rows.write_text("".join(lines[1:]))
    with pytest.raises(DataError, match="lacks rows of uniform, seed 0, which is finished"):
        compare(again(config), Quiet())
    rows.write_text("{\n" + "".join(lines))
    with pytest.raises(DataError, match=r"epochs\.jsonl line 1 is no JSON"):
        compare(again(config), Quiet())
    rows.write_text("".join(lines))
    progress = config.out / "progress.json"
    for content in ('{"format_version": 2}', '{"format_version": 2, "facts": [], "costs": 1}'):
        progress.write_text(content)
        with pytest.raises(DataError, match=r"progress\.json holds no progress of a run .*; put"):
            compare(again(config), Quiet())
    progress.write_text('{"format_version": 1}')
    with pytest.raises(InputError, match=r"progress\.json has format version 1, this SALN goes"):
        compare(again(config), Quiet())


def test_a_folder_deleted_or_moved_under_a_run_is_noticed_at_the_next_epoch(config, tmp_path):
    class Deletes(Quiet):
        def epoch(self, row, epochs):
            super().epoch(row, epochs)
            if len(self.epochs) == 2:
                self.act()

    for act in (
        lambda: shutil.rmtree(config.out),
        lambda: config.out.rename(tmp_path / "moved"),
        lambda: (config.out / "epochs.jsonl").unlink(),
    ):
        watching = Deletes()
        watching.act = act
        with pytest.raises(DataError, match=r"epochs\.jsonl was deleted, moved or replaced while"):
            compare(config, watching)
        assert len(watching.epochs) == 2
        there = config.out.exists()
        assert there == (config.out / "config.json").exists()
        if (tmp_path / "moved").exists():
            (tmp_path / "moved").rename(config.out)  # the cure
            compare(again(config), Quiet())
            shutil.rmtree(config.out)
    assert config.out.exists()
    compare(again(config), Quiet())
    assert len(rows_of(config.out)) == 2 * 2 * 3
