"""120 random damages of a feature store: the same rows as undamaged, or one clear line."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from helpers.damages import damage, files_of
from helpers.feature_examples import content, extract

import saln
from saln.errors import SalnError
from saln.features.store import FeatureStore

FILES = ["features.npy", "labels.npy", "manifest.json", "timing.json", "verified.json"]


def chosen(store):
    """What a small selection, and the rows themselves, are."""
    batches = saln.SelectedBatches(
        store, selector=saln.BatchCoherence(), batch_size=4, filter_ratio=0.5, seed=0
    )
    return list(batches), store.features.tobytes(), store.labels.tolist()


def attempt(work):
    """What it gives, or None and the message."""
    try:
        return work(), None
    except SalnError as error:
        return None, str(error)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A store that has been verified, as those that are used have been."""
    path = extract(tmp_path_factory.mktemp("whole")).path
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("saln.features.verification._TICK_NS", -1)
        FeatureStore.open(path)
    assert files_of(path) == FILES
    return path


def test_the_same_rows_or_one_line_that_names_file_and_cure(whole, tmp_path):
    expected = chosen(FeatureStore.open(whole))
    files = content(whole)
    random = np.random.Generator(np.random.PCG64(20))
    outcomes = {"the same": 0, "refused": 0}
    kinds = set()
    for number in range(120):
        cache = tmp_path / f"{number}"
        path = cache / whole.name
        shutil.copytree(whole, path)
        done = damage(path, random)
        kinds.add((done.name, done.kind))
        after = {name: (path / name).read_bytes() for name in files_of(path)}
        found, said = attempt(lambda path=path: FeatureStore.open(path))
        if said:
            assert len(said.splitlines()) == 1, done
            assert done.name in said, (done, said)
            assert "run" in said, (done, said)
            assert "delete the folder" in said.lower(), (done, said)
        else:
            assert chosen(found) == expected, done
        outcomes["refused" if said else "the same"] += 1
        left = {name: (path / name).read_bytes() for name in files_of(path)}
        assert {**left, "verified.json": b""} == {**after, "verified.json": b""}, done
        # What can be made anew is; what says how is not.
        again, said = attempt(lambda cache=cache: extract(cache))
        if said:
            assert done.name == "manifest.json", (done, said)
            assert len(said.splitlines()) == 1, done
        else:
            assert chosen(again) == expected, done
            assert content(again.path) == files, done
    assert min(outcomes.values()) > 30, outcomes
    assert len(kinds) == 25  # every file in every way


def test_damages_that_the_manifests_own_checksum_cannot_see(whole, tmp_path):
    """Of the format before, whose manifest carries none."""
    for key, values in {
        "rows": (0, -1, 10**30, 1.5, "46", None, [46], True),
        "width": (0, 10**30, None, "5"),
        "shard_rows": (0, 10**30, 7, {}),
        "checksums": (None, [], [None], {}, "aaaaaa", [[]] * 6, ["0" * 16] * 6),
        "rows_done": (None, 1, "46", 10**30),
        "format_version": (None, True, 2.5, "3", [3], 4, -1),
    }.items():
        for value in values:
            path = tmp_path / "store"
            shutil.rmtree(path, ignore_errors=True)
            shutil.copytree(whole, path)
            manifest = json.loads((path / "manifest.json").read_text())
            manifest["format_version"] = 2
            manifest[key] = value
            (path / "manifest.json").write_text(json.dumps(manifest))
            with pytest.raises(SalnError, match=r"(?i)delete the folder") as caught:
                FeatureStore.open(path)
            assert len(str(caught.value).splitlines()) == 1, (key, value)
