"""Features by what images hold: computed once, gone on with after a kill, mended after damage."""

from __future__ import annotations

import numpy as np
import pytest

from saln.data import ArrayImages
from saln.errors import DataError
from saln.features import build_backbone
from saln.review import feature_cache
from saln.review.feature_cache import FeatureCache
from saln.review.item_sources import JoinedImages, content_keys


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(feature_cache, "SHARD_ROWS", 4)
    monkeypatch.setattr(feature_cache, "PART_ROWS", 20)


@pytest.fixture
def network():
    return build_backbone("pixels", image_size=4)


def pictures(count, seed=0):
    random = np.random.default_rng(seed)
    return ArrayImages(random.integers(0, 255, (count, 4, 4, 3)).astype(np.uint8))


def expected(images, network):
    """By hand: pixels of their own size are only scaled, and flattened channel by channel."""
    mean, std = np.array(network.normalization.mean), np.array(network.normalization.std)
    scaled = (images.pixels / 255 - mean) / std
    return scaled.transpose(0, 3, 1, 2).reshape(len(images), -1)


def rows(folder, network, images, **options):
    return FeatureCache(folder, network, batch_size=2).rows(images, content_keys(images), **options)


def test_rows_are_those_of_the_images_in_their_order(tmp_path, network):
    images = pictures(50)  # of three parts
    found = rows(tmp_path, network, images)
    assert (found.computed, set(found.problems)) == (50, {""})
    np.testing.assert_allclose(found.features, expected(images, network), atol=2e-3)
    order = np.random.default_rng(1).permutation(50)
    shuffled = ArrayImages(images.pixels[order])
    again = rows(tmp_path, network, shuffled)
    assert again.computed == 0
    np.testing.assert_array_equal(again.features, found.features[order])


def test_copies_are_computed_once(tmp_path, network):
    images = pictures(6)
    double = ArrayImages(np.concatenate([images.pixels, images.pixels]))
    found = rows(tmp_path, network, double)
    assert found.computed == 6
    np.testing.assert_array_equal(found.features[:6], found.features[6:])


def test_progress_counts_all_parts_together(tmp_path, network):
    seen = []
    rows(tmp_path, network, pictures(50), progress=seen.append)
    assert {each.rows for each in seen} == {50}
    done = [each.rows_done for each in seen]
    assert done == sorted(done)
    assert (done[0], done[-1], seen[-1].rows_computed) == (0, 50, 50)


@pytest.mark.parametrize("more", [0, 3])
def test_a_stopped_run_goes_on_though_images_came(tmp_path, network, more):
    images, new = pictures(50), pictures(more, seed=5)

    def stop(progress):
        if progress.rows_computed >= 31:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rows(tmp_path, network, images, progress=stop)
    both = JoinedImages([new, images])
    found = rows(tmp_path, network, both)
    # One part of 20 was done and of the next at least a shard.
    assert more + 19 <= found.computed <= more + 26
    assert np.isfinite(found.features).all()
    np.testing.assert_allclose(found.features[more:], expected(images, network), atol=2e-3)


@pytest.mark.parametrize("name", ["keys.npy", "features.npy", "manifest.json", "labels.npy"])
@pytest.mark.parametrize("damage", ["cut", "changed", "gone"])
def test_a_damaged_part_is_made_anew(tmp_path, network, name, damage):
    images = pictures(20)
    rows(tmp_path, network, images)
    (path,) = tmp_path.rglob(name)
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        half = len(content) // 2
        other = bytes([content[half] ^ 0x55])
        path.write_bytes(content[:half] + (b"" if damage == "cut" else other + content[half + 1 :]))
    found = rows(tmp_path, network, images)
    np.testing.assert_allclose(found.features, expected(images, network), atol=2e-3)
    assert rows(tmp_path, network, images).computed == 0


def test_facts_that_were_lost_are_made_again(tmp_path, network):
    images = pictures(9)
    first = rows(tmp_path, network, images)
    (path,) = tmp_path.rglob("facts.bin")
    path.write_bytes(path.read_bytes()[:1000])
    again = rows(tmp_path, network, images)
    assert again.computed == 0
    np.testing.assert_array_equal(again.thumbnails, first.thumbnails)
    assert len(np.unique(again.thumbnails.reshape(9, -1), axis=0)) == 9


def test_networks_and_sizes_have_rows_of_their_own(tmp_path, network):
    images = pictures(5)
    rows(tmp_path, network, images)
    other = build_backbone("pixels", image_size=6)
    assert rows(tmp_path, other, images).features.shape == (5, 108)
    assert rows(tmp_path, network, images).computed == 0


class Unreadable:
    """Pictures of which one has bytes and cannot be decoded, until it is repaired."""

    def __init__(self, count, broken):
        self.inner, self.broken = pictures(count), broken

    def __len__(self):
        return len(self.inner)

    def content(self, row):
        return self.inner.content(row)

    def load(self, row):
        if row == self.broken:
            raise DataError(f"row {row} is broken") from OSError("the disk is away")
        return self.inner.load(row)

    def name_of(self, row):
        return f"row {row}"


@pytest.mark.parametrize("count", [1, 7])
def test_what_cannot_be_read_is_tried_again(tmp_path, network, count):
    images = Unreadable(count, broken=0)
    for _ in range(2):
        found = rows(tmp_path, network, images)
        assert found.problems == ["unreadable: the disk is away"] + [""] * (count - 1)
        assert np.isnan(found.features[0]).all()
        assert np.isfinite(found.features[1:]).all()
    with pytest.raises(DataError, match=r"^row 0 .*the disk is away"):
        rows(tmp_path, network, images, strict=True)
    images.broken = None
    found = rows(tmp_path, network, images, strict=True)
    assert (found.computed, found.problems) == (1, [""] * count)
