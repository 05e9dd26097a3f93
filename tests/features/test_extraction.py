from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from saln.data.augmentation import EvaluationTransform
from saln.data.datasets import load_dataset
from saln.errors import DataError
from saln.features import store as store_module
from saln.features.backbones import build_backbone
from saln.features.extraction import extract
from saln.features.store import FeatureStore


@pytest.fixture
def digits():
    return load_dataset("digits", limit=80)


def run(data, cache, **changes):
    backbone = changes.pop("backbone", None) or build_backbone("pixels", image_size=8)
    options = {
        "dataset": "digits",
        "fingerprint": data.fingerprint,
        "cache_dir": cache,
        "batch_size": 16,
    }
    return extract(data.train, backbone, **(options | changes))


def test_rows_are_the_backbones_output_in_order(digits, tmp_path):
    seen = []
    store = run(digits, tmp_path, progress=lambda done, total: seen.append((done, total)))
    transform = EvaluationTransform(8)
    for position in (0, 17, len(digits.train) - 1):
        image = digits.train.images.load(int(digits.train.rows[position]))
        expected = transform(image).flatten().to(torch.float16).numpy()
        assert np.array_equal(store.features[position], expected)
    assert np.array_equal(store.labels, digits.train.labels)
    assert seen[-1] == (72, 72)
    assert [done for done, _ in seen] == [16, 32, 48, 64, 72]


def test_the_second_time_nothing_is_computed(digits, tmp_path):
    first = run(digits, tmp_path)
    seen = []
    again = run(digits, tmp_path, progress=lambda done, total: seen.append(done))
    assert seen == []
    assert again.path == first.path
    assert again.manifest["seconds"] == first.manifest["seconds"]


@pytest.mark.parametrize(
    "change",
    [{"fingerprint": "other"}, {"image_size": 16}, {"backbone": "other"}, {"dataset": "other"}],
)
def test_what_differs_is_extracted_anew(digits, tmp_path, change):
    first = run(digits, tmp_path)
    if "image_size" in change:
        change = {"backbone": build_backbone("pixels", image_size=16)}
    elif "backbone" in change:
        change = {"backbone": build_backbone("efficientnet-lite0", image_size=32)}
    assert run(digits, tmp_path, **change).path != first.path


def test_a_damaged_store_is_refused_with_the_cure(digits, tmp_path):
    path = run(digits, tmp_path).path
    data = (path / "features.npy").read_bytes()
    (path / "features.npy").write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=r"is damaged .* delete the folder"):
        run(digits, tmp_path)
    (path / "features.npy").write_bytes(data)
    np.save(path / "labels.npy", np.zeros(3, dtype=np.int64))
    with pytest.raises(DataError, match="beside 3 labels"):
        run(digits, tmp_path)


def test_another_format_version_is_refused(digits, tmp_path):
    path = run(digits, tmp_path).path
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps(manifest | {"format_version": 99}))
    with pytest.raises(DataError, match="has format version 99, this SALN reads 1"):
        FeatureStore.open(path)


def test_a_full_disk_leaves_nothing_behind(digits, tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store_module.np, "save", full)
    with pytest.raises(DataError, match=r"No space left.*--cache-dir"):
        run(digits, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_broken_image_is_named(image_folder, tmp_path):
    data = load_dataset(f"folder:{image_folder}")
    name = data.train.images.paths[int(data.train.rows[3])]
    name.write_bytes(b"no image")
    with pytest.raises(DataError, match=rf"{name.name} cannot be read"):
        run(data, tmp_path / "cache")
    with pytest.raises(DataError, match=rf"{name.name} cannot be read"):
        run(data, tmp_path / "cache", workers=2)  # out of a loader's process too
    assert not (tmp_path / "cache").exists()


def test_features_that_float16_cannot_hold_are_refused(digits, tmp_path):
    backbone = build_backbone("pixels", image_size=8)
    backbone.body.add_module("huge", _Times(1e6))
    with pytest.raises(DataError, match="float16 cannot hold for example 0"):
        run(digits, tmp_path, backbone=_Wrapped(backbone, 1e6))


class _Times(torch.nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return x * self.factor


def _Wrapped(network, factor):  # noqa: N802
    import dataclasses

    return dataclasses.replace(network, body=torch.nn.Sequential(network.body, _Times(factor)))
