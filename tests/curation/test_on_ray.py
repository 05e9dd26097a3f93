"""The same choice on a Ray cluster of two nodes, whoever dies on the way."""

from __future__ import annotations

import importlib
import os
import re
import runpy
import signal
import socket
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from helpers.select_processes import killed, words

import saln
from saln.cli import main
from saln.errors import DataError

ray = pytest.importorskip("ray")
EXAMPLES = Path(__file__).parents[2] / "examples"
OPTIONS = {"candidates": 100, "filter_ratio": 0.8, "partition_rows": 400}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    features = np.random.default_rng(0).random((4_050, 16)).astype(np.float16)
    saln.write_store(folder / "store", features, np.arange(4_050) % 3)
    saln.select(folder / "store", selector=saln.SALN(), out=folder / "local.parquet", **OPTIONS)
    return folder / "store"


@pytest.fixture(scope="module")
def local(store):
    return (store.parent / "local.parquet").read_bytes()


# First: the workers of another driver end idle ones, which the tests below take over.
def test_a_killed_driver_goes_on_with_the_same_bytes(ray_address, store, local, tmp_path, warm):
    """It works on the cluster of an address; what is left is chosen from by this process."""
    out = tmp_path / "kept.parquet"
    flags = ("--engine", "ray", "--ray-address", ray_address, "--ray-workers", "1")
    killed(words(store, out, *flags), out, warm)
    result = saln.select(
        store, selector=saln.SALN(), out=out, engine="ray", ray_workers=2, **OPTIONS
    )
    assert 0 < result.computed < result.rows == 4_050
    assert out.read_bytes() == local


@pytest.mark.parametrize("workers", [1, 2])
def test_the_bytes_are_those_of_the_local_engine(ray_address, store, local, tmp_path, workers):
    told = []
    result = saln.select(
        store, selector=saln.SALN(), out=tmp_path / "kept.parquet", engine="ray",
        ray_workers=workers, progress=lambda done, rows: told.append((done, rows)), **OPTIONS,
    )  # fmt: skip
    assert (tmp_path / "kept.parquet").read_bytes() == local
    assert result.computed == 4_050
    assert told == sorted(told)
    assert told[-1] == (4_050, 4_050)


def test_the_example_keeps_what_one_process_keeps(ray_address, monkeypatch, capsys):
    """With the cluster of two nodes that is there, in the place of the one that it starts."""

    def there(*, initialize_head, head_node_args):
        assert initialize_head
        assert head_node_args["num_cpus"] == 1
        return SimpleNamespace(
            address=ray_address, add_node=lambda **node: node, shutdown=lambda: None
        )

    monkeypatch.setattr(importlib.import_module("ray.cluster_utils"), "Cluster", there)
    runpy.run_path(str(EXAMPLES / "ray_select.py"), run_name="__main__")
    printed = capsys.readouterr().out
    assert "rows, the same locally" in printed
    assert int(re.search(r"(\d+)% of the kept", printed)[1]) < 12  # of 20


@pytest.mark.parametrize("selector", ["coherence", "coherence(judge=labels, power=4)"])
def test_beliefs_and_names_of_classes_travel(ray_address, selector, tmp_path):
    """They are formed by the driver; Parquet is opened anew by every worker."""
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    labels = np.arange(900) % 3
    features = np.random.default_rng(0).random((900, 4)) + 2 * np.eye(4)[labels]
    given = [("cat", "dog", "owl")[label] for label in labels]
    given[5:9] = ["cat"] * 4
    table = pa.table({"features": list(features.astype(np.float32)), "kind": given})
    pq.write_table(table, tmp_path / "rows.parquet", row_group_size=170)
    found = {}
    for engine in ("local", "ray"):
        result = saln.select(
            tmp_path / "rows.parquet", selector=selector, labels_column="kind", engine=engine,
            out=tmp_path / f"{engine}.parquet", ray_workers=2 if engine == "ray" else None,
            **OPTIONS,
        )  # fmt: skip
        found[engine] = result.path.read_bytes(), result.labels.read_bytes()
    assert found["ray"] == found["local"]
    assert set(pq.read_table(tmp_path / "ray.parquet")["believed_label"].to_pylist()) == {
        "cat", "dog", "owl"
    }  # fmt: skip


class Deadly(saln.Selector):
    """SALN, but whoever first looks at row 1234 dies of it, by SIGKILL."""

    requires = frozenset({"features"})

    def __init__(self, scar):
        self.scar = scar

    def choose(self, candidates, k, generator):
        if 1234 in candidates.indices.tolist() and not self.scar.exists():
            self.scar.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return saln.SALN().choose(candidates, k, generator)


@pytest.fixture
def by_value():
    """Workers cannot import tests."""
    cloudpickle = pytest.importorskip("ray.cloudpickle")
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


def test_the_parts_of_a_killed_worker_are_chosen_again(
    ray_address, store, local, tmp_path, by_value
):
    scar = tmp_path / "scar"
    saln.select(
        store, selector=Deadly(scar), out=tmp_path / "kept.parquet", engine="ray",
        ray_workers=2, **OPTIONS,
    )  # fmt: skip
    assert scar.exists()
    assert (tmp_path / "kept.parquet").read_bytes() == local


def test_a_broken_row_is_named_from_afar(ray_address, tmp_path):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    features = np.random.default_rng(0).random((900, 4)).astype(np.float32)
    features[777, 2] = np.nan
    pq.write_table(pa.table({"features": list(features)}), tmp_path / "rows.parquet")
    with pytest.raises(DataError, match="row 777 of"):
        saln.select(
            tmp_path / "rows.parquet", selector=saln.SALN(), out=tmp_path / "kept.parquet",
            engine="ray", **OPTIONS,
        )  # fmt: skip
    assert not (tmp_path / "kept.parquet").exists()


def test_an_address_where_no_cluster_is(store, tmp_path, monkeypatch, capsys):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    started = time.monotonic()
    flags = ["--selector", "saln", "--engine", "ray", "--ray-address", address]
    monkeypatch.setattr(ray, "is_initialized", lambda: False)  # it would take that connection
    code = main(["select", str(store), *flags, "--out", str(tmp_path / "kept.parquet")])
    assert code == 2
    assert f"no Ray cluster answers at {address}" in capsys.readouterr().err
    assert time.monotonic() - started < 60
    assert not (tmp_path / "kept.parquet").exists()
