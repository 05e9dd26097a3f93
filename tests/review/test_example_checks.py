"""Tiny, blank and unreadable images: which are said, and that nothing is decoded twice."""

from __future__ import annotations

import pickle
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from saln.data import ArrayImages, load_dataset
from saln.errors import DataError
from saln.review.example_checks import CheckedImages, problems

NOISE = np.random.default_rng(0).integers(0, 256, (12, 24, 40, 3), dtype=np.uint8)
KEYS = [f"key {row}" for row in range(12)]


def sizes_of(*rows):
    return np.array(rows, dtype=np.float32)


def seen(images):
    return np.flatnonzero(~np.isnan(images.facts().sizes).any(axis=1)).tolist()


class Counting(ArrayImages):
    loads = 0

    def load(self, row):
        Counting.loads += 1
        return super().load(row)


def test_facts_are_those_of_the_pixels_in_one_decoding(tmp_path):
    images = CheckedImages(Counting(NOISE), KEYS, tmp_path / "cache" / "facts")
    assert seen(images) == []
    loaded = images.load(3)
    assert np.array_equal(np.asarray(loaded), NOISE[3])
    assert Counting.loads == 1
    assert seen(images) == [3]
    sizes, thumbnails = images.facts()
    wanted = [40, 24, max(NOISE[3, ..., channel].std() for channel in range(3))]
    np.testing.assert_allclose(sizes[3], wanted, rtol=1e-5)
    gray = NOISE[3] @ np.array([0.299, 0.587, 0.114])
    assert abs(thumbnails[3].mean() - gray.mean()) < 1
    assert not thumbnails[[2, 4]].any()
    assert images.name_of(2) == "row 2"


def test_thumbnails_are_means_over_squares(tmp_path):
    pixels = np.repeat(np.repeat(np.arange(256).reshape(1, 16, 16), 4, axis=1), 4, axis=2)
    images = CheckedImages(ArrayImages(pixels.astype(np.uint8)), ["a"], tmp_path / "facts")
    images.load(0)
    assert np.array_equal(images.facts().thumbnails[0], np.arange(256).reshape(16, 16))


def test_facts_are_found_by_content_in_any_order_and_kept_once(tmp_path):
    path = tmp_path / "facts"
    images = CheckedImages(ArrayImages(NOISE), KEYS, path)
    for row in range(12):
        images.load(row)
    moved = CheckedImages(ArrayImages(NOISE[::-1]), ["new", "", *KEYS[::-1]], path)
    np.testing.assert_array_equal(moved.facts().sizes[2:], images.facts().sizes[::-1])
    assert seen(moved) == list(range(2, 14))
    before = path.stat().st_size
    moved.load(5)
    assert path.stat().st_size == before


class Rows:
    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images.images)

    def __getitem__(self, row):
        return torch.from_numpy(np.array(self.images.load(row)))


def test_worker_processes_write_to_the_same_file(tmp_path):
    images = CheckedImages(ArrayImages(NOISE), KEYS, tmp_path / "facts")
    images.load(0)
    list(DataLoader(Rows(images), num_workers=2, generator=torch.Generator()))
    assert seen(images) == list(range(12))
    assert images.facts().sizes[:, :2].tolist() == [[40, 24]] * 12


def test_a_killed_run_leaves_what_it_saw_and_damage_counts_as_unseen(tmp_path):
    path = tmp_path / "facts"
    images = CheckedImages(ArrayImages(NOISE), KEYS, path)
    images.load(2)
    (tmp_path / "images").write_bytes(pickle.dumps(images))
    code = (
        "import os, pickle, signal, sys; "
        "images = pickle.load(open(sys.argv[1], 'rb')); images.load(5); "
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(tmp_path / "images")], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert seen(images) == [2, 5]
    record = path.stat().st_size // 2
    with path.open("ab") as stream:  # cut short, as on a full disk
        stream.write(path.read_bytes()[: record // 2])
    images = CheckedImages(ArrayImages(NOISE), KEYS, path)
    images.load(7)
    assert seen(images) == [2, 5, 7]
    content = bytearray(path.read_bytes())
    content[record + 40] ^= 1
    path.write_bytes(content)
    assert seen(CheckedImages(ArrayImages(NOISE), KEYS, path)) == [2, 7]


def test_what_cannot_be_read_or_kept_is_left_out(tmp_path):
    images = CheckedImages(ArrayImages(np.full((2, 4, 4), np.nan)), KEYS[:2], tmp_path / "facts")
    with pytest.raises(DataError, match="row 1 cannot be read"):
        images.load(1)
    assert seen(images) == []
    (tmp_path / "file").touch()
    images = CheckedImages(ArrayImages(NOISE), KEYS, tmp_path / "file" / "facts")
    assert images.load(0).size == (40, 24)
    assert seen(images) == []


def test_what_is_wrong_is_said_once_an_image():
    usual = [(500, 375, 60.0)] * 9
    sizes = sizes_of(*usual, (12, 9, 50), (400, 300, 0.3), (10, 10, 0), (np.nan,) * 3)
    found = problems(sizes, {12: "the file is empty", 0: "no picture"})
    assert found == [
        "unreadable: no picture", *[""] * 8, "tiny: 12 x 9 pixels", "blank",
        "tiny: 10 x 10 pixels", "unreadable: the file is empty",
    ]  # fmt: skip
    assert problems(sizes_of((1000, 3, 50), *usual), {})[0] == "tiny: 1000 x 3 pixels"


def test_data_sets_of_small_or_flat_images_are_what_they_are():
    for side in (1, 8, 28, 32):
        assert problems(sizes_of(*[(side, side, 40)] * 5), {}) == [""] * 5
    assert problems(sizes_of(*[(64, 64, 1.5)] * 5), {}) == [""] * 5
    assert problems(sizes_of(*[(32, 32, 40)] * 5, (7, 9, 40)), {})[-1] == "tiny: 7 x 9 pixels"
    assert problems(sizes_of(*[(np.nan,) * 3] * 3), {}) == [""] * 3
    assert problems(np.empty((0, 3), dtype=np.float32), {}) == []


def test_an_empty_page_is_flat_and_fine_texture_is_not(tmp_path):
    random = np.random.default_rng(1)
    white = np.full((300, 400, 3), 250) + random.normal(0, 1, (300, 400, 1))
    lines = np.full((300, 400, 3), 255)
    lines[::2] = 0  # a mean over pixels would be flat
    red_on_green = np.zeros((300, 400, 3))
    red_on_green[..., 1] = 100
    red_on_green[:, 200:] = (196, 0, 0)  # nearly equal in gray
    pixels = np.stack([white, lines, red_on_green]).clip(0, 255).astype(np.uint8)
    images = CheckedImages(ArrayImages(pixels), KEYS[:3], tmp_path / "facts")
    for row in range(3):
        images.load(row)
    deviations = images.facts().sizes[:, 2]
    assert deviations[0] < 2
    assert min(deviations[1:]) > 20


@pytest.mark.parametrize("spec", ["oxford-pet", "hf:cifar10"])
def test_real_images_are_neither_tiny_nor_blank(tmp_path, data_root, spec):
    spec = spec.replace("hf:", f"hf:{data_root}/")
    images = load_dataset(spec, data_root=data_root, limit=200).train
    keys = list(map(str, range(len(images.images))))
    checked = CheckedImages(images.images, keys, tmp_path / "facts")
    for row in images.rows.tolist():
        checked.load(row)
    sizes = checked.facts().sizes[images.rows]
    assert not np.isnan(sizes).any()
    assert problems(sizes, {}) == [""] * len(sizes)
