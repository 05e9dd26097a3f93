"""A changed data set gets another fingerprint; the same one, moved or opened again, does not."""

from __future__ import annotations

import shutil
import subprocess
import sys

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import ConcatDataset, Subset, TensorDataset

from saln._torchvision import torchvision
from saln.data.datasets import load_dataset
from saln.data.fingerprint import fingerprint
from saln.data.items import read_item
from saln.errors import DataError, InputError

ImageFolder = torchvision.datasets.ImageFolder


def test_a_folder_of_images(image_folder, tmp_path):
    before = fingerprint(ImageFolder(str(image_folder)))
    assert fingerprint(ImageFolder(str(image_folder))) == before
    moved = shutil.copytree(image_folder, tmp_path / "elsewhere" / "images")
    assert fingerprint(ImageFolder(str(moved))) == before
    (moved / "red" / "00.png").rename(moved / "red" / "zz.png")
    renamed = fingerprint(ImageFolder(str(moved)))
    (moved / "red" / "01.png").write_bytes((moved / "red" / "zz.png").read_bytes()[:-9])
    resized = fingerprint(ImageFolder(str(moved)))
    (moved / "red" / "02.png").unlink()
    shrunk = fingerprint(ImageFolder(str(moved)))
    assert len({before, renamed, resized, shrunk}) == 4


def test_no_image_of_a_folder_is_opened(image_folder, monkeypatch):
    dataset = ImageFolder(str(image_folder))
    monkeypatch.setattr(dataset, "loader", None)
    assert fingerprint(dataset) == fingerprint(ImageFolder(str(image_folder)))


def test_the_same_in_another_process(image_folder):
    code = (
        "import sys; from saln._torchvision import torchvision;"
        "from saln.data.fingerprint import fingerprint;"
        "print(fingerprint(torchvision.datasets.ImageFolder(sys.argv[1], transform=lambda x: x)))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, str(image_folder)], capture_output=True, text=True, check=True
    )
    here = ImageFolder(str(image_folder), transform=lambda x: x)
    assert found.stdout.strip() == fingerprint(here)


def test_arrays_labels_and_order():
    pixels = torch.arange(4 * 48, dtype=torch.uint8).reshape(4, 3, 4, 4)
    labels = torch.tensor([0, 1, 0, 1])
    before = fingerprint(TensorDataset(pixels, labels))
    assert fingerprint(TensorDataset(pixels.clone(), labels.clone())) == before
    assert fingerprint(TensorDataset(pixels, 1 - labels)) != before
    assert fingerprint(TensorDataset(pixels.flip(0), labels.flip(0))) != before
    changed = pixels.clone()
    changed[2, 1, 3, 3] += 1
    assert fingerprint(TensorDataset(changed, labels)) != before


def test_an_array_on_disk_is_read_in_places(tmp_path):
    class Mapped(list):
        def __init__(self, data):
            super().__init__(data)
            self.data = data

    pixels = np.arange(100 * 48, dtype=np.uint8).reshape(100, 4, 4, 3)
    np.save(tmp_path / "pixels.npy", pixels)
    mapped = np.load(tmp_path / "pixels.npy", mmap_mode="r+")
    before = fingerprint(Mapped(mapped))
    assert fingerprint(Mapped(mapped)) == before
    assert fingerprint(Mapped(mapped[:99])) != before
    mapped[99] += 1
    assert fingerprint(Mapped(mapped)) != before


def test_subsets_and_concatenations():
    whole = load_dataset("digits", limit=50).train
    subset = fingerprint(Subset(whole, [3, 1, 2]))
    assert fingerprint(Subset(whole, [3, 1, 2])) == subset
    assert fingerprint(Subset(whole, [1, 2, 3])) != subset
    assert fingerprint(Subset(whole, [3, 1])) != subset
    both = fingerprint(ConcatDataset([Subset(whole, [0]), Subset(whole, [1])]))
    assert fingerprint(ConcatDataset([Subset(whole, [1]), Subset(whole, [0])])) != both


def test_a_part_of_a_library_data_set():
    whole = load_dataset("digits", limit=50).train
    assert whole.fingerprint() == load_dataset("digits", limit=50).train.fingerprint()
    assert whole.part(np.arange(10)).fingerprint() != whole.part(np.arange(1, 11)).fingerprint()


def pictures(count=40, changed=None):
    for index in range(count):
        value = 255 if index == changed else index
        yield Image.fromarray(np.full((6, 6, 3), value, dtype=np.uint8))


def table(labels, **options):
    return datasets.Dataset.from_dict(
        {"img": list(pictures(len(labels), **options)), "label": labels},
        features=datasets.Features(
            {"img": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])}
        ),
    )


def test_a_hugging_face_table():
    labels = [0, 1] * 5
    dataset = table(labels)
    before = fingerprint(dataset)
    assert fingerprint(table(labels)) == before
    assert fingerprint(table(labels[::-1])) != before
    assert fingerprint(dataset.select(range(9))) != before
    shuffled = dataset.select([1, 0, *range(2, 10)])
    assert fingerprint(shuffled) not in (before, fingerprint(dataset.select(range(9))))
    image, label = read_item(shuffled, 0)
    assert (image.getpixel((0, 0)), label) == ((1, 1, 1), 1)


class Unknown:
    def __init__(self, images):
        self.made = list(images)
        self.opened = 0

    def __len__(self):
        return len(self.made)

    def __getitem__(self, index):
        self.opened += 1
        return self.made[index], index


def test_of_an_unknown_kind_some_are_opened():
    dataset = Unknown(pictures(200))
    before = fingerprint(dataset)
    assert dataset.opened == 32
    assert fingerprint(dataset) == before  # what it counts is no part of it
    assert fingerprint(Unknown(pictures(199))) != before
    assert fingerprint(Unknown(pictures(200, changed=0))) != before
    assert fingerprint(Unknown(pictures(200, changed=199))) != before


def test_its_own_fingerprint_is_taken():
    dataset = Unknown(pictures(3))
    dataset.fingerprint = "first"
    before = fingerprint(dataset)
    assert dataset.opened == 0
    dataset.fingerprint = "second"
    assert fingerprint(dataset) != before


def test_what_is_no_data_set_is_refused():
    with pytest.raises(InputError, match="generator is not a map-style data set"):
        fingerprint(index for index in range(3))
    with pytest.raises(InputError, match="Unknown is empty"):
        fingerprint(Unknown([]))


GREY = np.arange(36, dtype=np.uint8).reshape(6, 6)


@pytest.mark.parametrize(
    "image",
    [
        Image.fromarray(GREY),
        GREY,
        GREY[..., None],
        np.stack([GREY] * 3, axis=-1),
        torch.from_numpy(GREY),
        torch.from_numpy(GREY)[None],
        torch.from_numpy(GREY).expand(3, 6, 6),
    ],
    ids=["PIL", "HW", "HW1", "HW3", "tensor HW", "tensor 1HW", "tensor 3HW"],
)
@pytest.mark.parametrize("label", [2, np.int64(2), torch.tensor(2), np.array([2])], ids=repr)
def test_images_and_labels_of_every_form(image, label):
    for item in ((image, label), {"image": image, "label": label}, {"img": image, "labels": label}):
        found, number = read_item([item], 0)
        assert found.mode == "RGB"
        assert np.array_equal(np.asarray(found), np.stack([GREY] * 3, axis=-1))
        assert number == 2


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (GREY, "it is a ndarray, expected a tuple .image, label. or a dict with 'image' or 'img'"),
        ({"photo": GREY, "label": 1}, "no image under 'image', 'img', only 'photo', 'label'; rena"),
        ({"image": GREY, "breed": 1}, "no label under 'label'.*, only 'image', 'breed'; rename"),
        ((GREY / 255, 1), "array of float64, expected .*; leave the data set's own transform out"),
        ((torch.zeros(3, 6, 6), 1), "array of float32, .* leave the data set's own transform out"),
        ((np.zeros((6, 6, 7), np.uint8), 1), r"shape \(6, 6, 7\), expected one image with 1, 3 or"),
        (("a.png", 1), "its image is a str, expected a PIL image"),
        ((GREY, "cat"), "its label is 'cat', expected a whole number"),
        ((GREY, 0.5), "its label is 0.5, expected a whole number"),
    ],
)
def test_examples_of_another_form_are_refused(item, message):
    with pytest.raises(InputError, match=f"example 0 of list cannot be used: .*{message}"):
        read_item([item], 0)


def test_an_example_that_cannot_be_read_is_named():
    with pytest.raises(DataError, match=r"example 7 of list cannot be read \(IndexError"):
        read_item([], 7)
