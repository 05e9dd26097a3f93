"""Every image's header is looked at before all work; no file makes a run wait."""

from __future__ import annotations

import os
import threading

import numpy as np
import pytest
from helpers.comparisons import Quiet
from PIL import Image

import saln.data.headers
from saln.data.datasets import load_dataset
from saln.data.headers import check_headers, unreadable_images
from saln.errors import DataError
from saln.experiments.config import Config
from saln.experiments.run import compare


@pytest.fixture
def damaged(image_folder):
    """A folder with six files that are no pictures, in the order of their names."""
    blue, red = image_folder / "blue", image_folder / "red"
    for path in (blue / "03.png", blue / "04.png", blue / "05.png", red / "00.png", red / "01.png"):
        path.unlink()
    os.mkfifo(blue / "03.png")
    (blue / "04.png").write_bytes(b"")
    (blue / "05.png").write_bytes(b"<html>")
    (red / "00.png").symlink_to("nowhere")
    (red / "01.png").symlink_to("/dev/zero")
    Image.effect_noise((40, 40), 90).save(red / "02.png", "JPEG")
    (red / "02.png").write_bytes((red / "02.png").read_bytes()[:-200])
    return image_folder


NAMES = ["blue/03.png", "blue/04.png", "blue/05.png", "red/00.png", "red/01.png", "red/02.png"]
REASONS = [
    "no regular file",
    "is empty",
    "no picture of the",
    "No such file",
    "no regular file",
    "truncated",
]


def test_all_files_without_a_header_are_found(damaged):
    data = load_dataset(f"folder:{damaged}")
    found = [
        one for part in (data.train, data.validation, data.test) for one in unreadable_images(part)
    ]
    found.sort()
    assert [one.name for one in found] == NAMES
    for one, reason in zip(found, REASONS, strict=True):
        assert data.train.images.name_of(one.row) == one.name
        assert reason in one.reason
    with pytest.raises(DataError) as caught:
        check_headers(data)
    said = str(caught.value)
    assert said.startswith("6 of 60 images cannot be read. The first: ")
    assert all(name in said for name in NAMES)
    assert "\n" not in said


def test_a_whole_data_set_passes_and_no_pixels_are_read(image_folder, monkeypatch):
    def load(*arguments):
        raise AssertionError("the pixels were read")

    data = load_dataset(f"folder:{image_folder}")
    monkeypatch.setattr(Image.Image, "load", load)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)
    check_headers(data)
    check_headers(load_dataset("digits", limit=50))


def test_many_files_are_looked_at_once_each_and_ten_are_named(image_folder, monkeypatch):
    monkeypatch.setattr(saln.data.headers, "_AT_ONCE", 7)
    for path in (image_folder / "red").iterdir():
        path.write_bytes(b"no picture")
    data = load_dataset(f"folder:{image_folder}")
    seen, lock, real = [], threading.Lock(), type(data.train.images).header

    def header(self, row):
        with lock:
            seen.append(row)
        return real(self, row)

    monkeypatch.setattr(type(data.train.images), "header", header)
    with pytest.raises(DataError, match=r"^30 of 60 .*\.png and 20 more$"):
        check_headers(data)
    assert sorted(seen) == list(range(60))
    (damage,) = unreadable_images(data.train.part(np.flatnonzero(data.train.labels == 1)[:1]))
    assert data.train.labels[list(data.train.rows).index(damage.row)] == 1


@pytest.mark.timeout(120)
def test_a_comparison_looks_first(damaged, tmp_path):
    config = Config(
        dataset=f"folder:{damaged}", methods=("standard", "uniform"), learner="small-cnn",
        image_size=16, epochs=1, batch_size=4, filter_ratio=0.5, out=tmp_path / "run",
        cache_dir=tmp_path / "features", device="cpu",
    )  # fmt: skip
    with pytest.raises(DataError, match=r"^6 of 60 images cannot be read\."):
        compare(config, Quiet())
    assert not (tmp_path / "run").exists()
