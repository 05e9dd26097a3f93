"""Rows of a comparison as TensorBoard events: a folder an arm and seed."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from saln._extras import optional_import
from saln.experiments.rows import METRICS, EpochRow
from saln.messages import parameter
from saln.training.cost_ledger import PHASES

# What is drawn of a row, beside its measures and seconds.
NUMBERS = ("epoch", "examples_forward", "examples_backward", "wrong_label_share_kept")


class EventLog:
    """Writes ``ARM-seedS/`` folders, which TensorBoard shows as runs, into the folder ``path``."""

    def __init__(self, path: Path) -> None:
        with optional_import("tensorboard", parameter("tensorboard")):
            self._writers = importlib.import_module("torch.utils.tensorboard")
        self.path = path
        self._of: tuple[str, int] | None = None
        self._writer: Any = None

    def add(self, row: EpochRow, rows: Sequence[EpochRow]) -> None:
        """Takes an epoch's row; its x is the number of steps. ``rows`` are all of the run.

        An arm's folder is made anew from its rows when its first one comes, so that a run
        that goes on shows nothing twice.
        """
        new = [row]
        if row.key != self._of:
            self.close()
            folder = self.path / f"{row.arm}-seed{row.seed}"
            # TensorBoard adds the files of a folder up, those of a killed run among them.
            shutil.rmtree(folder, ignore_errors=True)
            self._writer = self._writers.SummaryWriter(folder)
            self._of = row.key
            new = [old for old in rows if old.key == row.key]
        for one in new:
            for name, value in _scalars(one):
                self._writer.add_scalar(name, value, one.steps)
        self._writer.flush()

    def close(self) -> None:
        """Ends the file that is written."""
        if self._writer is not None:
            self._writer.close()
        self._writer = self._of = None


def _scalars(row: EpochRow) -> list[tuple[str, float]]:
    """Tags as TensorBoard groups them: what comes before the slash is a heading."""
    tags = {name: f"epoch/{name}" for name in NUMBERS}
    for name in METRICS:
        split, _, what = name.rpartition("_")
        tags[name] = f"{what}/{split}"
    # None: the epoch was not evaluated, or nobody knows which labels are wrong.
    values = [(tag, getattr(row, name)) for name, tag in tags.items()]
    values += [(f"seconds/{phase}", getattr(row.seconds, phase)) for phase in PHASES]
    return [(tag, value) for tag, value in values if value is not None]
