"""What a store refuses, and what it costs to open a large one."""

from __future__ import annotations

import json
import pickle
import shutil
import tracemalloc

import numpy as np
import pytest
import torch
from feature_examples import ROWS, WIDTH, Pictures, content, extract, tiny_backbone

from saln.errors import DataError, InputError
from saln.features.backbones import build_network
from saln.features.store import FORMAT_VERSION, FeatureStore


@pytest.fixture
def path(tmp_path):
    return extract(tmp_path / "cache").path


def change_manifest(path, **changes):
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps(manifest | changes))


def test_a_store_opens_as_it_was_made(path):
    store = FeatureStore.open(path)
    assert (store.features.shape, store.features.dtype) == ((ROWS, WIDTH), np.float16)
    assert store.labels.tolist() == [index % 3 for index in range(ROWS)]
    assert not store.features.flags.writeable
    assert not store.labels.flags.writeable
    assert store.manifest["rows_done"] == store.manifest["rows"] == len(store) == ROWS
    assert store.manifest["dataset"] == "tiny"
    assert store.manifest["preprocessing"]["image_size"] == 8
    assert set(content(path)) == {"features.npy", "labels.npy", "manifest.json"}
    assert np.array_equal(np.load(path / "features.npy", allow_pickle=False), store.features)


def test_to_another_process_goes_the_path(path):
    store = FeatureStore.open(path)
    data = pickle.dumps(store)
    assert len(data) < 1000
    assert np.array_equal(pickle.loads(data).features, store.features)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"backbone": tiny_backbone(seed=1)}, "the backbone's weights was .* and is .* now"),
        ({"backbone": torch.nn.Flatten()}, "the backbone was Sequential-.* and is Flatten-.* now"),
        ({"normalisation": (0.1, 0.2)}, "the preprocessing was .* and is .* now"),
        ({"mixed_precision": True}, "the precision was float32 and is mixed now"),
        ({"dataset": Pictures(ROWS - 1)}, "the number of examples was 46 and is 45 now"),
        ({"dataset": Pictures(shift=1)}, "the data set .names, sizes, order or labels.* was"),
    ],
)
def test_a_store_of_something_else_is_refused(path, change, reason):
    """Given the store's own folder; given the folder above, another store is made beside."""
    if "normalisation" in change:
        from saln.data.augmentation import Normalisation

        mean, std = change["normalisation"]
        change = {"normalisation": Normalisation((mean,) * 3, (std,) * 3)}
    before = content(path)
    with pytest.raises(DataError, match=rf"{reason}.*or delete the folder .* and run again"):
        extract(path, **change)
    assert content(path) == before
    assert extract(path).path == path
    other = extract(path.parent, **change)
    assert other.path != path
    assert content(path) == before


def test_expecting_a_backbone(path):
    name = FeatureStore.open(path).manifest["backbone"]
    assert len(FeatureStore.open(path, expected={"backbone": name})) == ROWS
    with pytest.raises(DataError, match=r"the backbone was Sequential.* and is resnet50 now"):
        FeatureStore.open(path, expected={"backbone": "resnet50"})
    with pytest.raises(InputError, match="cannot be expected to have 'network'; choose among rows"):
        FeatureStore.open(path, expected={"network": "resnet50"})


def test_a_data_set_that_changed_is_noticed(path):
    store = FeatureStore.open(path)
    store.check(Pictures())
    with pytest.raises(DataError, match=r"has 45 examples and .* 46 rows; extract"):
        store.check(Pictures(ROWS - 1))
    with pytest.raises(DataError, match="names, sizes, order or labels of its examples differ"):
        store.check(Pictures(shift=1))


def cut(path, name, keep):
    data = (path / name).read_bytes()
    (path / name).write_bytes(data[: int(len(data) * keep)])


DAMAGES = {
    "half the features": lambda path: cut(path, "features.npy", 0.9),
    "no features": lambda path: (path / "features.npy").unlink(),
    "empty labels": lambda path: cut(path, "labels.npy", 0),
    "half the labels": lambda path: cut(path, "labels.npy", 0.8),
    "too many features": lambda path: (path / "features.npy").write_bytes(
        (path / "features.npy").read_bytes() + b"more"
    ),
    "a column less": lambda path: np.save(path / "features.npy", np.zeros((ROWS, 4), np.float16)),
    "float32": lambda path: np.save(path / "features.npy", np.zeros((ROWS, WIDTH), np.float32)),
    "a pickle": lambda path: np.save(path / "labels.npy", np.array([None] * ROWS)),
    "other labels": lambda path: np.save(path / "labels.npy", np.zeros(3, dtype=np.int64)),
    "half a manifest": lambda path: cut(path, "manifest.json", 0.5),
    "no object": lambda path: (path / "manifest.json").write_text("[]"),
    "no manifest": lambda path: (path / "manifest.json").unlink(),
    "no timing": lambda path: (path / "timing.json").unlink(),
    "a lacking key": lambda path: (path / "manifest.json").write_text(
        json.dumps({"format_version": FORMAT_VERSION})
    ),
    "a wrong count": lambda path: change_manifest(path, rows_done=7),
    "no rows": lambda path: change_manifest(path, rows=0),
    "a checksum less": lambda path: change_manifest(path, checksums=["0"]),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_store_is_refused_with_the_cure(path, damage):
    DAMAGES[damage](path)
    with pytest.raises(DataError, match=r"delete the folder|Delete the folder"):
        FeatureStore.open(path)
    before = content(path)
    with pytest.raises(DataError, match=r"delete the folder|Delete the folder"):
        extract(path.parent)
    assert content(path) == before  # nothing is overwritten


def test_a_damaged_part_of_an_unfinished_store_is_refused(path):
    manifest = json.loads((path / "manifest.json").read_text())
    checksums = [*manifest["checksums"][:3], None, None, None]
    change_manifest(path, checksums=checksums, rows_done=24)
    cut(path, "features.npy", 0.9)
    with pytest.raises(DataError, match=r"is damaged .* delete the folder"):
        extract(path.parent)


def test_verify_finds_a_changed_byte(path):
    FeatureStore.open(path).verify()
    data = bytearray((path / "features.npy").read_bytes())
    data[-2 * WIDTH * 10] ^= 1  # ten rows before the end, in the fifth shard
    (path / "features.npy").write_bytes(data)
    with pytest.raises(DataError, match="rows 32 to 39 are not what was written"):
        FeatureStore.open(path).verify()


def test_another_format_version_is_refused(path):
    change_manifest(path, format_version=99)
    with pytest.raises(DataError, match=f"has format version 99, this SALN reads {FORMAT_VERSION}"):
        FeatureStore.open(path)


def test_a_folder_without_a_store(tmp_path):
    with pytest.raises(DataError, match="holds no feature store; make one with"):
        FeatureStore.open(tmp_path / "nothing")


def test_a_folder_of_something_else_is_left_alone(path, tmp_path):
    shutil.rmtree(path)
    path.mkdir()
    (path / "thesis.txt").write_text("mine")
    with pytest.raises(DataError, match=r"holds thesis.txt but no manifest.json"):
        extract(path.parent)
    assert (path / "thesis.txt").read_text() == "mine"


def test_a_store_as_large_as_imagenet_opens_without_being_read(path):
    """1,281,167 x 2,048 in a file with holes: 5 GiB that are never touched."""
    rows, width, shard_rows = 1_281_167, 2048, 1024
    for name, shape, dtype in (
        ("features.npy", (rows, width), np.float16),
        ("labels.npy", (rows,), np.int64),
    ):
        with (path / name).open("wb") as stream:
            header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(stream, header)
            stream.truncate(stream.tell() + int(np.prod(shape)) * np.dtype(dtype).itemsize)
    shards = -(-rows // shard_rows)
    change_manifest(
        path, rows=rows, width=width, shard_rows=shard_rows, rows_done=rows,
        checksums=["0" * 16] * shards,
    )  # fmt: skip
    tracemalloc.start()
    store = FeatureStore.open(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert store.features.shape == (rows, width)
    assert peak < 32 * 2**20  # the labels, and no rows
    assert store.features[rows - 1, :3].tolist() == [0, 0, 0]


def test_the_hash_of_weights_that_numpy_has_no_type_for():
    network = build_network("small-cnn", image_size=16, pretrained=False)
    network.body.to(torch.bfloat16)
    before = network.identity()
    with torch.no_grad():
        next(network.body.parameters())[0, 0, 0, 0] += 1
    assert network.identity() != before
