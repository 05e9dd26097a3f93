"""Tiny, blank and unreadable images: which are said, and that nothing is decoded twice."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from saln.data import ArrayImages, load_dataset
from saln.errors import DataError
from saln.review.example_checks import CheckedImages, image_facts, problems

NOISE = np.random.default_rng(0).integers(0, 256, (12, 24, 40, 3), dtype=np.uint8)


def facts_of(*rows):
    return np.array(rows, dtype=np.float32)


class Counting(ArrayImages):
    loads = 0

    def load(self, row):
        Counting.loads += 1
        return super().load(row)


def test_facts_are_those_of_the_pixels_in_one_decoding(tmp_path):
    images = CheckedImages(Counting(NOISE), tmp_path / "facts.npy")
    assert np.isnan(images.facts).all()
    loaded = images.load(3)
    assert np.array_equal(np.asarray(loaded), NOISE[3])
    assert Counting.loads == 1
    wanted = [40, 24, max(NOISE[3, ..., channel].std() for channel in range(3))]
    np.testing.assert_allclose(images.facts[3], wanted, rtol=1e-5)
    assert np.isnan(np.delete(images.facts, 3, axis=0)).all()
    other = ArrayImages(NOISE)
    assert (len(images), images.header(1), images.name_of(2)) == (12, (40, 24), "row 2")
    assert images.fingerprint() == other.fingerprint()


class Rows:
    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, row):
        return torch.from_numpy(np.array(self.images.load(row)))


def test_worker_processes_write_to_the_same_file(tmp_path):
    images = CheckedImages(ArrayImages(NOISE), tmp_path / "facts.npy")
    images.load(0)  # mapped in this process already
    list(DataLoader(Rows(images), num_workers=2, generator=torch.Generator()))
    assert images.facts[:, :2].tolist() == [[40, 24]] * 12
    assert not np.isnan(images.facts).any()


def test_a_killed_run_leaves_what_it_saw_and_the_next_goes_on(tmp_path):
    images = CheckedImages(ArrayImages(NOISE), tmp_path / "facts.npy")
    images.load(2)  # mapped, and still to be sent to another process
    (tmp_path / "images").write_bytes(pickle.dumps(images))
    code = (
        "import os, pickle, signal, sys; "
        "images = pickle.load(open(sys.argv[1], 'rb')); images.load(5); "
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(tmp_path / "images")], check=False)
    assert ended.returncode == -signal.SIGKILL
    again = CheckedImages(ArrayImages(NOISE), tmp_path / "facts.npy")
    assert np.flatnonzero(~np.isnan(again.facts[:, 0])).tolist() == [2, 5]
    # Of another number of images, or cut short: begun anew.
    assert np.isnan(CheckedImages(ArrayImages(NOISE[:9]), again.path).facts).all()
    os.truncate(again.path, 100)
    assert len(CheckedImages(ArrayImages(NOISE[:9]), again.path).facts) == 9


def test_an_unreadable_image_stays_an_error_without_facts(tmp_path):
    images = CheckedImages(ArrayImages(np.full((2, 4, 4), np.nan)), tmp_path / "facts.npy")
    with pytest.raises(DataError, match="row 1 cannot be read"):
        images.load(1)
    assert np.isnan(images.facts).all()


def test_what_is_wrong_is_said_once_an_image():
    usual = [(500, 375, 60.0)] * 9
    facts = facts_of(*usual, (12, 9, 50), (400, 300, 0.3), (10, 10, 0), (np.nan,) * 3)
    found = problems(facts, {12: "the file is empty", 0: "no picture"})
    assert found == [
        "unreadable: no picture", *[""] * 8, "tiny: 12 x 9 pixels", "blank",
        "tiny: 10 x 10 pixels", "unreadable: the file is empty",
    ]  # fmt: skip
    assert problems(facts_of((1000, 3, 50), *usual), {})[0] == "tiny: 1000 x 3 pixels"


def test_data_sets_of_small_or_flat_images_are_what_they_are():
    for side in (1, 8, 28, 32):
        assert problems(facts_of(*[(side, side, 40)] * 5), {}) == [""] * 5
    assert problems(facts_of(*[(64, 64, 1.5)] * 5), {}) == [""] * 5
    assert problems(facts_of(*[(32, 32, 40)] * 5, (7, 9, 40)), {})[-1] == "tiny: 7 x 9 pixels"
    assert problems(facts_of(*[(np.nan,) * 3] * 3), {}) == [""] * 3
    assert problems(np.empty((0, 3), dtype=np.float32), {}) == []


def test_an_empty_page_is_flat_and_fine_texture_is_not():
    random = np.random.default_rng(1)
    white = np.full((300, 400, 3), 250) + random.normal(0, 1, (300, 400, 1))
    lines = np.full((300, 400, 3), 255)
    lines[::2] = 0  # a mean over pixels would be flat
    red_on_green = np.zeros((300, 400, 3))
    red_on_green[..., 1] = 100
    red_on_green[:, 200:] = (196, 0, 0)  # nearly equal in gray
    deviations = [
        image_facts(Image.fromarray(pixels.clip(0, 255).astype(np.uint8)))[2]
        for pixels in (white, lines, red_on_green)
    ]
    assert deviations[0] < 2
    assert min(deviations[1:]) > 20


@pytest.mark.parametrize("spec", ["oxford-pet", "hf:cifar10"])
def test_real_images_are_neither_tiny_nor_blank(tmp_path, data_root, spec):
    spec = spec.replace("hf:", f"hf:{data_root}/")
    images = load_dataset(spec, data_root=data_root, limit=200).train
    checked = CheckedImages(images.images, tmp_path / "facts.npy")
    for row in images.rows.tolist():
        checked.load(row)
    facts = checked.facts[images.rows]
    assert not np.isnan(facts).any()
    assert problems(facts, {}) == [""] * len(facts)
