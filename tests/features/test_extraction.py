from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.feature_examples import (
    BATCH,
    ROWS,
    SHARD_ROWS,
    Pictures,
    content,
    extract,
    tiny_backbone,
)
from torch import nn

import saln
from saln.data.datasets import load_dataset
from saln.data.items import read_item
from saln.data.transforms import EvaluationTransform, Normalization
from saln.errors import DataError, InputError
from saln.features.backbones import build_backbone
from saln.features.extraction import extract_features
from saln.features.store import FeatureStore


@pytest.fixture
def digits():
    return load_dataset("digits", limit=80).train


def run(examples, cache, **changes):
    options = {"image_size": 8, "batch_size": 16, "name": "digits"}
    return extract_features(examples, "pixels", cache_dir=cache, **(options | changes))


def test_rows_are_the_backbones_output_in_order(digits, tmp_path):
    seen = []
    store = run(digits, tmp_path, progress=seen.append)
    transform = EvaluationTransform(8)
    for position in (0, 17, len(digits) - 1):
        image = digits.images.load(int(digits.rows[position]))
        expected = transform(image).flatten().to(torch.float16).numpy()
        assert np.array_equal(store.features[position], expected)
    assert np.array_equal(store.labels, digits.labels)
    assert store.path.name.startswith("digits-pixels-8px-")
    assert [progress.rows_done for progress in seen] == [0, 16, 32, 48, 64, 72]
    assert {progress.rows for progress in seen} == {72}
    assert seen[0].seconds_left is None
    assert seen[-1].seconds_left == 0
    third = seen[3]
    assert third.seconds_left == pytest.approx((72 - 48) / third.images_per_second)


def test_the_three_lines_of_a_user(digits, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    features = saln.extract_features(digits, backbone="pixels", image_size=8)
    assert features.path.parent == (tmp_path / "features").relative_to(tmp_path)
    batches = saln.SelectedBatches(
        features, selector=saln.SALN(), batch_size=4, filter_ratio=0.8, seed=0
    )
    loader = torch.utils.data.DataLoader(
        digits, batch_sampler=batches, collate_fn=list, generator=torch.Generator()
    )
    labels = [[label for _, label in batch] for batch in loader]
    assert [len(batch) for batch in labels] == [4, 4, 4]


def test_the_second_time_nothing_is_computed(digits, tmp_path):
    first = run(digits, tmp_path)
    seen = []
    again = run(digits, tmp_path, progress=seen.append)
    assert seen == []
    assert again.path == first.path
    assert again.seconds == first.seconds


def test_a_finished_store_loses_its_lock_file_when_it_is_found(tmp_path):
    path = extract(tmp_path).path
    (path / ".lock").touch()  # a kill between the last shard and the end leaves it
    extract(tmp_path)
    assert not (path / ".lock").exists()


@pytest.mark.parametrize("change", ["examples", "image_size", "weights", "labels"])
def test_what_differs_is_extracted_anew(digits, tmp_path, change):
    first = extract(tmp_path, digits)
    other = {
        "examples": lambda: extract(tmp_path, digits.part(np.arange(1, 72))),
        "image_size": lambda: run(digits, tmp_path, image_size=16),
        "weights": lambda: extract(tmp_path, digits, tiny_backbone(seed=1)),
        "labels": lambda: extract(
            tmp_path, load_dataset("digits", limit=80).with_label_noise(0.5, 0).train
        ),
    }[change]()
    assert other.path != first.path
    assert FeatureStore.open(first.path).manifest == first.manifest


@pytest.mark.parametrize("workers", [0, 2])
def test_neither_workers_nor_shards_change_the_rows(workers, tmp_path):
    whole = extract(tmp_path / "a")
    store = extract(tmp_path / "b", workers=workers, shard_rows=2 * SHARD_ROWS)
    assert np.array_equal(store.features, whole.features)
    assert np.array_equal(store.labels, whole.labels)


def test_batches_end_where_shards_do(tmp_path):
    sizes = []

    class Sizes(nn.Module):
        def forward(self, images):
            sizes.append(len(images))
            return images.flatten(1)

    extract(tmp_path, backbone=Sizes(), shard_rows=10)
    tail = [4, 2] if ROWS % 10 == 6 else []
    assert sizes == [1, *[4, 4, 2] * (ROWS // 10), *tail]  # the first finds the width
    assert BATCH == 4


def test_a_module_is_left_as_it_was(tmp_path):
    convolution = nn.utils.skip_init(nn.Conv2d, 3, 4, 3, bias=False)
    backbone = nn.Sequential(convolution, nn.BatchNorm2d(4), nn.Dropout(), nn.Flatten())
    for parameter in backbone.parameters():
        nn.init.constant_(parameter, 0.1)
    backbone.train()
    backbone[1].eval()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    store = extract(tmp_path, backbone=backbone)
    assert [layer.training for layer in backbone] == [True, False, True, True]
    after = backbone.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    backbone.eval()(torch.zeros(1, 3, 8, 8)).sum().backward()  # it can still be trained
    image, _ = read_item(Pictures(), 7)
    with torch.inference_mode():
        expected = backbone(EvaluationTransform(8)(image)[None])[0]
    assert np.array_equal(store.features[7], expected.to(torch.float16).numpy())


def test_a_modules_own_normalization(tmp_path):
    normalization = Normalization((0.5,) * 3, (0.25,) * 3)
    store = extract(tmp_path, backbone=nn.Flatten(), normalization=normalization)
    image, _ = read_item(Pictures(), 3)
    expected = (np.asarray(image).transpose(2, 0, 1).reshape(-1) / 255 - 0.5) / 0.25
    np.testing.assert_allclose(store.features[3], expected, atol=2e-3)


def test_mixed_precision_is_another_store_close_by(tmp_path):
    full = extract(tmp_path)
    mixed = extract(tmp_path, mixed_precision=True)
    assert mixed.path != full.path
    assert mixed.manifest["precision"] == "mixed"
    assert not np.array_equal(mixed.features, full.features)
    np.testing.assert_allclose(mixed.features, full.features, atol=0.5)


def test_data_sets_of_torchvision_and_hugging_face(image_folder, tmp_path):
    import datasets

    from saln._torchvision import torchvision

    files = torchvision.datasets.ImageFolder(str(image_folder))
    ours = load_dataset(f"folder:{image_folder}").train
    columns = {"image": [image for image, _ in files], "label": files.targets}
    table = datasets.Dataset.from_dict(columns).cast_column("image", datasets.Image())
    stores = [run(dataset, tmp_path) for dataset in (files, table)]
    assert stores[0].path != stores[1].path
    assert np.array_equal(stores[0].features, stores[1].features)
    assert np.array_equal(stores[0].labels, stores[1].labels)
    part = run(ours, tmp_path)
    assert np.array_equal(part.features, stores[0].features[ours.rows])


def test_a_broken_image_is_named(image_folder, tmp_path):
    data = load_dataset(f"folder:{image_folder}").train
    name = data.images.paths[int(data.rows[3])]
    name.write_bytes(b"no image")
    cache = tmp_path / "cache"
    with pytest.raises(DataError, match=rf"{name.name} cannot be read"):
        run(data, cache)
    with pytest.raises(DataError, match=rf"{name.name} cannot be read"):
        run(data, cache, workers=2)  # out of a loader's process too
    assert list(cache.iterdir()) == []  # nothing was done, so nothing is left


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"dataset": []}, InputError, "list is empty"),
        ({"dataset": iter([1])}, InputError, "list_iterator is not a map-style data set"),
        ({"dataset": [1, 2]}, InputError, "example 0 of list cannot be used: it is a int"),
        ({"backbone": "resnet19"}, InputError, "unknown network 'resnet19'"),
        ({"backbone": "pixels", "image_size": None}, InputError, "no usual image size; give"),
        ({"image_size": None}, InputError, "a module needs image_size"),
        ({"weights": "x.pt"}, InputError, "weights are for a backbone that is a name"),
        ({"backbone": 5}, InputError, "backbone=5 is not allowed; give a name"),
        ({"batch_size": 0}, InputError, "batch_size=0 is not allowed; give at least 1"),
        ({"workers": -1}, InputError, "workers=-1 is not allowed; give at least 0"),
        ({"shard_rows": 0}, InputError, "shard_rows=0 is not allowed"),
        ({"rank": 2, "world_size": 2}, InputError, "rank=2 of world_size=2 is not allowed"),
        ({"rank": 1}, InputError, "rank=1 of world_size=None is not allowed; give both"),
        ({"batch_size": 2.5}, InputError, "batch_size=2.5 is not allowed; give at least 1, a wh"),
        ({"image_size": (8, 8)}, InputError, r"image_size=\(8, 8\) is not allowed"),
        ({"name": 5}, InputError, "name=5 is not allowed; give text"),
        ({"normalization": 0.5}, InputError, "normalization=0.5 is not allowed; give"),
        ({"cache_dir": 5}, InputError, "cache_dir=5 is no path; give text or a pathlib.Path"),
        ({"dataset": {"train": Pictures()}}, InputError, "dict is not .* it holds 'train'; give"),
        ({"dataset": "photos/"}, InputError, "str is not .*: give a data set, such as .*Folder"),
        ({"dataset": np.zeros((4, 8, 8, 3))}, InputError, "ndarray is not .* it holds no labels"),
        ({"dataset": torch.zeros(4, 3, 8, 8)}, InputError, "Tensor is not .*TensorDataset"),
        (
            {"dataset": torch.utils.data.DataLoader(Pictures())},
            InputError,
            "DataLoader is not a data set of images: it shuffles .*; give .* loader.dataset",
        ),
        ({"device": 1.5}, InputError, "device 1.5 is not known; give 'cpu' or 'cuda'"),
        ({"device": "gpu"}, InputError, "device 'gpu' is not known; give 'cpu' or 'cuda'"),
        ({"backbone": nn.Identity()}, InputError, r"gives \(1, 3, 8, 8\) for one image, expected"),
        (
            {"backbone": nn.utils.skip_init(nn.Linear, 7, 2)},
            InputError,
            "Linear cannot take images of 8 pixels",
        ),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(changes, error, message, tmp_path):
    cache = changes.pop("cache_dir", tmp_path / "cache")
    with pytest.raises(error, match=message):
        extract(cache, **changes)
    assert not (tmp_path / "cache").exists()


def test_numbers_paths_and_devices_of_other_types_are_taken(tmp_path):
    whole = extract(tmp_path / "a")
    store = extract(
        str(tmp_path / "b"), batch_size=4.0, shard_rows=np.int32(8), workers=np.uint8(0),
        image_size=np.float32(8), device=torch.device("cpu"), rank=np.int64(0), world_size=1.0,
    )  # fmt: skip
    assert content(store.path) == content(whole.path)


def test_a_tensor_data_set(tmp_path):
    images = torch.arange(4 * 192, dtype=torch.float32).remainder(256).to(torch.uint8)
    pairs = torch.utils.data.TensorDataset(images.view(4, 3, 8, 8), torch.tensor([2, 0, 1, 2]))
    store = extract(tmp_path, pairs, nn.Flatten())
    assert store.labels.tolist() == [2, 0, 1, 2]
    expected = EvaluationTransform(8)(read_item(pairs, 3)[0]).flatten().half().numpy()
    assert np.array_equal(store.features[3], expected)


def test_features_that_become_nothing_are_said(tmp_path, caplog):
    class Tiny(nn.Module):
        def forward(self, images):
            return images.flatten(1)[:, :5] * 1e-12

    extract(tmp_path, backbone=Tiny())
    assert caplog.text.count("below what float16 holds") == 1
    assert "the features of example 0 by Tiny" in caplog.text


def test_cuda_is_refused_where_there_is_none(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="device cuda is not allowed: torch sees no GPU here"):
        extract(tmp_path, device="cuda")


def test_a_backbone_whose_rows_depend_on_the_batch_is_refused(tmp_path):
    class Sums(nn.Module):
        def forward(self, images):
            return images.flatten(1).sum(0, keepdim=True)

    with pytest.raises(InputError, match=r"gives \(1, 192\) for 4 images, expected \(4, 192\)"):
        extract(tmp_path, backbone=Sums())
    assert list(tmp_path.iterdir()) == []


def test_weights_from_a_file(tmp_path, digits):
    network = build_backbone("efficientnet-lite0", image_size=32)
    state = network.body.state_dict()
    with pytest.raises(InputError, match=r"weights file .*none.pt does not exist"):
        extract_features(digits, "resnet18", weights=tmp_path / "none.pt", cache_dir=tmp_path)
    torch.save(state, tmp_path / "weights.pt")
    store = extract_features(
        digits.part(np.arange(3)), "efficientnet-lite0", weights=str(tmp_path / "weights.pt"),
        image_size=32, cache_dir=tmp_path / "cache",
    )  # fmt: skip
    assert store.manifest["weights"] == network.identity()
    assert content(store.path)
