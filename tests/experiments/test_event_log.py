"""What TensorBoard, Weights & Biases and MLflow would show of a run."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import struct
import sys
import time

import pytest
from helpers.digits import digits_config

from saln.errors import InputError, MissingExtraError
from saln.experiments.config import LOGS, Config
from saln.experiments.event_log import _WRITERS
from saln.experiments.run import compare
from saln.training.cost_ledger import PHASES


class Quiet:
    def __init__(self, stop_after=None):
        self.left = stop_after

    def note(self, text):
        pass

    def begin(self, what, total):
        pass

    def advance(self, examples):
        pass

    def epoch(self, row, epochs):
        if self.left is not None:
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt


@pytest.fixture
def config(tmp_path) -> Config:
    return digits_config(
        limit=200, epochs=3, seeds=(0, 1), batch_size=8, learner="pixels", image_size=8,
        methods=("standard", "uniform"), evaluate_every=2, tensorboard=True,
        out=tmp_path / "run", cache_dir=tmp_path / "cache",
    )  # fmt: skip


def wandb_records(content):
    """The records of an offline run: LevelDB's log format, in blocks of 32 KiB."""
    assert content[:4] == b":W&B"
    at, parts = 7, b""
    while at + 7 <= len(content):
        if 32768 - at % 32768 < 7:  # no header fits into what is left of a block
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack("<IHB", content[at : at + 7])
        parts += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part of one
            yield parts
            parts = b""


def wandb_events(folder):
    """Tag -> (step, value) pairs, as `wandb sync` reads the one run of a folder."""
    messages = importlib.import_module("wandb.proto.wandb_internal_pb2")
    (path,) = (folder / "wandb").glob("offline-run-*/*.wandb")
    found = {}
    for data in wandb_records(path.read_bytes()):
        record = messages.Record()
        record.ParseFromString(data)
        items = {
            item.key or "/".join(item.nested_key): json.loads(item.value_json)
            for item in record.history.item
        }
        for name, value in items.items():
            if not name.startswith("_"):
                found.setdefault(name, []).append((items["_step"], value))
    return found


def mlflow_events(folder):
    """Tag -> (step, value) pairs, by MLflow's client, of the one run of an arm and seed."""
    client = importlib.import_module("mlflow.tracking").MlflowClient(folder.parent.as_uri())
    (experiment,) = client.search_experiments(filter_string="name = 'saln'")
    runs = client.search_runs([experiment.experiment_id], f"run_name = '{folder.name}'")
    (run,) = runs
    assert run.info.status == "FINISHED"
    assert run.data.params["epochs"] == "3"
    return {
        name: [(one.step, one.value) for one in client.get_metric_history(run.info.run_id, name)]
        for name in run.data.metrics
    }


def events(folder):
    """Tag -> (step, value) pairs, as TensorBoard reads them."""
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    ).EventAccumulator(str(folder))
    accumulator.Reload()
    return {
        tag: [(event.step, event.value) for event in accumulator.Scalars(tag)]
        for tag in accumulator.Tags()["scalars"]
    }


def expected(path, arm, seed):
    lines = (path / "epochs.jsonl").read_text().splitlines()
    rows = [row for row in map(json.loads, lines) if (row["arm"], row["seed"]) == (arm, seed)]
    found = {
        f"{what}/{split}": [
            (row["steps"], row[f"{split}_{what}"])
            for row in rows
            if row[f"{split}_{what}"] is not None
        ]
        for what in ("accuracy", "loss")
        for split in ("train", "validation", "test")
    }
    for name in ("epoch", "examples_forward", "examples_backward", "wrong_label_share_kept"):
        if rows[0][name] is not None:  # of no label is known whether it is wrong
            found[f"epoch/{name}"] = [(row["steps"], row[name]) for row in rows]
    for phase in PHASES:
        found[f"seconds/{phase}"] = [(row["steps"], row["seconds"][phase]) for row in rows]
    return found


READERS = {"tensorboard": events, "wandb": wandb_events, "mlflow": mlflow_events}


def assert_shown(config, tool="tensorboard"):
    folder = config.out / tool
    assert tool == "mlflow" or sorted(path.name for path in folder.iterdir()) == [
        f"{arm}-seed{seed}" for arm in config.methods for seed in config.seeds
    ]
    for arm in config.methods:
        for seed in config.seeds:
            rows = expected(config.out, arm, seed)
            steps = {tag: [step for step, _ in points] for tag, points in rows.items()}
            # W&B's own process writes the end of a run after the run was said to be over.
            deadline = time.monotonic() + (60 if tool == "wandb" else 0)
            while True:
                shown = READERS[tool](folder / f"{arm}-seed{seed}")
                found = {tag: [step for step, _ in points] for tag, points in shown.items()}
                if found == steps or time.monotonic() > deadline:
                    break
                time.sleep(0.1)
            assert shown.keys() == rows.keys()
            for tag, points in rows.items():
                assert [step for step, _ in shown[tag]] == [step for step, _ in points]
                assert [y for _, y in shown[tag]] == pytest.approx([y for _, y in points])


def test_every_row_is_shown(config):
    compare(config, Quiet())
    assert_shown(config)
    assert [step for step, _ in expected(config.out, "uniform", 0)["accuracy/test"]] == [8, 12]


def test_a_run_that_goes_on_shows_nothing_twice(config):
    with pytest.raises(KeyboardInterrupt):
        compare(config, Quiet(stop_after=5))  # in the middle of uniform
    compare(dataclasses.replace(config, resume=True), Quiet())
    assert_shown(config)


@pytest.mark.parametrize("tool", ["wandb", "mlflow"])
def test_other_tools_show_the_same_and_nothing_twice(config, tool, monkeypatch):
    """Without a connection: the only place is the run's folder."""
    pytest.importorskip(tool)
    for name in [name for name in os.environ if name.startswith(("WANDB_", "MLFLOW_"))]:
        monkeypatch.delenv(name)
    # Set by the writer where nobody has; put back after the test.
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    config = dataclasses.replace(config, tensorboard=False, log=tool, seeds=0, methods="uniform")
    with pytest.raises(KeyboardInterrupt):
        compare(config, Quiet(stop_after=2))
    compare(dataclasses.replace(config, resume=True), Quiet())
    assert_shown(config, tool)
    assert not (config.out / "tensorboard").exists()


@pytest.mark.parametrize(
    ("tool", "module"),
    [("tensorboard", "torch.utils.tensorboard"), ("wandb", "wandb"), ("mlflow", "mlflow.tracking")],
)
def test_without_its_package_nothing_is_written(config, monkeypatch, tool, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=rf"pip install 'saln\[{tool}\]'"):
        compare(dataclasses.replace(config, tensorboard=False, log=tool), Quiet())
    assert not config.out.exists()


def test_settings_of_old_and_new_spelling():
    assert set(LOGS) == set(_WRITERS)
    assert Config(tensorboard=True, log="wandb,tensorboard").logs == ("tensorboard", "wandb")
    assert Config().logs == ()
    with pytest.raises(InputError, match=r"^log=\('tensorbord',\) is not allowed; give some of"):
        Config(log="tensorbord").check()
