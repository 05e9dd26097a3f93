"""Features of a data set by name: the store that ``saln compare`` finds again."""

from pathlib import Path

import numpy as np
import pytest

import saln
from saln.data.datasets import load_dataset
from saln.errors import InputError
from saln.features.backbones import build_backbone
from saln.features.dataset_features import (
    DatasetExtraction,
    default_cache_dir,
    named_backbone,
)


def test_it_is_the_store_of_the_training_images_at_the_data_sets_own_size(tmp_path):
    seen = []
    asked = DatasetExtraction(backbone="pixels", limit=60, cache_dir=tmp_path)
    store = asked.open().run(progress=seen.append)
    train = load_dataset("digits", limit=60).train
    same = saln.extract_features(
        train, build_backbone("pixels", image_size=16), cache_dir=tmp_path, name="digits"
    )
    assert store.path == same.path
    assert store.features.shape == (len(train), 3 * 16 * 16)
    assert np.array_equal(store.labels, train.labels)
    assert (seen[0].rows_done, seen[-1].rows_done) == (0, len(train))


def test_what_computes_can_be_handed_in(tmp_path):
    calls = []
    asked = DatasetExtraction(
        backbone="pixels", limit=60, feature_size=8, device="cpu", skip_unreadable=True,
        cache_dir=tmp_path, batch_size=5,
    )  # fmt: skip
    opened = asked.open()
    assert opened.title == "features: pixels at 8 px"

    def extract(dataset, network, **options):
        calls.append((len(dataset), network.width, options))
        return saln.extract_features(dataset, network, **options)

    store = opened.run(extract=extract)
    assert len(store) == calls[0][0] == len(opened.data.train)
    assert calls[0][1:] == (
        3 * 8 * 8,
        {
            "progress": None, "name": "digits", "cache_dir": tmp_path, "device": "cpu",
            "batch_size": 5, "workers": 0, "unreadable": "skip",
        },
    )  # fmt: skip


def test_without_a_folder_it_is_the_users_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_dir() == tmp_path / "saln" / "features"
    store = DatasetExtraction(backbone="pixels", limit=60).open().run()
    assert store.path.parent == tmp_path / "saln" / "features"


def test_networks_of_imagenet_see_at_least_96_pixels():
    assert named_backbone("efficientnet-lite0", 32).image_size == 96
    assert named_backbone("efficientnet-lite0", 32, size=64).image_size == 64
    assert named_backbone("pixels", 32).image_size == 32


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"feature_size": 4}, "feature_size=4 is not allowed; give 8 to 2048, a whole number"),
        ({"limit": 0}, "limit=0 is not allowed; give at least 1"),
        ({"workers": -1}, "workers=-1 is not allowed; give 0 to 1000, a whole number"),
        ({"batch_size": 2.5}, "batch_size=2.5 is not allowed"),
        ({"split_seed": 2**64}, "split_seed=18446744073709551616 is not allowed"),
        ({"device": "gpu"}, "device='gpu' is not allowed; give auto, cpu or cuda"),
        ({"cache_dir": 5}, "cache_dir=5 is no path"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_anything_is_opened(settings, message):
    with pytest.raises(InputError, match=message):
        DatasetExtraction(**settings)


def test_settings_are_taken_as_what_they_plainly_mean():
    asked = DatasetExtraction(limit=np.int64(5), data_root="~", workers=2.0)
    assert (asked.limit, asked.workers) == (5, 2)
    assert asked.data_root == Path.home()
