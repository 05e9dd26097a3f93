"""What the page of doubted labels is made of: lists, pictures, their order and size."""

from __future__ import annotations

import base64
import io

import numpy as np
from helpers.page_tables import drawn_review
from PIL import Image

from saln.data.decoding import load_rgb
from saln.data.image_sources import ArrayImages, FileImages
from saln.review.page_data import (
    COPY_ACROSS,
    COPY_INSIDE,
    COPY_SPLITS,
    OUTLIER,
    picture_rows,
    row_flags,
    thumbnail,
)
from saln.review.review_page import headline, write_page

CLASSES = ("ant", "bee", "cat", "dog")


def test_flags_and_pictures_by_hand():
    table, _ = drawn_review(
        6, CLASSES, given=np.array([0, 0, 1, 1, 2, 3]), believed=np.array([0, 0, 1, 2, 2, 3]),
        group=np.array([0, 0, 2, 2, -1, 1]), outlier=np.full(6, np.nan),
        splits=["train", "test", "train", "train", "train", "train"],
        probability=np.array([0.9, 0.8, np.nan, 0.1, 0.4, 0.95]),
    )  # fmt: skip
    flags = row_flags(table)
    assert flags.tolist() == [COPY_SPLITS, COPY_SPLITS, COPY_INSIDE, COPY_INSIDE, 0, 0]
    assert picture_rows(table, flags, 3) == [3, 4, 0]  # two suspects, then a leak
    assert picture_rows(table, flags, 10) == [3, 4, 0, 1, 2, 5]
    across, _ = drawn_review(
        2, CLASSES, given=np.array([0, 1]), believed=np.array([0, 1]), group=np.array([5, 5]),
        outlier=np.array([np.nan, 1]), splits=["", "test"],
    )  # fmt: skip
    assert row_flags(across).tolist() == [
        COPY_ACROSS | COPY_SPLITS,
        COPY_ACROSS | COPY_SPLITS | OUTLIER,
    ]


def test_pictures_stay_within_their_budget(tmp_path):
    pixels = np.random.default_rng(0).integers(256, size=(100, 64, 64, 3), dtype=np.uint8)
    table, items = drawn_review(100, CLASSES, images=ArrayImages(pixels))
    sizes = [
        write_page(tmp_path / "p.html", table, items, review=tmp_path, budget=budget).stat().st_size
        for budget in (0, 50_000, 10**9)
    ]
    assert 20_000 < sizes[1] - sizes[0] < 52_000
    assert sizes[2] > sizes[1] + 50_000


def test_a_thumbnail_is_the_whole_picture_upright_and_small(tmp_path):
    left = np.zeros((600, 1200, 3), dtype=np.uint8)
    left[:, :600] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    Image.fromarray(left).save(tmp_path / "a.jpg", exif=exif)
    images = FileImages(tmp_path, [tmp_path / "a.jpg", tmp_path / "none.jpg"])
    small = Image.open(io.BytesIO(base64.b64decode(thumbnail(images, 0, images.paths[0], 128))))
    assert small.size == (64, 128)
    assert np.asarray(small.convert("L"))[[10, -10], 32].tolist() == [255, 0]  # white is on top
    assert thumbnail(images, 1, images.paths[1], 128) == ""
    # Decoding at a part of the size never gives less than is asked for.
    assert load_rgb(tmp_path / "a.jpg", least=100).size == (150, 300)


def test_the_headline_says_what_is_known():
    table, _ = drawn_review(1000, CLASSES)
    doubted, judged = len(table.suspects), np.count_nonzero(~np.isnan(table.probability))
    assert 900 < judged < 1000
    assert headline(table) == (
        f"{doubted} of {judged} labels look wrong; about 10.0% (8.0% to 12.0%) are estimated to be."
    )
    nothing = {"noise_rate": np.nan, "noise_interval": (np.nan, np.nan)}
    table, _ = drawn_review(10, CLASSES, probability=np.full(10, np.nan), **nothing)
    assert headline(table) == "No label was judged."
    table, _ = drawn_review(1, CLASSES, probability=np.zeros(1), **nothing)
    assert headline(table) == "1 of 1 labels looks wrong."
    table, _ = drawn_review(1, CLASSES, probability=np.ones(1), **nothing)
    assert headline(table) == "None of 1 labels looks wrong."
    table, _ = drawn_review(
        3,
        CLASSES,
        given=np.zeros(3, dtype=int),
        believed=np.ones(3, dtype=int),
        decision=["believe", "keep", "drop"],
        label=["bee", "ant", ""],
        probability=np.full(3, 0.9),
        **nothing,
    )
    assert headline(table) == (
        "None of 3 labels that is undecided looks wrong; 2 decisions are not applied yet."
    )
