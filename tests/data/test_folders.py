"""Folders as people have them: what is a class, what is a split, what is neither."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from saln.data.datasets import load_dataset
from saln.data.folders import find_splits
from saln.errors import DataError, InputError

PICTURE = Image.fromarray(np.full((4, 4, 3), 77, dtype=np.uint8))


def make(root, *names):
    """Writes a picture under every name; a name that ends in / is an empty folder."""
    for name in names:
        path = Path(root) / name
        if name.endswith("/"):
            path.mkdir(parents=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        PICTURE.save(path)
    return root


def found(root):
    """What is found: the split, the class and the path below the root, one a picture."""
    splits, names = find_splits(root)
    return {
        (split, names[label], path.relative_to(root).as_posix())
        for split, part in splits.items()
        for path, label in zip(part.images.paths, part.labels.tolist(), strict=True)
    }


def many(folder, *classes, count=10):
    return [f"{folder}{name}/{number}.png" for name in classes for number in range(count)]


def test_one_sub_folder_a_class(tmp_path):
    make(tmp_path, "cat/1.png", "cat/2.JPG", "dog/deep/er/3.png", "dog/4.gif")
    assert found(tmp_path) == {
        ("train", "cat", "cat/1.png"),
        ("train", "cat", "cat/2.JPG"),
        ("train", "dog", "dog/deep/er/3.png"),
        ("train", "dog", "dog/4.gif"),
    }


def test_the_order_is_that_of_torchvision(image_folder):
    from saln._torchvision import torchvision

    make(
        image_folder, "red/deep/a.png", "red/05.5.png", "red/Z.png", "Red/1.png", "red/deep2/1.png"
    )
    theirs = torchvision.datasets.ImageFolder(str(image_folder))
    splits, names = find_splits(image_folder)
    assert names == tuple(theirs.classes)
    assert [str(path) for path in splits["train"].images.paths] == [
        path for path, _ in theirs.samples
    ]
    assert splits["train"].labels.tolist() == theirs.targets


@pytest.mark.parametrize(
    ("folders", "splits"),
    [
        (("train", "val"), {"train": "train", "test": "val"}),
        (("Train", "TEST"), {"train": "Train", "test": "TEST"}),
        (("training", "validation"), {"train": "training", "test": "validation"}),
        (
            ("train", "valid", "testing"),
            {"train": "train", "validation": "valid", "test": "testing"},
        ),
    ],
)
def test_train_and_val_are_splits_and_no_classes(tmp_path, folders, splits):
    make(tmp_path, *(name for folder in folders for name in many(f"{folder}/", "cat", "dog")))
    data = load_dataset(f"folder:{tmp_path}")
    assert data.class_names == ("cat", "dog")
    for part in ("train", "validation", "test"):
        examples = getattr(data, part)
        folder = splits.get(part, splits["train"])
        for row, label in zip(examples.rows.tolist(), examples.labels.tolist(), strict=True):
            name = examples.images.name_of(row)
            assert name.startswith(f"{folder}/{data.class_names[label]}/")
    own_validation = "validation" in splits
    assert len(data.train) + (0 if own_validation else len(data.validation)) == 20
    assert len(data.test) == 20
    assert not own_validation or len(data.validation) == 20


def test_a_train_folder_alone_is_split(tmp_path):
    make(tmp_path, *many("train/", "cat", "dog"))
    data = load_dataset(f"folder:{tmp_path}")
    assert (len(data.train), len(data.validation), len(data.test)) == (14, 2, 4)
    assert data.class_names == ("cat", "dog")


def test_limit_holds_for_every_split(tmp_path):
    make(tmp_path, *many("train/", "cat", "dog"), *many("val/", "cat", "dog"),
         *many("test/", "cat", "dog"))  # fmt: skip
    data = load_dataset(f"folder:{tmp_path}", limit=6)
    assert [len(part) for part in (data.train, data.validation, data.test)] == [6, 6, 6]
    assert [np.bincount(part.labels).tolist() for part in (data.train, data.test)] == [[3, 3]] * 2


def test_a_test_split_may_lack_a_class_but_have_no_other(tmp_path):
    make(tmp_path, *many("train/", "ant", "cat", "dog"), *many("val/", "dog"))
    data = load_dataset(f"folder:{tmp_path}")
    assert set(data.test.labels.tolist()) == {2}
    make(tmp_path, "val/owl/1.png")
    with pytest.raises(InputError, match="class 'owl' for validation, but no picture of it to tra"):
        load_dataset(f"folder:{tmp_path}")


def test_vehicles_may_be_trains(tmp_path):
    make(tmp_path, "train/1.png", "car/1.png", "bus/1.png")
    assert {name for _, name, _ in found(tmp_path)} == {"train", "car", "bus"}
    make(tmp_path, "train/old/2.png")
    assert ("train", "train", "train/old/2.png") in found(tmp_path)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["train/1.png", "val/2.png"], "train/, val/, which is called as a split and holds pict"),
        (["train/1.png", "test/2.png", "extra/cat/1.png"], "train/.*called as a split"),
        (["train/cat/1.png", "train/dog/1.png", "test/1.png"], "holds test/, which is called as a"),
        (
            ["train/cat/1.png", "train/dog/1.png", "more/1.png"],
            "train/, which is laid out as a spl",
        ),
        (["cat/1.png", "dog/1.png", "test/cat/1.png"], "holds test/.* beside cat/, dog/; move one"),
        (["val/cat/1.png", "test/cat/1.png"], "holds (test/, val/|val/, test/) and no train/"),
        (["train/cat/1.png", "training/cat/1.png"], "train/, training/: one split twice"),
        (["train/cat/1.png", "val/cat/1.png"], "one class .'cat'.; there is nothing to tell"),
        (["train/1.png"], "one class .'train'."),
        (["cat/1.png"], "one class .'cat'."),
        (["1.png", "2.png"], "holds pictures, but none in sub-folders .*put each class's images"),
        (["cat/", "dog/"], "holds no images in sub-folders"),
        ([".hidden/1.png", "__MACOSX/cat/1.png"], "holds no images in sub-folders"),
    ],
)
def test_what_can_be_meant_in_two_ways_is_refused(tmp_path, names, message):
    make(tmp_path, *names)
    with pytest.raises(InputError, match=message):
        find_splits(tmp_path)


def test_what_other_programs_leave_behind_is_no_class(tmp_path):
    make(tmp_path, "cat/1.png", "dog/1.png", ".ipynb_checkpoints/1.png", ".git/lfs/1.png",
         "__MACOSX/cat/1.png", "cat/.ipynb_checkpoints/1.png", "cat/._1.png", "dog/@eaDir/1.png",
         "$RECYCLE.BIN/1.png", "lost+found/1.png", "cat/__pycache__/1.png")  # fmt: skip
    (tmp_path / ".DS_Store").write_bytes(b"")
    (tmp_path / "cat" / "Thumbs.db").write_bytes(b"")
    wanted = {("train", "cat", "cat/1.png"), ("train", "dog", "dog/1.png")}
    assert found(tmp_path) == wanted
    inside = tmp_path / ".cache" / "photos"  # whatever the folder itself lies in
    assert found(make(inside, "cat/1.png", "dog/1.png")) == wanted
    splits = tmp_path / "splits"
    make(splits, "train/cat/1.png", "train/dog/1.png", "train/.git/1.png", ".git/x/1.png",
         "val/dog/1.png", "__MACOSX/train/cat/1.png")  # fmt: skip
    assert len(found(splits)) == 3


def test_what_is_left_out_is_said(tmp_path, caplog):
    make(tmp_path, "cat/1.png", "dog/1.png", "owl/", "cover.png", "docs/")
    (tmp_path / "cat" / "2.heic").write_bytes(b"")
    assert {name for _, name, _ in found(tmp_path)} == {"cat", "dog"}
    assert "left out: 2 sub-folders without pictures are no classes, the first docs" in caplog.text
    assert f"1 pictures outside of a class folder, the first {tmp_path}/cover.png" in caplog.text
    assert f"1 pictures of other formats, the first {tmp_path}/cat/2.heic" in caplog.text


@pytest.mark.timeout(60)
def test_circles_of_links_end(tmp_path):
    make(tmp_path, "cat/1.png", "dog/deep/1.png")
    (tmp_path / "cat" / "all").symlink_to("..")  # would make dogs of cats, too
    (tmp_path / "cat" / "self").symlink_to(".")
    (tmp_path / "dog" / "deep" / "up").symlink_to(tmp_path / "dog")
    (tmp_path / "again").symlink_to(".")
    (tmp_path / "nowhere").symlink_to("nowhere")
    wanted = {("train", "cat", "cat/1.png"), ("train", "dog", "dog/deep/1.png")}
    assert found(tmp_path) == wanted
    # Each of many folders leads to all others: there are more ways through than atoms.
    for one in range(12):
        make(tmp_path, f"cat/{one:02}/x.png")
        for other in range(12):
            (tmp_path / "cat" / f"{one:02}" / f"to{other:02}").symlink_to(f"../{other:02}")
    counts = Counter(name for _, name, _ in found(tmp_path))
    assert counts == {"cat": 13, "dog": 1}
    splits = make(tmp_path / "splits", "train/cat/1.png", "train/dog/1.png", "val/cat/1.png")
    (splits / "train" / "loop").symlink_to("../..")
    (splits / "train" / "cat" / "loop").symlink_to("../../val/cat/..")
    (splits / "val" / "cat" / "loop").symlink_to("..")
    with pytest.raises(InputError, match="same pictures"):
        found(splits)
    (splits / "train" / "cat" / "loop").unlink()
    (splits / "train" / "loop").unlink()
    assert len(found(splits)) == 3


def test_links_to_folders_and_files_are_followed(tmp_path):
    elsewhere = make(tmp_path / "elsewhere", "cats/1.png", "dogs/2.png", "dogs/3.png")
    root = tmp_path / "root"
    root.mkdir()
    (root / "cat").symlink_to(elsewhere / "cats")
    (root / "dog").mkdir()
    (root / "dog" / "linked.png").symlink_to(elsewhere / "dogs" / "2.png")
    (root / "dog" / "gone.png").symlink_to(elsewhere / "gone.png")
    wanted = {("cat", "cat/1.png"), ("dog", "dog/linked.png"), ("dog", "dog/gone.png")}
    assert {each[1:] for each in found(root)} == wanted


@pytest.mark.parametrize(("link", "target"), [("kitten", "cat"), ("dog/more", "../cat")])
def test_one_folder_in_two_classes_is_refused(tmp_path, link, target):
    make(tmp_path, "cat/1.png", "dog/1.png")
    (tmp_path / link).symlink_to(target)
    with pytest.raises(InputError, match=f"same pictures in {tmp_path}/cat and in {tmp_path}/"):
        find_splits(tmp_path)


def test_one_folder_as_two_splits_is_refused(tmp_path):
    make(tmp_path, *many("train/", "cat", "dog"))
    (tmp_path / "val").symlink_to("train")
    with pytest.raises(InputError, match=r"val/ leading back|same pictures in"):
        find_splits(tmp_path)


def test_names_of_every_kind(tmp_path):
    composed = unicodedata.normalize("NFC", "café")
    taken_apart = unicodedata.normalize("NFD", "café")
    make(tmp_path, f"train/{composed}/1.png", f"train/{taken_apart}/2.png", "train/猫 №1/1.png",
         "train/A/1.png", "train/a/1.png", "train/a\nb/1.png", f"val/{taken_apart}/1.png",
         "train/-x/-1.png")  # fmt: skip
    strange = os.fsdecode(b"\xff\xfe")
    make(tmp_path, f"train/{strange}/{strange}.png")
    splits, names = find_splits(tmp_path)
    assert names == ("-x", "A", "\\xff\\xfe", "a", "a\nb", composed, "猫 №1")
    assert np.bincount(splits["train"].labels).tolist() == [1, 1, 1, 1, 1, 2, 1]
    assert [names[label] for label in splits["validation"].labels] == [composed]
    data = load_dataset(f"folder:{tmp_path}", validation_share=0.2)
    assert len(data.fingerprint) == 32
    assert data.train.images.load(0).size == (4, 4)


def test_a_folder_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    make(tmp_path, "cat/1.png", "dog/1.png")
    real = os.scandir

    def refuse(path):  # the tests may run as root, who may read everything
        if str(path).endswith("dog"):
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match=r"folder .*/dog cannot be read \(Permission denied\)"):
        find_splits(tmp_path)


@pytest.mark.parametrize("name", ["no", "a" * 300, "x\0y", "~nobody/x", "cat/1.png"])
def test_no_folder(tmp_path, name, monkeypatch):
    monkeypatch.chdir(make(tmp_path, "cat/1.png"))
    with pytest.raises(InputError, match="is not a folder; give one that has a sub-folder a cl"):
        load_dataset(f"folder:{name}")


def test_the_size_is_that_of_the_images_whatever_the_folder_is_called(tmp_path):
    random = np.random.Generator(np.random.PCG64(0))
    for name, side in (("cifar-like", 48), ("small", 32), ("mixed", 32)):
        for number, path in enumerate(many(f"{name}/", "a", "b")):
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            shape = (side, side + (name == "mixed" and number == 19), 3)
            Image.fromarray(random.integers(0, 255, shape, dtype=np.uint8)).save(tmp_path / path)
    sizes = {
        f"{kind}:{name}": load_dataset(f"{kind}:{tmp_path / name}").default_image_size
        for name in ("cifar-like", "small", "mixed")
        for kind in ("folder", "hf")
    }
    wanted = {"cifar-like": 224, "small": 32, "mixed": 224}
    assert sizes == {
        f"{kind}:{name}": size for name, size in wanted.items() for kind in ("folder", "hf")
    }
