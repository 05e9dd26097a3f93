"""What a store refuses, and what it costs to open a large one."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import time
import tracemalloc

import numpy as np
import pytest
import torch
from helpers.feature_examples import (
    BEFORE,
    ROWS,
    SHARD_ROWS,
    WIDTH,
    Pictures,
    content,
    extract,
    tiny_backbone,
)

from saln.errors import DataError, InputError
from saln.features import verification
from saln.features.backbones import build_network
from saln.features.manifest import FORMAT_VERSION, SIGNATURE, read_manifest, shard_checksum
from saln.features.store import FeatureStore
from saln.files import signed


@pytest.fixture
def path(tmp_path):
    return extract(tmp_path / "cache").path


def change_manifest(path, **changes):
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps(signed(manifest | changes, key=SIGNATURE)))


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
        ({"normalization": (0.1, 0.2)}, "the preprocessing was .* and is .* now"),
        ({"mixed_precision": True}, "the precision was float32 and is mixed now"),
        ({"dataset": Pictures(ROWS - 1)}, "the number of examples was 46 and is 45 now"),
        ({"dataset": Pictures(shift=1)}, "the data set .names, sizes, order or labels.* was"),
    ],
)
def test_a_store_of_something_else_is_refused(path, change, reason):
    """Given the store's own folder; given the folder above, another store is made beside."""
    if "normalization" in change:
        from saln.data.transforms import Normalization

        mean, std = change["normalization"]
        change = {"normalization": Normalization((mean,) * 3, (std,) * 3)}
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


def flip(path, name, place):
    data = bytearray((path / name).read_bytes())
    data[place] ^= 1
    (path / name).write_bytes(data)


# Row 36 is in the fifth shard of six.
IN_THE_FIFTH = -2 * WIDTH * 10
ARRAYS = {
    "a changed row": ("features.npy", 1, lambda path: flip(path, "features.npy", IN_THE_FIFTH)),
    "a changed label": ("labels.npy", 1, lambda path: flip(path, "labels.npy", -8 * 10)),
    "a huge label": ("labels.npy", 1, lambda path: flip(path, "labels.npy", -8 * 10 + 6)),
    "a changed header": ("features.npy", 0, lambda path: flip(path, "features.npy", 20)),
    "a header of nothing": ("labels.npy", 0, lambda path: flip(path, "labels.npy", 8)),
    "most of the features": ("features.npy", 1, lambda path: cut(path, "features.npy", 0.9)),
    "no features": ("features.npy", 6, lambda path: (path / "features.npy").unlink()),
    "empty labels": ("labels.npy", 6, lambda path: cut(path, "labels.npy", 0)),
    "most of the labels": ("labels.npy", 2, lambda path: cut(path, "labels.npy", 0.8)),
    "too many features": (
        "features.npy",
        0,
        lambda path: (path / "features.npy").write_bytes(
            (path / "features.npy").read_bytes() + b"more"
        ),
    ),
    "a column less": (
        "features.npy",
        6,
        lambda path: np.save(path / "features.npy", np.zeros((ROWS, 4), np.float16)),
    ),
    "float32": (
        "features.npy",
        6,
        lambda path: np.save(path / "features.npy", np.zeros((ROWS, WIDTH), np.float32)),
    ),
    "a pickle": ("labels.npy", 6, lambda path: np.save(path / "labels.npy", np.array([None] * 9))),
    "other labels": (
        "labels.npy",
        6,
        lambda path: np.save(path / "labels.npy", np.zeros(3, dtype=np.int64)),
    ),
}
MANIFESTS = {
    "half a manifest": lambda path: cut(path, "manifest.json", 0.5),
    "an empty manifest": lambda path: cut(path, "manifest.json", 0),
    "no object": lambda path: (path / "manifest.json").write_text("[]"),
    "too deep": lambda path: (path / "manifest.json").write_text("[" * 100_000),
    "no UTF-8": lambda path: (path / "manifest.json").write_bytes(b"\xff\xfe{}"),
    "no manifest": lambda path: (path / "manifest.json").unlink(),
    "a lacking key": lambda path: (path / "manifest.json").write_text(
        json.dumps({"format_version": FORMAT_VERSION})
    ),
    "a wrong count": lambda path: change_manifest(path, rows_done=7),
    "no rows": lambda path: change_manifest(path, rows=0),
    "rows beyond counting": lambda path: change_manifest(path, rows=10**30, shard_rows=10**30),
    "a checksum less": lambda path: change_manifest(path, checksums=["0"]),
    "a checksum that is none": lambda path: change_manifest(path, checksums=[1] * 6),
    "a changed letter": lambda path: (path / "manifest.json").write_text(
        (path / "manifest.json").read_text().replace("tiny", "tony")
    ),
}


@pytest.mark.parametrize("damage", MANIFESTS)
def test_a_broken_manifest_is_refused_with_the_cure(path, damage):
    MANIFESTS[damage](path)
    with pytest.raises(DataError, match=r"manifest.json.*(delete the folder|Delete the folder)"):
        FeatureStore.open(path)
    before = content(path)
    with pytest.raises(DataError, match=r"manifest.json.*(delete the folder|Delete the folder)"):
        extract(path.parent)
    assert content(path) == before  # nothing is overwritten


@pytest.mark.parametrize("damage", ARRAYS)
def test_a_damaged_array_is_refused_and_only_its_damaged_shards_are_made_anew(path, damage):
    whole = content(path)
    name, shards, change = ARRAYS[damage]
    change(path)
    with pytest.raises(DataError, match=rf"is damaged \({name}.*run .*extract_features.* again"):
        FeatureStore.open(path)
    seen = []
    store = extract(path.parent, Pictures(read=seen.append))
    assert content(store.path) == whole
    computed = seen[BEFORE:]
    if shards == 1:
        assert computed == list(range(40, ROWS) if "most" in damage else range(32, 40))
    assert len({row // SHARD_ROWS for row in computed}) == shards
    assert store.labels.tolist() == [index % 3 for index in range(ROWS)]


def test_the_message_says_which_shard_is_damaged(path):
    flip(path, "features.npy", IN_THE_FIFTH)
    for again in range(2):  # what was found out once is not forgotten, nor taken for granted
        with pytest.raises(
            DataError, match=r"features.npy: rows 32 to 39 are not .* shard 4 of 0 to 5\)"
        ):
            FeatureStore.open(path)
        assert again in (0, 1)


def test_a_damaged_part_of_an_unfinished_store_is_made_anew(path):
    whole = content(path)
    manifest = json.loads((path / "manifest.json").read_text())
    checksums = [*manifest["checksums"][:5], None]
    change_manifest(path, checksums=checksums, rows_done=40)
    cut(path, "features.npy", 0.8)
    seen = []
    assert content(extract(path.parent, Pictures(read=seen.append)).path) == whole
    assert seen[BEFORE:] == list(range(32, ROWS))


def test_rows_are_read_once_and_again_when_their_file_has_changed(path, monkeypatch):
    read = []
    agree = verification._rows_agree

    def counted(manifest, number, *arrays):
        read.append(number)
        return agree(manifest, number, *arrays)

    monkeypatch.setattr(verification, "_rows_agree", counted)
    FeatureStore.open(path)
    FeatureStore.open(path)
    assert read == [*range(6), *range(6)]  # a file just written may change within a tick
    assert not (path / "verified.json").exists()
    monkeypatch.setattr(verification, "_TICK_NS", -1)
    FeatureStore.open(path)
    del read[:]
    FeatureStore.open(path)
    assert read == []
    verification._known.clear()  # as in another process
    FeatureStore.open(path)
    assert read == []
    time.sleep(0.05)  # more than a tick of the clock
    flip(path, "features.npy", IN_THE_FIFTH)
    with pytest.raises(DataError, match="shard 4 of 0 to 5"):
        FeatureStore.open(path)
    (path / "verified.json").write_text("[" * 100_000)
    time.sleep(0.05)  # more than a tick of the clock
    flip(path, "features.npy", IN_THE_FIFTH)
    assert len(FeatureStore.open(path)) == ROWS
    stamp = (path / "features.npy").stat()
    time.sleep(0.05)  # more than a tick of the clock
    flip(path, "features.npy", IN_THE_FIFTH)
    os.utime(path / "features.npy", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    with pytest.raises(DataError, match="shard 4 of 0 to 5"):  # the time of the change is kept
        FeatureStore.open(path)


def test_on_a_disk_that_is_only_read_what_was_verified_is_known_to_the_process(path, monkeypatch):
    monkeypatch.setattr(verification, "_TICK_NS", -1)

    def read_only(place, *arguments, **options):
        raise DataError(f"{place} cannot be written (Read-only file system)")

    monkeypatch.setattr(verification, "write_text", read_only)
    FeatureStore.open(path)
    assert not (path / "verified.json").exists()
    monkeypatch.setattr(verification, "_rows_agree", None)
    assert len(FeatureStore.open(path)) == ROWS


def test_verify_reads_every_row_again(path, monkeypatch):
    monkeypatch.setattr(verification, "_TICK_NS", -1)
    store = FeatureStore.open(path)
    store.verify()
    agree = []
    monkeypatch.setattr(verification, "_rows_agree", lambda *of: agree.append(of[1]) or of[1] != 4)
    with pytest.raises(DataError, match="rows 32 to 39 are not what was written"):
        store.verify()
    assert agree == list(range(6))


def test_a_store_of_the_format_before_is_opened_and_mended(path):
    manifest = json.loads((path / "manifest.json").read_text())
    features, labels = (np.load(path / f"{name}.npy") for name in ("features", "labels"))
    for key in ("skipped", "class_names", "manifest_checksum"):
        del manifest[key]
    shards = [slice(first, first + SHARD_ROWS) for first in range(0, ROWS, SHARD_ROWS)]
    manifest["checksums"] = [
        hashlib.blake2b(features[s].tobytes() + labels[s].tobytes(), digest_size=8).hexdigest()
        for s in shards
    ]
    manifest["format_version"] = 2
    (path / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
    whole = content(path)
    store = FeatureStore.open(path)
    store.verify()
    assert np.array_equal(store.features, features)
    assert store.manifest == manifest
    assert extract(path.parent).path == path
    flip(path, "labels.npy", -8 * 10)
    with pytest.raises(DataError, match=r"features.npy or labels.npy: rows 32 to 39"):
        FeatureStore.open(path)
    assert content(extract(path.parent).path) == whole


@pytest.mark.parametrize("text", ["", "[]", '{"seconds": 5}', '{"seconds": {"0": "long"}}', None])
def test_seconds_that_are_lost_stop_nothing(path, text, caplog):
    if text is None:
        (path / "timing.json").unlink()
    else:
        (path / "timing.json").write_text(text)
    store = FeatureStore.open(path)
    assert len(store) == ROWS
    assert store.seconds == 0
    assert "does not say how long 6 of 6 shards took; its features count as 0 s" in caplog.text
    (path / "timing.json").write_text('{"seconds": {"0": 1.5, "2": 0.5}}')
    assert FeatureStore.open(path).seconds == 6.0


def test_another_format_version_is_refused(path):
    change_manifest(path, format_version=99)
    with pytest.raises(
        DataError, match=r"has format version 99 .* this SALN reads 2 and 3; delete"
    ):
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
    nothing = shard_checksum(np.zeros(0, np.float16), np.zeros(shard_rows, np.int64))
    checksums = [nothing] * (shards - 1)
    checksums.append(shard_checksum(np.zeros(0, np.float16), np.zeros(rows % shard_rows, np.int64)))
    change_manifest(
        path, rows=rows, width=width, shard_rows=shard_rows, rows_done=rows, checksums=checksums
    )
    # As it is noted when the rows have been read once.
    stamp = verification._stamp_of(read_manifest(path), [path / "features.npy"])
    (path / "verified.json").write_text(json.dumps(stamp))
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
