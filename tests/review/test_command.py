"""``saln labels`` as a person meets it: a folder of images, its wrong labels, what is written."""

from __future__ import annotations

import csv
import json
import shutil
import signal

import numpy as np
import pytest
from helpers.color_photos import COLORS, listed, picture, save_colors
from PIL import Image

from saln.cli import labels_command
from saln.cli.process import Stopped
from saln.review import feature_cache

SMALL = ("--backbone", "pixels", "--feature-size", "8")


@pytest.fixture
def photos(tmp_path):
    return save_colors(tmp_path / "photos")


def wrong(rows):
    """The ids of the suspects, the worst first."""
    return [row["id"] for row in rows if row["probability"] and float(row["probability"]) < 0.5]


def moved(photos):
    """The ids of the pictures that lie in another color's folder."""
    return {
        path.relative_to(photos).as_posix()
        for path in photos.rglob("*.png")
        if not path.name.startswith(path.parent.name)
    }


def test_a_folder_goes_in_and_its_wrong_labels_come_out(run, photos, tmp_path):
    status, out, err = run("labels", "photos", *SMALL)
    assert status == 0, err
    rows = listed(tmp_path / "labels-photos")
    assert len(rows) == 90
    assert set(wrong(rows)) == moved(photos)
    assert rows[0]["id"] == wrong(rows)[0]  # the worst come first
    for row in rows:
        given, name = row["id"].split("/")
        assert (row["given"], row["believed"]) == (given, name.partition("-")[0])
        assert row["split"] == row["decision"] == row["problem"] == ""
    assert "6 of 90 labels look wrong" in out
    facts = json.loads((tmp_path / "labels-photos" / "review.json").read_text())
    assert (facts["examples"], facts["suspects"], facts["features_computed"]) == (90, 6, 90)
    assert facts["dataset"] == f"folder:{photos}"


def test_a_known_share_of_wrong_labels_decides_how_many_are_listed(run, photos, tmp_path):
    status, out, err = run("labels", "photos", *SMALL, "--noise-rate", "0.2")
    assert status == 0, err
    listed_wrong = wrong(listed(tmp_path / "labels-photos"))
    assert len(listed_wrong) == 18
    assert set(listed_wrong[:6]) == moved(photos)  # the order is that of the estimate
    assert "18 of 90 labels look wrong; given: 20.0% of all" in out
    page = (tmp_path / "labels-photos" / "labels.html").read_text()
    assert "18 of 90 labels look wrong; about 20.0% are said to be." in page
    for flags, said in (
        (("--noise-rate", "1.5"), "--noise-rate 1.5 is not allowed; give a share in [0, 1)"),
        (("--noise-rate", "0.2", "--task", "regression"), "give classes with --noise-rate"),
    ):
        status, _, err = run("labels", "photos", *SMALL, *flags)
        assert status == 2
        assert said in err


def test_other_tools_get_files_of_their_own(run, photos, tmp_path):
    status, out, err = run("labels", "photos", *SMALL, "--export", "cleanlab,label-studio")
    assert status == 0, err
    folder = tmp_path / "labels-photos"
    columns = json.loads((folder / "cleanlab.json").read_text())
    doubted = {id for id, bad in zip(columns["id"], columns["is_label_issue"], strict=True) if bad}
    assert doubted == moved(photos)
    assert len(json.loads((folder / "label-studio.json").read_text())) == 90
    assert (folder / "label-studio.xml").exists()
    assert "labels-photos/cleanlab.json" in out
    status, _, err = run("labels", "photos", "--export", "excel")
    assert status == 2
    assert "--export excel" in err
    assert "cleanlab" in err


def test_a_moved_file_and_a_changed_label_compute_nothing(run, photos, tmp_path):
    assert run("labels", "photos", *SMALL)[0] == 0
    (photos / "red" / "red-9.png").rename(photos / "blue" / "other.png")
    status, out, _ = run("labels", "photos", *SMALL, "--json")
    assert status == 0
    facts = json.loads(out)
    assert facts["features_computed"] == 0
    assert "blue/other.png" in wrong(listed(tmp_path / "labels-photos"))
    random = np.random.default_rng(1)
    picture(COLORS["red"], random).save(photos / "red" / "new.png")
    assert json.loads(run("labels", "photos", *SMALL, "--json")[1])["features_computed"] == 1


def test_what_cannot_be_read_is_listed_and_the_rest_judged(run, photos, tmp_path):
    (photos / "red" / "broken.png").write_bytes(b"no picture")
    (photos / "red" / "empty.png").touch()
    for _ in range(2):  # the second time from the cache
        status, out, err = run("labels", "photos", *SMALL)
        assert status == 0, err
        rows = {row["id"]: row for row in listed(tmp_path / "labels-photos")}
        assert len(rows) == 92
        for name in ("red/broken.png", "red/empty.png"):
            assert rows[name]["problem"].startswith("unreadable: ")
            assert rows[name]["probability"] == rows[name]["believed"] == ""
        assert set(wrong(rows.values())) == moved(photos) - {"red/broken.png", "red/empty.png"}
        assert "broken.png" in out
    status, _, err = run("labels", "photos", *SMALL, "--strict")
    assert status == 1
    assert err.count("\n") == 1
    assert "broken.png" in err
    # A repaired file is read again.
    shutil.copy(photos / "red" / "red-9.png", photos / "red" / "broken.png")
    run("labels", "photos", *SMALL)
    rows = {row["id"]: row for row in listed(tmp_path / "labels-photos")}
    assert rows["red/broken.png"]["problem"] == ""
    assert rows["red/broken.png"]["believed"] == "red"


def test_every_split_is_judged_and_hidden_folders_are_not(run, photos, tmp_path):
    data = tmp_path / "data"
    for split in ("train", "val", "test"):
        shutil.copytree(photos, data / split)
    shutil.copytree(photos / "red", data / ".hidden" / "red")
    shutil.copytree(photos / "red", data / "train" / ".thumbnails")
    # A class that one split alone has, with a single picture.
    (data / "test" / "gray").mkdir()
    Image.new("RGB", (12, 12), (128, 128, 128)).save(data / "test" / "gray" / "one.png")
    status, _, err = run("labels", f"folder:{data}", *SMALL, "--out", "found")
    assert status == 0, err
    rows = listed(tmp_path / "found")
    assert len(rows) == 271
    assert {row["split"] for row in rows} == {"train", "validation", "test"}
    assert {row["id"].split("/")[0] for row in rows} == {"train", "val", "test"}
    assert {row["given"] for row in rows} == {*COLORS, "gray"}
    facts = json.loads((tmp_path / "found" / "review.json").read_text())
    assert facts["features_computed"] == 91  # copies are looked at once


def test_splits_without_one_to_train_on(run, photos, tmp_path):
    for split in ("val", "test"):
        shutil.copytree(photos, tmp_path / "data" / split)
    assert run("labels", "data", *SMALL)[0] == 0
    rows = listed(tmp_path / "labels-data")
    assert [row["split"] for row in rows].count("validation") == 90


def test_a_registered_data_set_has_ids_by_split_and_row(run, tmp_path):
    status, _, err = run("labels", "digits", *SMALL)
    assert status == 0, err
    rows = listed(tmp_path / "labels-digits")
    assert len(rows) == 1797
    assert {row["id"] for row in rows} == {f"train/{row}" for row in range(1797)}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "DATASET"),
        (("nowhere",), "neither a folder nor a data set"),
        (("photos", "--feature-size", "0"), "--feature-size 0"),
        (("photos", "--backbone", "no-such"), "--backbone no-such"),
        (("photos", "--backbone-weights", "w.pt"), "--backbone NAME"),
        (("photos", "--out", "photos/red/red-9.png"), "is a file"),
    ],
)
def test_wrong_arguments_end_with_one_line(run, photos, arguments, said):
    status, out, err = run("labels", *arguments)
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    assert said in err


def test_weights_are_asked_for_before_any_image(run, photos):
    for path in photos.rglob("*.png"):
        path.write_bytes(b"")
    status, _, err = run("labels", "photos", "--backbone", "resnet18", "--backbone-weights", "w.pt")
    assert status == 2
    assert "weights file w.pt does not exist" in err


@pytest.mark.parametrize("stop", [KeyboardInterrupt, Stopped(signal.SIGTERM)])
def test_a_stopped_command_says_how_it_goes_on(run, photos, tmp_path, monkeypatch, stop):
    def stopped(*arguments, **options):
        raise stop

    with monkeypatch.context() as patch:
        patch.setattr(feature_cache, "extract_features", stopped)
        status, _, err = run("labels", "photos", *SMALL)
    assert status == (130 if stop is KeyboardInterrupt else 143)
    assert "the same command goes on" in err
    assert not (tmp_path / "labels-photos").exists()
    assert run("labels", "photos", *SMALL)[0] == 0


def test_help_names_the_repair(run):
    status, out, _ = run("labels", "--help")
    assert status == 0
    assert "saln labels apply" in " ".join(out.split())
    assert "DATASET" in out


def decide(folder, rows):
    """Writes what was decided, as `saln labels apply` leaves it there."""
    header = ("id", "split", "given", "decision", "label", "key", "review")
    with (folder / "decisions.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, header, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(row | {"review": str(folder)} for row in rows)


def test_what_was_decided_is_no_suspect_again(run, photos, tmp_path):
    out = tmp_path / "labels-photos"
    run("labels", "photos", *SMALL)
    before = listed(out)
    doubted = {row["id"]: row for row in before if row["id"] in wrong(before)}
    kept = doubted.pop(min(doubted))
    moved_away = doubted.pop(min(doubted))
    decide(
        out,
        [
            kept | {"decision": "keep", "label": kept["given"]},
            moved_away | {"decision": "believe", "label": moved_away["believed"]},
        ],
    )
    target = photos / moved_away["believed"] / "moved.png"
    (photos / moved_away["id"]).rename(target)
    assert "4 of 90 labels look wrong, 2 were decided before" in run("labels", "photos", *SMALL)[1]
    rows = {row["id"]: row for row in listed(out)}
    assert rows[kept["id"]]["decision"] == "keep"
    assert rows[f"{moved_away['believed']}/moved.png"]["decision"] == "believe"
    # In a third class it is a new question.
    third = next(iter(set(COLORS) - {moved_away["given"], moved_away["believed"]}))
    target.rename(photos / third / "moved.png")
    run("labels", "photos", *SMALL)
    rows = {row["id"]: row for row in listed(out)}
    assert f"{third}/moved.png" in wrong(rows.values())
    assert rows[f"{third}/moved.png"]["decision"] == ""


def test_tiny_and_blank_pictures_are_named(run, tmp_path):
    random = np.random.default_rng(0)
    for number in range(60):
        name = ("dark", "light")[number % 2]
        folder = tmp_path / "photos" / name
        folder.mkdir(parents=True, exist_ok=True)
        pixels = random.normal(60 if name == "dark" else 190, 40, (50, 50, 3))
        image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
        image.save(folder / f"{number}.png")
    Image.new("RGB", (50, 50), (10, 10, 10)).save(tmp_path / "photos" / "dark" / "blank.png")
    image.crop((0, 0, 6, 5)).save(tmp_path / "photos" / "light" / "tiny.png")
    assert run("labels", "photos", *SMALL)[0] == 0
    named = {row["id"]: row["problem"] for row in listed(tmp_path / "labels-photos")}
    assert {id: problem for id, problem in named.items() if problem} == {
        "dark/blank.png": "blank",
        "light/tiny.png": "tiny: 6 x 5 pixels",
    }


def test_of_one_class_all_but_the_labels_is_said(run, photos, tmp_path):
    shutil.copytree(photos / "red", tmp_path / "solo" / "red")
    (tmp_path / "solo" / "red" / "broken.png").write_bytes(b"no picture")
    shutil.copy(photos / "red" / "red-9.png", tmp_path / "solo" / "red" / "copy.png")
    status, out, err = run("labels", "solo", *SMALL)
    assert status == 0, err
    lines = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert lines["judged"] == "32 labels of 1 class"
    assert lines["wrong"].startswith("0 of 31 labels look wrong; there is one class alone, so no")
    assert lines["problems"].startswith("1 image cannot be read; the first: red/broken.png")
    rows = {row["id"]: row for row in listed(tmp_path / "labels-solo")}
    assert rows["red/copy.png"]["group"] == rows["red/red-9.png"]["group"] != ""
    assert wrong(rows.values()) == []


def test_much_that_is_kept_is_said(run, photos, tmp_path, monkeypatch):
    assert "cache" not in run("labels", "photos", *SMALL)[1].split()
    monkeypatch.setattr(labels_command, "_MUCH", 1)
    (line,) = (line for line in run("labels", "photos", *SMALL)[1].splitlines() if "GiB" in line)
    folder = tmp_path / "cache" / "saln" / "review"
    assert line == f"cache    0.0 GiB of features in {folder}; it may be deleted any time"


def test_names_that_break_lines_are_printed_on_one(run, photos, tmp_path):
    (photos / "red" / "a\nb\x1b[31m.png").write_bytes(b"no picture")
    status, out, _ = run("labels", "photos", *SMALL)
    assert status == 0
    (line,) = (line for line in out.splitlines() if line.startswith("problems"))
    assert "red/a\\nb\\x1b[31m.png" in line
    assert "red/a\nb\x1b[31m.png" in {row["id"] for row in listed(tmp_path / "labels-photos")}


def test_the_default_folder_is_not_inside_of_what_is_reviewed(run, photos, tmp_path, monkeypatch):
    monkeypatch.chdir(photos)
    assert run("labels", ".", *SMALL)[0] == 0
    assert (tmp_path / "labels-photos" / "labels.csv").exists()
    assert sorted(path.name for path in photos.iterdir()) == sorted(COLORS)
