"""Near duplicates: pictures that were saved again are found, similar ones are not."""

from __future__ import annotations

import io

import numpy as np
import pytest
import sklearn.datasets
from helpers.review_tables import review_table
from PIL import Image, ImageEnhance
from sklearn.neighbors import NearestNeighbors

from saln.data import ArrayImages, load_dataset
from saln.review.duplicate_images import duplicate_kinds, group_duplicates
from saln.review.example_checks import CheckedImages


def thumbnails_of(folder, images):
    checked = CheckedImages(images, [str(row) for row in range(len(images))], folder / "facts")
    for row in range(len(images)):
        checked.load(row)
    return checked.facts().thumbnails


def all_others(n):
    """Everybody is a neighbor, the next row first."""
    return (np.arange(n)[:, None] + np.arange(1, n)) % n


def nearest(rows):
    rows = rows.astype(float)
    return NearestNeighbors(n_neighbors=10).fit(rows).kneighbors(return_distance=False)


def cosine(one, other):
    edges = [np.r_[np.diff(a, axis=0).ravel(), np.diff(a, axis=1).ravel()] for a in (one, other)]
    return edges[0] @ edges[1] / np.linalg.norm(edges[0]) / np.linalg.norm(edges[1])


def test_thumbnails_decide_by_their_edges_with_and_without_a_frame():
    random = np.random.default_rng(0)
    pictures = random.integers(0, 256, (20, 16, 16)).astype(float)
    mixed = [0.1, 0.3, 0.5, 0.7, 0.9]  # the share of another picture in a copy
    for row, share in enumerate(mixed):
        pictures[10 + row] = (1 - share) * pictures[row] + share * pictures[15 + row]
    pictures[5:7] *= 0.2
    frame = pictures[5].copy()
    frame[2:-2, 2:-2] = pictures[6, 2:-2, 2:-2]
    frame[:2], pictures[5, :2] = 500, 500  # agrees with row 5 in a strong frame alone
    pictures = (np.concatenate([pictures, frame[None]]) / 2).astype(np.uint8)
    found = group_duplicates(all_others(21), pictures)
    exact = pictures.astype(float)
    pairs = {
        (a, b)
        for a in range(21)
        for b in range(a)
        if cosine(exact[a], exact[b]) >= 0.8
        and cosine(exact[a, 2:-2, 2:-2], exact[b, 2:-2, 2:-2]) >= 0.8
    }
    assert {(10, 0), (11, 1)} <= pairs
    assert (20, 5) not in pairs
    assert cosine(exact[20], exact[5]) > 0.8
    grouped = {
        (a, b) for a in range(21) for b in range(a) if found[a] == found[b] and found[a] >= 0
    }
    assert grouped == pairs


def test_pets_that_were_saved_again_are_found_and_no_others(tmp_path, data_root):
    part = load_dataset("oxford-pet", data_root=data_root, limit=150).train
    originals = [part.images.load(int(row)) for row in part.rows[:80]]
    copies = []
    for number, image in enumerate(originals[:20]):
        kind = number % 4
        if kind == 0:
            image = image.resize((image.width // 2, image.height // 2))
        elif kind == 1:
            image = ImageEnhance.Brightness(image).enhance(0.7)
        elif kind == 2:
            image = image.convert("L").convert("RGB")
        else:
            image = image.crop((2, 2, image.width - 1, image.height - 1))
        stream = io.BytesIO()
        image.save(stream, "JPEG", quality=60)
        copies.append(Image.open(stream))
    images = ArrayImages(np.empty((100, 1, 1), dtype=np.uint8))
    object.__setattr__(images, "load", lambda row: (originals + copies)[row].convert("RGB"))
    thumbnails = thumbnails_of(tmp_path, images)
    found = group_duplicates(nearest(thumbnails.reshape(100, -1)), thumbnails)
    wanted = np.full(100, -1)
    wanted[:20] = wanted[80:] = np.arange(20)
    assert found.tolist() == wanted.tolist()


def test_digits_are_alike_and_no_duplicates(tmp_path):
    digits = sklearn.datasets.load_digits()
    pixels = np.round(digits.images * (255 / 16)).astype(np.uint8)
    near, thumbnails = nearest(digits.data), thumbnails_of(tmp_path, ArrayImages(pixels))
    found = group_duplicates(near, thumbnails)
    assert (found >= 0).mean() < 0.01
    # Examples without neighbors say nothing about what is usual.
    padded = np.concatenate([near, np.full((3000, 10), -1)])
    more = group_duplicates(padded, np.concatenate([thumbnails, np.zeros((3000, 16, 16), "u1")]))
    assert more.tolist() == [*found.tolist(), *[-1] * 3000]


def test_groups_by_features_are_joined_with_those_by_pictures():
    random = np.random.default_rng(0)
    pictures = random.integers(0, 256, (8, 16, 16), dtype=np.uint8)
    pictures[6] = pictures[3]
    pictures[1] = pictures[2] = 255  # flat: like nothing
    groups = [np.array([3, 5]), np.array([0, 7])]
    found = group_duplicates(all_others(8), pictures, groups)
    assert found.tolist() == [0, -1, -1, 1, -1, 1, 1, 0]
    assert group_duplicates(all_others(8), None, groups).tolist() == [0, -1, -1, 1, -1, 1, -1, 0]
    missing = np.full((8, 3), -1)  # no neighbor is known
    assert group_duplicates(missing, pictures).tolist() == [-1] * 8
    assert group_duplicates(np.empty((1, 0), dtype=int), pictures[:1]).tolist() == [-1]


@pytest.mark.parametrize("split", ["", "train"])
def test_groups_are_sorted_by_what_they_do(split):
    table = review_table(
        list("abcdefghij"),
        given=["cat", "cat", "cat", "dog", "cat", "cat", "cat", "dog", "", "dog"],
        splits=[split] * 5 + ["test"] + [split] + ["test"] + [split] * 2,
        group=[0, 0, 1, 1, 2, 2, 3, 3, 4, 4],
    )
    kinds = duplicate_kinds(table)
    assert [rows.tolist() for rows in kinds.inside] == [[0, 1], [8, 9]]
    assert [rows.tolist() for rows in kinds.across_classes] == [[2, 3], [6, 7]]
    assert [rows.tolist() for rows in kinds.across_splits] == [[4, 5], [6, 7]]
    assert duplicate_kinds(review_table(["a", "b"])) == ((), (), ())
