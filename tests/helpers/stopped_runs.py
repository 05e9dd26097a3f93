"""What tests of stopped runs share: small runs, and someone who watches and stops them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from helpers.digits import digits_config

from saln.experiments.config import Config
from saln.experiments.run import compare

# What a clock decides; everything else in summary.json must repeat.
CLOCK = {
    "seconds", "at_equal_seconds", "seconds_to_standard", "break_even", "peak_bytes",
}  # fmt: skip


class Quiet:
    """Keeps notes, what begins, and the epochs that are done."""

    def __init__(self):
        self.notes, self.begun, self.epochs = [], [], []

    def note(self, text):
        self.notes.append(text)

    def begin(self, what, total):
        self.begun.append(what)

    def advance(self, examples):
        pass

    def epoch(self, row, epochs):
        self.epochs.append((row.arm, row.seed, row.epoch))


def small_run(folder: Path, **changes: Any) -> Config:
    """Two arms, two seeds, three epochs; the run in ``run``, its features in ``cache``."""
    settings = {
        "limit": 90, "epochs": 3, "seeds": (0, 1), "batch_size": 6, "reference_epochs": 1,
        "methods": ("uniform", "jest"), "out": folder / "run", "cache_dir": folder / "cache",
        "image_size": 8, "learner": "pixels",
    }  # fmt: skip
    return digits_config(**(settings | changes))


def rows_of(path):
    rows = [json.loads(line) for line in (path / "epochs.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def without_clock(value):
    if isinstance(value, dict):
        return {key: without_clock(item) for key, item in value.items() if key not in CLOCK}
    return value


def summary_of(path):
    return without_clock(json.loads((path / "summary.json").read_text()))


def again(config, **changes):
    return dataclasses.replace(config, resume=True, **changes)


def stop_after(epochs):
    class Stops(Quiet):
        def epoch(self, row, total):
            super().epoch(row, total)
            if len(self.epochs) == epochs:
                raise KeyboardInterrupt

    return Stops()


def stopped(config, epochs):
    reporter = stop_after(epochs)
    with pytest.raises(KeyboardInterrupt):
        compare(config, reporter)
    return reporter
