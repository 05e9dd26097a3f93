"""Applies and undoes of any decisions, on one disk and two, killed at every file operation."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest
from helpers.photo_folders import Case, contents, files, tree, write_tree
from helpers.stopped_applies import Killer
from hypothesis import given, settings
from hypothesis import strategies as st


@pytest.fixture(autouse=True)
def flushing_costs_nothing(monkeypatch) -> None:
    """What is killed needs no flush, only what loses its power; hundreds of them take seconds."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


NAMES = st.sampled_from(["a.png", "b.png", "a (2).png", "b", ".c.png"])
FOLDERS = st.sampled_from(["cat", "dog", "bird", "cat/dog", "dog/x/y", "bird/x"])
PATHS = st.builds("{}/{}".format, FOLDERS, NAMES)
TREES = st.dictionaries(PATHS, st.binary(max_size=2), min_size=1, max_size=10)
CHOICES = st.sampled_from(["believe", "keep", "relabel", "drop"])


def expected(photos: dict[str, bytes], decided: list[tuple[str, ...]]) -> dict[str, bytes]:
    """Where everything should be, by the words of the documentation alone."""
    taken = set(photos) | {str(p) for name in photos for p in PurePosixPath(name).parents}
    result = dict(photos)
    for name, _, own, decision, label in decided:
        if decision == "keep" or label == own:
            continue
        moved = label + name[len(own) :]
        wanted = f"../.photos.saln/dropped/{name}" if decision == "drop" else moved
        path, number = PurePosixPath(wanted), 1
        while str(path) in taken:
            number += 1
            plain = PurePosixPath(wanted)
            path = plain.with_name(f"{plain.stem} ({number}){plain.suffix}")
        taken.add(str(path))
        result[str(path)] = result.pop(name)
    return result


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_decisions_about_any_folder_are_applied_and_taken_back(data):
    photos = data.draw(TREES)
    # A name cannot be a file and a folder.
    photos = {n: c for n, c in photos.items() if not any(o.startswith(f"{n}/") for o in photos)}
    classes = sorted({name.split("/")[0] for name in photos})
    decided = []
    for name in data.draw(st.lists(st.sampled_from(sorted(photos)), unique=True, min_size=1)):
        decision, label = data.draw(CHOICES), data.draw(st.sampled_from(classes))
        label = label if decision in ("believe", "relabel") else ""
        decided.append((name, "", name.split("/")[0], decision, label))
    with tempfile.TemporaryDirectory() as folder:
        case = Case(Path(folder), photos, decided)
        case("--yes")
        assert files(case.root) == expected(photos, decided)
        assert case("--undo") == 0
        assert tree(case.root) == case.before


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """A folder on another file system, and a quick one, where there is such a place."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else tmp_path) as folder:
        yield Path(folder)


@pytest.fixture
def elsewhere(tmp_path: Path, memory: Path) -> Path:
    """A folder on another file system than the one in memory."""
    if memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system")
    return tmp_path


FEW = ("cat/1.jpg", "cat/sub/3.jpg", "dog/1.jpg", "dog/5.jpg", "dog/6.jpg")
DECIDED_FEW = (
    ("cat/1.jpg", "", "cat", "believe", "dog"),
    ("cat/sub/3.jpg", "", "cat", "believe", "dog"),
    ("cat/link.jpg", "", "cat", "believe", "dog"),
    ("dog/5.jpg", "", "dog", "drop", ""),
)


def few_files(path: Path, elsewhere: Path | None) -> Case:
    """A folder anew, one of whose class folders is a link to another file system, if given."""
    shutil.rmtree(path, ignore_errors=True)
    dog = (elsewhere or path / "photos") / "dog"
    shutil.rmtree(dog, ignore_errors=True)
    dog.mkdir(parents=True)
    if elsewhere is not None:
        (path / "photos").mkdir(parents=True)
        (path / "photos/dog").symlink_to(dog)
    write_tree(path / "photos", {name: name[-5:].encode() for name in FEW})
    (path / "photos/cat/link.jpg").symlink_to(path / "photos/dog/6.jpg")
    return Case(path, {}, DECIDED_FEW)


def test_files_move_between_file_systems_with_their_times(memory, elsewhere):
    case = few_files(memory / "case", elsewhere)
    os.utime(case.root / "cat/1.jpg", (1, 1))
    case("--yes")
    moved = case.root / "dog/1 (2).jpg"
    assert moved.stat().st_mtime == 1
    assert moved.stat().st_dev == elsewhere.stat().st_dev
    assert files(case.root) == {
        "dog/1.jpg": b"1.jpg", "dog/1 (2).jpg": b"1.jpg", "dog/sub/3.jpg": b"3.jpg",
        "dog/6.jpg": b"6.jpg", "../.photos.saln/dropped/dog/5.jpg": b"5.jpg",
    }  # fmt: skip
    assert tree(case.root)["dog/link.jpg"] == f"link to {case.root / 'dog/6.jpg'}"
    assert case("--undo") == 0
    assert tree(case.root) == case.before


@pytest.mark.parametrize("disks", [1, 2])
def test_killed_at_any_file_operation_it_goes_on_or_is_undone(memory, request, disks):
    other = request.getfixturevalue("elsewhere") if disks == 2 else None
    path = memory / "case"

    def fresh() -> Case:
        return few_files(path, other)

    def without_journals(root: Path) -> dict:
        return {name: value for name, value in tree(root).items() if not name.endswith(".jsonl")}

    fresh()("--yes")
    after = without_journals(path / "photos")

    with Killer() as killer:
        number, killed = 0, True
        while killed:
            number += 1
            for finish in ("--yes", "--undo"):
                case = fresh()
                killed = killer.is_killed(number, case.decisions, "--yes")
                assert set(contents(case.root)) >= {name[-5:].encode() for name in FEW}
                assert case(finish) == 0
                if finish == "--yes":
                    assert without_journals(case.root) == after
                    case("--undo")
                assert tree(case.root) == case.before
        assert number > 25
        number, killed = 0, True
        while killed:
            number += 1
            for finish in ("--undo", "--yes"):
                case = fresh()
                case("--yes")
                killed = killer.is_killed(number, case.decisions, "--undo")
                assert set(contents(case.root)) >= {name[-5:].encode() for name in FEW}
                assert case(finish) == 0
                if finish == "--undo":
                    assert tree(case.root) == case.before
                else:
                    assert without_journals(case.root) == after
        assert number > 20
