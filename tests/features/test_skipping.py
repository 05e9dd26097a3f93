"""Examples that cannot be read: named, or listed and never chosen."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.feature_examples import (
    BATCH,
    BEFORE,
    ROWS,
    SHARD_ROWS,
    Pictures,
    content,
    extract,
    extract_broken_as_rank,
    tiny_backbone,
)
from torch.utils.data import ConcatDataset, DataLoader, Subset

import saln
from saln._torchvision import torchvision
from saln.data.file_names import name_of
from saln.errors import DataError, InputError
from saln.features.extraction import extract_features, plan_extraction
from saln.features.store import FeatureStore
from saln.integrations.ray import _Extractor

BROKEN = (5, 20, 21, 22, 23, 45)  # a row, a whole batch, the last one


def broken(rows=BROKEN, seen=None):
    """Pictures some of which cannot be read; ``seen`` is told what is asked for."""

    def read(index):
        if seen is not None:
            seen.append(index)
        if index in rows:
            raise OSError("image file is truncated at <_io.BytesIO object at 0x7f12ab34cd56>")

    return Pictures(read=read)


@pytest.fixture
def photos(image_folder):
    """A folder whose 41st picture is cut, and that picture's path."""
    path = sorted((image_folder / "red").iterdir())[10]
    path.write_bytes(path.read_bytes()[:100])
    return torchvision.datasets.ImageFolder(str(image_folder)), path


@pytest.mark.parametrize("workers", [0, 2])
def test_the_file_is_named_and_the_cure(photos, tmp_path, workers):
    dataset, path = photos
    with pytest.raises(DataError) as caught:
        extract_features(
            dataset, "pixels", image_size=8, cache_dir=tmp_path / "cache", workers=workers
        )
    assert f"example 40 of ImageFolder ({path}) cannot be read (OSError" in str(caught.value)
    assert "unreadable='skip'" in str(caught.value)
    assert list((tmp_path / "cache").iterdir()) == []


# Pillow leaves a file open that it cannot read to its end.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_data_sets_of_every_kind_say_their_files_names(photos, tmp_path):
    import datasets

    dataset, path = photos
    assert name_of(dataset, 40) == str(path)
    assert name_of(Subset(dataset, [3, 40]), 1) == str(path)
    assert name_of(ConcatDataset([Subset(dataset, [3, 4]), dataset]), 42) == str(path)
    ours = saln.data.datasets.load_dataset(f"folder:{path.parents[1]}").train
    place = [name_of(ours, index) for index in range(len(ours))].index("red/10.png")
    assert int(ours.rows[place]) == 40
    table = datasets.Dataset.from_dict({"image": [str(path)], "label": [0]})
    table = table.cast_column("image", datasets.Image())
    assert name_of(table, 0) == f"row 0, {path}"
    with pytest.raises(DataError, match=r"example 0 of Dataset \(row 0, .*10.png\) cannot be read"):
        extract_features(table, "pixels", image_size=8, cache_dir=tmp_path / "cache")
    assert name_of(Pictures(), 3) is None
    listed = Pictures()
    listed.samples = [("a.png", 0)]
    assert name_of(listed, 3) is None  # a list that is not of its examples


@pytest.mark.parametrize("workers", [0, 2])
def test_what_cannot_be_read_is_listed_and_the_rest_is_as_ever(tmp_path, workers):
    whole = extract(tmp_path / "whole")
    store = extract(tmp_path / "some", broken(), unreadable="skip", workers=workers)
    assert [entry.row for entry in store.skipped] == list(BROKEN)
    assert store.skipped[0].file == "example 5"
    assert store.skipped[0].reason == ("OSError: image file is truncated at <_io.BytesIO object>")
    kept = [row for row in range(ROWS) if row not in BROKEN]
    assert store.readable.tolist() == kept
    assert np.array_equal(store.features[kept], whole.features[kept])
    assert np.isnan(store.features[list(BROKEN)]).all()
    assert store.labels.tolist() == [-1 if row in BROKEN else row % 3 for row in range(ROWS)]
    assert whole.readable is None
    assert len(whole.skipped) == 0
    again = FeatureStore.open(store.path)
    again.verify()
    assert again.skipped == store.skipped
    manifest = json.loads((store.path / "manifest.json").read_text())
    assert manifest["skipped"][5] == {
        "row": 45, "file": "example 45", "reason": store.skipped[0].reason
    }  # fmt: skip


def test_finished_shards_are_kept_when_skipping_is_asked_for_later(tmp_path):
    with pytest.raises(DataError, match="example 20 of Pictures cannot be read"):
        extract(tmp_path, broken((20,)))
    seen = []
    store = extract(tmp_path, broken((20,), seen), unreadable="skip")
    assert seen[BEFORE:] == list(range(2 * SHARD_ROWS, ROWS))
    assert [entry.row for entry in store.skipped] == [20]
    del seen[:]
    assert extract(tmp_path, broken((20,), seen), unreadable="skip").skipped == store.skipped
    assert len(seen) == BEFORE  # nothing is computed
    with pytest.raises(DataError, match=r"lacks 1 examples .* example 20 \(OSError.*unreadable="):
        extract(tmp_path, broken((20,)))


def test_a_store_begun_with_skipping_is_not_finished_without(tmp_path):
    def stop(progress):
        if progress.rows_done == 24:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract(tmp_path, broken((1,)), unreadable="skip", progress=stop)
    with pytest.raises(DataError, match="lacks 1 examples"):
        extract(tmp_path, broken((1,)))
    store = extract(tmp_path, broken((1,)), unreadable="skip")
    assert [entry.row for entry in store.skipped] == [1]


def test_a_damaged_shard_lists_its_skipped_rows_once(tmp_path):
    store = extract(tmp_path, broken(), unreadable="skip")
    whole = content(store.path)
    data = bytearray(whole["labels.npy"])
    data[-8 * (ROWS - 5)] ^= 1
    (store.path / "labels.npy").write_bytes(data)
    again = extract(tmp_path, broken(), unreadable="skip")
    assert again.skipped == store.skipped
    assert content(store.path) == whole


def test_ranks_list_what_each_of_them_skipped(tmp_path):
    for rank in (1, 0):
        store = extract(tmp_path, broken(), unreadable="skip", rank=rank, world_size=2)
    assert [entry.row for entry in store.skipped] == list(BROKEN)


def test_nothing_that_can_be_read_is_no_store(tmp_path):
    for _ in range(2):
        with pytest.raises(DataError, match="no example of the data set can be read, the first ex"):
            extract(tmp_path, broken(range(ROWS)), unreadable="skip")


def test_another_form_of_example_is_never_skipped(tmp_path):
    class Odd(Pictures):
        def __getitem__(self, index):
            image, label = super().__getitem__(index)
            return image, 0.5 if index == 28 else label

    with pytest.raises(InputError, match=r"example 28 of Odd cannot be used: its label is 0\.5"):
        extract(tmp_path, Odd(), unreadable="skip")
    with pytest.raises(InputError, match="unreadable='ignore' is not allowed; give 'raise' or"):
        extract(tmp_path, unreadable="ignore")


@pytest.fixture
def store(tmp_path):
    return extract(tmp_path, broken(), unreadable="skip")


@pytest.mark.parametrize("selector", [saln.Uniform, saln.SALN, saln.BatchCoherence, saln.Coherence])
@pytest.mark.parametrize("ratio", [0.0, 0.5])
@pytest.mark.filterwarnings("ignore:coherence chooses at random")  # the pictures are noise
def test_batches_never_name_what_is_skipped(store, selector, ratio):
    batches = saln.SelectedBatches(
        store, selector=selector(), batch_size=5, filter_ratio=ratio, seed=0, dataset=broken()
    )
    named = set()
    for epoch in range(4):
        batches.set_epoch(epoch)
        found = list(batches)
        assert len(found) == len(batches) == (ROWS - len(BROKEN)) // (5 if ratio == 0 else 10)
        assert len({row for batch in found for row in batch}) == 5 * len(found)
        named |= {row for batch in found for row in batch}
    assert named <= set(store.readable.tolist())
    if ratio == 0:
        assert named == set(store.readable.tolist())


def test_batches_resume_among_what_can_be_read(store):
    def batches():
        return saln.SelectedBatches(
            store, selector=saln.SALN(), batch_size=4, filter_ratio=0.5, seed=3
        )

    whole = list(batches())
    stopped = batches()
    iterator = iter(stopped)
    first = [next(iterator) for _ in range(2)]
    again = batches()
    again.load_state_dict(stopped.state_dict(steps=2))
    assert first + list(again) == whole
    loader = DataLoader(Pictures(), batch_sampler=batches(), collate_fn=len,
                        generator=torch.Generator())  # fmt: skip
    assert list(loader) == [4] * 5
    state = stopped.state_dict() | {"examples": ROWS}
    with pytest.raises(InputError, match="saved with examples 46, here it is 40"):
        batches().load_state_dict(state)


def test_more_candidates_than_can_be_read_are_refused(store):
    with pytest.raises(InputError, match="needs 42 candidates, but there are 40 examples"):
        saln.SelectedBatches(store, selector=saln.SALN(), batch_size=21, filter_ratio=0.5, seed=0)


def test_beliefs_are_of_what_can_be_read(store, tmp_path):
    from saln.selection.neighbor_beliefs import store_beliefs

    beliefs = store_beliefs(store)
    rows = store.readable
    alone = saln.write_store(tmp_path / "alone", store.features[rows], store.labels[rows])
    expected = store_beliefs(alone)
    assert torch.equal(beliefs.confidence[rows], expected.confidence)
    assert torch.equal(beliefs.believed[rows], expected.believed)
    assert beliefs.confidence[list(BROKEN)].tolist() == [0.0] * len(BROKEN)


def test_a_stream_leaves_out_what_is_skipped(store):
    keys = [f"photo-{row}" for row in range(ROWS)]

    def stream(**options):
        source = [(key, row) for row, key in enumerate(keys)]
        return saln.SelectedStream(
            source, features=store, keys=keys, selector=saln.SALN(), batch_size=5,
            filter_ratio=0.5, seed=0, as_batches=False, **options,
        )  # fmt: skip

    found = list(stream())
    assert list(stream(skip_unknown=True)) == found
    assert len(found) == len(set(found)) == 20
    assert not set(found) & set(BROKEN)


@pytest.mark.parametrize("selector", [saln.SALN, saln.Coherence])
def test_select_never_writes_what_is_skipped(store, selector, tmp_path):
    import pyarrow.parquet

    result = saln.select(
        store.path, selector=selector(), candidates=10, filter_ratio=0.5, seed=0,
        out=tmp_path / "kept.parquet",
    )  # fmt: skip
    table = pyarrow.parquet.read_table(tmp_path / "kept.parquet")
    assert result.kept == len(table) == 20
    assert set(table["id"].to_pylist()) <= set(store.readable.tolist())
    assert table["label"].to_pylist() == [row % 3 for row in table["id"].to_pylist()]
    if selector is saln.Coherence:
        assert -1 not in table["believed_label"].to_pylist()
        rows = [entry["row"] for entry in json.loads(result.labels.read_text())["labels"]]
        assert not set(rows) & set(BROKEN)


def test_on_the_command_line(photos, tmp_path, capsys, monkeypatch):
    from saln.cli import main

    _, path = photos
    command = [
        "features", "--dataset", f"folder:{path.parents[1]}", "--backbone", "pixels",
        "--feature-size", "8", "--cache-dir", str(tmp_path / "cache"),
    ]  # fmt: skip
    assert main(command) == 1
    assert "10.png cannot be read" in capsys.readouterr().err
    assert main([*command, "--skip-unreadable"]) == 0
    assert "skipped  1 that cannot be read, the first red/10.png; manif" in capsys.readouterr().out
    assert main([*command, "--skip-unreadable", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [entry["file"] for entry in found["skipped"]] == ["red/10.png"]
    assert found["rows_computed"] == 0
    assert FeatureStore.open(Path(found["path"])).skipped[0].file == "red/10.png"


def test_an_actor_of_ray_lists_them_too(tmp_path):
    plan = plan_extraction(
        broken(), tiny_backbone(), cache_dir=tmp_path, image_size=8, batch_size=BATCH,
        unreadable="skip", rank=0, world_size=1,
    )  # fmt: skip
    whole = extract(tmp_path / "whole")
    features, labels, skipped, _ = _Extractor(plan.job, None, "").compute(range(16, 24))
    assert [entry.row for entry in skipped] == [20, 21, 22, 23]
    assert np.array_equal(features[:4], whole.features[16:20])
    assert np.isnan(features[4:]).all()
    assert labels.tolist() == [1, 2, 0, 1, -1, -1, -1, -1]


def test_ranks_at_once_skip_the_same(start, tmp_path):
    """In processes: the manifest's list is of both, in order."""
    children = [
        start(extract_broken_as_rank, tmp_path / "cache", rank, BROKEN) for rank in range(2)
    ]
    answers = [pipe.recv() for _, pipe in children]
    for process, _ in children:
        assert process.wait() == 0
    alone = extract(tmp_path / "alone", broken(), unreadable="skip")
    assert answers == [[entry.row for entry in alone.skipped]] * 2
    (folder,) = (tmp_path / "cache").iterdir()
    assert content(folder) == content(alone.path)


def test_an_example_whose_features_are_not_finite_is_named_by_its_file(image_folder, tmp_path):
    dataset = torchvision.datasets.ImageFolder(str(image_folder))

    class Breaks(torch.nn.Module):
        def forward(self, images):
            return images.flatten(1)[:, :3] / 0

    with pytest.raises(DataError, match=r"example 0 \(.*blue/00.png\) by Breaks-.* hold NaN"):
        extract(tmp_path / "cache", dataset, Breaks())
