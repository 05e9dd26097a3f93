"""Decisions brought into a folder: every file where it should be, none lost, all taken back."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import unicodedata
from pathlib import Path, PurePosixPath

import pytest
from helpers.photo_folders import (
    DECIDED,
    PHOTOS,
    Case,
    contents,
    files,
    tree,
    write_review,
    write_tree,
)

from saln.cli import main
from saln.cli.apply_command import COMMAND
from saln.errors import DataError, InputError
from saln.files import locked
from saln.review.apply_folder import apply_to_folder
from saln.review.decisions import read_decisions, remembered
from saln.review.move_plan import plan_moves

APPLIED = {
    "cat/2.jpg": b"two",
    "cat/4.jpg": b"four",
    "cat/6.jpg": b"six",
    "dog/1.jpg": b"one",
    "dog/1 (2).jpg": b"one",
    "dog/sub/deep/3.jpg": b"three",
    "../.photos.saln/dropped/dog/5.jpg": b"five",
}


@pytest.fixture(autouse=True)
def flushing_costs_nothing(monkeypatch) -> None:
    """What is killed needs no flush, only what loses its power; hundreds of them take seconds."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def undo_folder(case: Case) -> Path:
    return case.root.parent / f".{case.root.name}.saln"


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


def test_a_dry_run_says_what_would_be_done_and_does_nothing(case, capsys):
    assert case() == 0
    shown = capsys.readouterr().out
    assert tree(case.root) == case.before
    assert sorted(path.name for path in case.out.iterdir()) == ["review.json"]
    for line in (
        "cat/1.jpg -> dog/1 (2).jpg",
        "cat/sub/deep/3.jpg -> dog/sub/deep/3.jpg",
        "dog/5.jpg -> ../.photos.saln/dropped/dog/5.jpg",
        f"saln labels apply {case.decisions} --yes",
    ):
        assert line in shown
    facts = case.facts(capsys)
    assert (facts["moved"], facts["dropped"], facts["kept"], facts["renamed"]) == (3, 1, 1, 1)
    assert not facts["done"]


def test_files_go_where_they_belong_and_come_back(case, capsys):
    assert case("--yes") == 0
    assert f"{undo_folder(case)} holds what an undo needs" in capsys.readouterr().out
    assert files(case.root) == APPLIED
    known = remembered(case.out)
    assert known.of("dog/1 (2).jpg", key(b"one"), "dog").is_done
    assert known.of("cat/2.jpg", key(b"two"), "cat").is_done
    facts = case.facts(capsys, "--yes")  # once more: all is as it should be
    assert (facts["moved"], facts["moved_before"], facts["skipped"]) == (0, 4, {})
    assert files(case.root) == APPLIED
    assert case.facts(capsys, "--undo") == {"restored": 4, "remarks": {}, "applies_left": 0}
    assert tree(case.root) == case.before
    assert case("--undo") == 0
    assert "nothing to undo" in capsys.readouterr().out
    assert tree(case.root) == case.before


def test_what_an_undo_needs_is_no_class_and_stands_inside_only_where_it_must(case, monkeypatch):
    case("--yes")
    assert sorted(path.name for path in case.root.iterdir()) == ["cat", "dog"]
    case("--undo")
    parent, may = case.root.parent, os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != parent and may(path, mode))
    case("--yes")
    inside = {name.replace("../.photos.saln", ".saln"): value for name, value in APPLIED.items()}
    assert files(case.root) == inside
    monkeypatch.undo()  # an earlier apply is inside: the next one joins it
    second = [("cat/6.jpg", "", "cat", "drop", "")]
    case.decisions = write_review(case.out, case.root, second, "second")
    case("--yes")
    assert files(case.root)[".saln/dropped/cat/6.jpg"] == b"six"
    case("--undo")
    case("--undo")
    assert tree(case.root) == case.before


def key(content: bytes) -> str:
    import xxhash

    return xxhash.xxh3_128_hexdigest(content)


def test_several_applies_are_undone_the_last_first(case, capsys):
    case("--yes")
    after = tree(case.root)
    second = write_review(
        case.out,
        case.root,
        [("dog/1 (2).jpg", "", "dog", "relabel", "cat"), ("cat/6.jpg", "", "cat", "drop", "")],
        "second",
    )
    assert COMMAND([str(second), "--yes"]) == 0
    assert files(case.root)["cat/1 (2).jpg"] == b"one"
    assert case.facts(capsys, "--undo")["applies_left"] == 1
    assert tree(case.root) == after
    assert case.facts(capsys, "--undo")["applies_left"] == 0
    assert tree(case.root) == case.before


def test_believed_labels_of_the_table_are_taken_where_nobody_has_decided(tmp_path, capsys):
    case = Case(tmp_path)
    lines = ["id,split,given,believed,probability,decision,label,key"]
    for name, probability, decision in (
        ("cat/1.jpg", 0.01, "keep"), ("cat/2.jpg", 0.3, ""), ("cat/4.jpg", 0.45, ""),
        ("dog/5.jpg", 0.9, ""), ("dog/6.jpg", 0.1, "drop"),
    ):  # fmt: skip
        given, believed = ("cat", "dog") if name.startswith("cat") else ("dog", "cat")
        lines.append(f"{name},,{given},{believed},{probability},{decision},,")
    table = case.out / "labels.csv"
    table.write_text("\n".join(lines))
    for flags, moved in (
        ([], []),
        (["--believed"], ["2", "4"]),
        (["--believed", "--below=0.4"], ["2"]),
    ):
        capsys.readouterr()
        # The folder of the review stands for its table.
        assert COMMAND([str(case.out if moved else table), *flags, "--json"]) == 0
        facts = json.loads(capsys.readouterr().out)
        names = [PurePosixPath(move["id"]).stem for move in facts["moves"]]
        assert (names, facts["kept"]) == ([*moved, "6"], 1)
    assert COMMAND([str(case.out), "--believed", "--yes"]) == 0
    found = files(case.root)
    assert found["dog/2.jpg"] == b"two"
    known = remembered(case.out)
    assert known.of("dog/2.jpg", "", "dog").decision == ""  # without a hash, by its id alone
    assert known.of("cat/2.jpg", "", "dog").is_done
    COMMAND([str(case.out), "--undo"])
    assert tree(case.root) == case.before
    # Taken back, what nobody has looked at is to be decided again; what somebody has, is not.
    assert known.of("cat/2.jpg", "", "cat").decision == ""
    assert known.of("dog/6.jpg", "", "dog").decision == "drop"
    for flags, words in (
        (["--below", "0.3"], "--believed"),
        (["--believed", "--below=2"], "--below 2"),
    ):
        with pytest.raises(InputError, match=words):
            COMMAND([str(table), *flags])


def test_files_that_have_changed_or_gone_are_left_alone_and_named(case, capsys):
    (case.root / "cat/1.jpg").write_bytes(b"another picture")
    (case.root / "dog/6.jpg").rename(case.root / "dog/renamed.jpg")
    before = tree(case.root)
    facts = case.facts(capsys, "--yes")
    assert facts["moved"] == 1
    assert facts["skipped"] == {
        "cat/1.jpg": "its content has changed since the review",
        "dog/6.jpg": "it no longer exists",
    }
    case("--undo")
    assert tree(case.root) == before


def test_an_id_that_the_review_does_not_know_is_refused_before_anything_is_moved(tmp_path):
    case = Case(tmp_path, decided=[*DECIDED, ("cat/9.jpg", "", "cat", "drop", "")])
    (case.out / "labels.csv").write_text("id,decision\n" + "".join(f"{n},\n" for n in PHOTOS))
    with pytest.raises(InputError, match=r"decisions\.csv, line 7: .*cat/9\.jpg; did you mean"):
        case("--yes")
    assert tree(case.root) == case.before
    for name in ("../photos/cat/1.jpg", "/etc/passwd", ".saln/x", ""):
        decisions = write_review(case.out, case.root, [(name, "", "cat", "drop", "")])
        with pytest.raises(InputError, match="line 2: "):
            COMMAND([str(decisions), "--yes"])
    assert tree(case.root) == case.before


def test_splits_keep_their_files_and_get_the_folders_they_lack(tmp_path):
    photos = {
        "train/cat/a.png": b"1", "train/dog/b.png": b"2", "val/cat/a.png": b"3",
        "val/dog/x/a.png": b"4", "test/cat/a.png": b"5", "test/dog/z.png": b"6",
        "train/train/t.png": b"7",
    }  # fmt: skip
    decided = [
        ("train/cat/a.png", "train", "cat", "believe", "dog"),
        ("val/dog/x/a.png", "validation", "dog", "believe", "cat"),
        ("test/cat/a.png", "test", "cat", "relabel", "train"),  # no such folder in test/
        ("train/train/t.png", "train", "train", "drop", ""),
    ]
    case = Case(tmp_path, photos, decided)
    case("--yes")
    assert files(case.root) == {
        "train/dog/a.png": b"1", "train/dog/b.png": b"2", "val/cat/a.png": b"3",
        "val/cat/x/a.png": b"4", "test/train/a.png": b"5", "test/dog/z.png": b"6",
        "../.photos.saln/dropped/train/train/t.png": b"7",
    }  # fmt: skip
    case("--undo")
    assert tree(case.root) == case.before


def test_a_class_is_found_however_its_name_is_coded_or_written(tmp_path):
    composed, apart = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    assert composed != apart
    photos = {f"{apart}/a.png": b"1", "Dog/b.png": b"2", "Dog/ü.png": b"3"}
    decided = [
        ("Dog/b.png", "", "Dog", "believe", composed),
        (f"{composed}/a.png", "", composed, "relabel", " dog"),
        (unicodedata.normalize("NFD", "Dog/ü.png"), "", "Dog", "relabel", apart),
    ]
    case = Case(tmp_path, photos, decided)
    text = case.decisions.read_text().replace(",0,", ",,")  # without keys
    case.decisions.write_text(text)
    case("--yes")
    assert files(case.root) == {f"{apart}/b.png": b"2", "Dog/a.png": b"1", f"{apart}/ü.png": b"3"}
    case("--undo")
    assert tree(case.root) == case.before


def test_a_new_class_is_made_where_it_is_asked_for_and_goes_with_the_undo(tmp_path):
    case = Case(tmp_path, decided=[("cat/1.jpg", "", "cat", "relabel", "big dog")])
    with pytest.raises(InputError, match=r"big dog is no class .* --new-classes"):
        case("--yes")
    case("--yes", "--new-classes")
    assert files(case.root)["big dog/1.jpg"] == b"one"
    case("--undo")
    assert tree(case.root) == case.before


@pytest.mark.parametrize("label", ["dgo", "no/thing", "..", ".saln"])
def test_a_label_that_is_no_class_is_refused(tmp_path, label):
    case = Case(tmp_path, decided=[("cat/1.jpg", "", "cat", "relabel", label)])
    flags = ["--yes"] if label == "dgo" else ["--yes", "--new-classes"]
    with pytest.raises(InputError, match=r"decisions\.csv, line 2: .* is no class of .*dog"):
        case(*flags)
    assert tree(case.root) == case.before


def test_names_that_are_no_text_and_names_that_are_as_long_as_can_be(tmp_path):
    odd, long = os.fsdecode(b"caf\xe9.png"), "ä" * 125 + ".png"
    photos = {f"cat/{odd}": b"1", f"cat/{long}": b"2", f"dog/{long}": b"3", "cat/.png": b"4"}
    photos |= {"dog/.png": b"5"}
    decided = [(name, "", "cat", "believe", "dog") for name in photos if name.startswith("cat")]
    case = Case(tmp_path, photos, decided)
    case("--yes")
    cut = "ä" * 123 + " (2).png"
    wanted = {f"dog/{odd}": b"1", f"dog/{long}": b"3", f"dog/{cut}": b"2", "dog/.png": b"5"}
    assert files(case.root) == wanted | {"dog/.png (2)": b"4"}
    case("--undo")
    assert tree(case.root) == case.before


def test_links_are_moved_themselves_and_none_is_left_without_its_file(tmp_path, capsys):
    case = Case(tmp_path)
    elsewhere = tmp_path / "elsewhere.jpg"
    elsewhere.write_bytes(b"elsewhere")
    (case.root / "cat/absolute.jpg").symlink_to(elsewhere)
    (case.root / "cat/relative.jpg").symlink_to("../../elsewhere.jpg")
    (case.root / "cat/sub/relative.jpg").symlink_to("../../../elsewhere.jpg")
    (case.root / "dog/to-4.jpg").symlink_to("../cat/4.jpg")
    (case.root / "cat/nowhere.jpg").symlink_to("gone.jpg")
    before = tree(case.root)
    names = ("absolute", "relative", "sub/relative", "4", "nowhere")
    rows = [(f"cat/{name}.jpg", "", "cat", "believe", "dog") for name in names]
    rows += [("dog/to-4.jpg", "", "dog", "drop", "")]
    decisions = write_review(case.out, case.root, rows)
    assert COMMAND([str(decisions), "--yes", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert set(facts["skipped"]) == {"cat/4.jpg", "cat/nowhere.jpg", "dog/to-4.jpg"}
    after = tree(case.root)
    assert after["dog/absolute.jpg"] == f"link to {elsewhere}"
    assert after["dog/relative.jpg"] == "link to ../../elsewhere.jpg"
    assert after["dog/sub/relative.jpg"] == "link to ../../../elsewhere.jpg"
    for name in ("absolute", "relative", "sub/relative"):
        assert (case.root / f"dog/{name}.jpg").read_bytes() == b"elsewhere"
    assert COMMAND([str(decisions), "--undo"]) == 0
    assert tree(case.root) == before


def test_a_file_that_appears_at_the_new_place_meanwhile_stays(case):
    def appear(plan: object) -> None:
        write_tree(case.root, {"dog/1 (2).jpg": b"somebody's", "cat/6.jpg": b"somebody's"})
        (case.root / "dog/5.jpg").write_bytes(b"changed")

    plan, _ = apply_to_folder(case.root, read_decisions(case.decisions), begin=appear)
    wanted = APPLIED | {
        "dog/1 (2).jpg": b"somebody's", "dog/1 (3).jpg": b"one",
        "cat/6.jpg": b"somebody's", "cat/6 (2).jpg": b"six", "dog/5.jpg": b"changed",
    }  # fmt: skip
    del wanted["../.photos.saln/dropped/dog/5.jpg"]
    assert files(case.root) == wanted
    assert set(plan.skipped) == {"dog/5.jpg"}
    case("--undo")
    changes = {"dog/1 (2).jpg": b"somebody's", "cat/6.jpg": b"somebody's", "dog/5.jpg": b"changed"}
    assert tree(case.root) == case.before | changes


def test_undo_restores_what_it_can_and_names_the_rest(case, capsys):
    case("--yes")
    (case.root / "dog/1 (2).jpg").rename(case.root / "dog/mine.jpg")
    (case.root / "cat/6.jpg").write_bytes(b"six, cut")
    (case.root / "dog/5.jpg").write_bytes(b"new five")
    (case.root / "dog/another").write_bytes(b"another file")
    (case.root / "dog/another").replace(case.root / "dog/sub/deep/3.jpg")
    shutil.rmtree(case.root / "cat/sub")
    capsys.readouterr()
    assert case("--undo", "--json") == 1
    facts = json.loads(capsys.readouterr().out)
    assert facts["restored"] == 2
    assert set(facts["remarks"]) == {"cat/1.jpg", "dog/6.jpg", "dog/5.jpg", "cat/sub/deep/3.jpg"}
    assert files(case.root) == {
        "cat/2.jpg": b"two", "cat/4.jpg": b"four", "dog/1.jpg": b"one", "dog/mine.jpg": b"one",
        "dog/6.jpg": b"six, cut", "dog/5.jpg": b"new five", "dog/5 (2).jpg": b"five",
        "dog/sub/deep/3.jpg": b"another file",
    }  # fmt: skip
    assert case.facts(capsys, "--undo")["restored"] == 0


def test_a_copy_of_the_folder_can_be_undone_too(case, tmp_path):
    case("--yes")
    shutil.copytree(case.root, tmp_path / "copy")
    shutil.rmtree(case.root)
    (tmp_path / "copy").rename(case.root)
    case("--undo")
    assert tree(case.root) == case.before


def test_a_disk_that_is_full_loses_nothing_and_the_same_command_goes_on(case, monkeypatch):
    link, calls = os.link, []

    def full(*arguments, **options):
        calls.append(arguments)
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "old", None, str(arguments[1]))
        link(*arguments, **options)

    monkeypatch.setattr(os, "link", full)
    with pytest.raises(
        DataError, match=r"dropped/dog/5\.jpg \(No space left.*free.*nothing is lost"
    ):
        case("--yes")
    assert set(contents(case.root)) >= set(PHOTOS.values())
    case("--yes")
    assert files(case.root) == APPLIED
    case("--undo")
    assert tree(case.root) == case.before


def test_ctrl_c_says_how_it_goes_on(case, monkeypatch, capsys):
    def stop(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "link", stop)
        assert main(["labels", "apply", str(case.decisions), "--yes"]) == 130
    assert "nothing is lost: the same command goes on, and --undo" in capsys.readouterr().err
    assert case() == 0
    assert "an apply of 4 files was stopped midway" in capsys.readouterr().out
    assert case("--undo") == 0
    assert tree(case.root) == case.before


def test_a_file_system_without_second_names_is_served_too(case, monkeypatch):
    def refuse(*arguments, **options):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    case("--yes")
    assert files(case.root) == APPLIED
    case("--undo")
    assert tree(case.root) == case.before


@pytest.mark.parametrize("name", ["dog", "photos"])
def test_folders_that_cannot_be_changed_are_named_before_anything_is_moved(case, monkeypatch, name):
    real = os.access

    def access(path: Path, mode: int) -> bool:
        return Path(path).name != name and real(path, mode)

    monkeypatch.setattr(os, "access", access)
    for flags in ([], ["--yes"]):
        with pytest.raises(DataError, match=f"nothing is moved: the folder .*{name} cannot be"):
            case(*flags)
    assert tree(case.root) == case.before


def test_only_one_process_changes_a_folder_at_a_time(case):
    with locked(undo_folder(case) / "lock", "never"):
        for flag in ("--yes", "--undo"):
            with pytest.raises(InputError, match="another process changes"):
                case(flag)
    undo_folder(case).rmdir()
    assert tree(case.root) == case.before


def test_what_cannot_be_applied_is_said_in_a_line(case, tmp_path):
    shutil.rmtree(case.root)
    for flag in ("--yes", "--undo"):
        with pytest.raises(DataError, match="no longer exists"):
            case(flag)
    (case.out / "review.json").write_text("{}")
    with pytest.raises(InputError, match="names no data set"):
        case()
    shutil.rmtree(case.out)
    with pytest.raises(DataError, match=r"review\.json cannot be read .* --out"):
        case()
    lonely = tmp_path / "lonely.csv"
    lonely.write_text("id,decision\na,\n")
    with pytest.raises(InputError, match="holds no decision"):
        COMMAND([str(lonely)])
    lonely.write_text("id,decision\na,drop\n")
    with pytest.raises(InputError, match=r"names no review; .* --out"):
        COMMAND([str(lonely)])


def test_a_damaged_journal_is_refused_and_a_line_that_was_cut_short_is_not_there(case):
    case("--yes")
    (journal,) = undo_folder(case).glob("*.jsonl")
    with journal.open("ab") as stream:
        stream.write(b'{"gone": 1')
    whole = journal.read_bytes()
    journal.write_bytes(whole.replace(b'"source"', b'"sauce"'))
    with pytest.raises(DataError, match="is damaged"):
        case("--undo")
    journal.write_bytes(whole)
    case("--undo")
    assert tree(case.root) == case.before


def test_the_command_loads_nothing_heavy(case):
    code = (
        "import sys; from saln.cli import main; "
        "main(['labels', 'apply', *sys.argv[1:]]); print(*sys.modules)"
    )
    command = [sys.executable, "-c", code, str(case.decisions), "--yes"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.splitlines()[-1].split())
    assert "saln.review.file_mover" in loaded
    assert not {"torch", "torchvision", "scipy", "sklearn", "PIL", "rich", "tyro"} & loaded
    assert files(case.root) == APPLIED


def test_planning_changes_nothing(case):
    plan_moves(case.root, read_decisions(case.decisions))
    assert tree(case.root) == case.before
