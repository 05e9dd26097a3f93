"""What TensorBoard would show of a run."""

from __future__ import annotations

import dataclasses
import json
import sys

import pytest

from saln.errors import MissingExtraError
from saln.experiments.config import Config, load_preset
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
    return dataclasses.replace(
        load_preset("digits"), limit=200, epochs=3, seeds=(0, 1), batch_size=8,
        methods=("standard", "uniform"), evaluate_every=2, tensorboard=True,
        out=tmp_path / "run", cache_dir=tmp_path / "cache",
    )  # fmt: skip


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


def assert_shown(config):
    folder = config.out / "tensorboard"
    assert sorted(path.name for path in folder.iterdir()) == [
        f"{arm}-seed{seed}" for arm in config.methods for seed in config.seeds
    ]
    for arm in config.methods:
        for seed in config.seeds:
            shown, rows = events(folder / f"{arm}-seed{seed}"), expected(config.out, arm, seed)
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


def test_without_tensorboard_nothing_is_written(config, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'saln\[tensorboard\]'"):
        compare(config, Quiet())
    assert not config.out.exists()
