"""Rows of a comparison as TensorBoard events: a folder an arm and seed."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from saln._extras import optional_import
from saln.messages import parameter

# What is drawn of a row, beside its measures and seconds.
NUMBERS = ("epoch", "examples_forward", "examples_backward", "wrong_label_share_kept")


class EventLog:
    """Writes ``ARM-seedS/`` folders that TensorBoard shows as runs.

    Args:
        path: The folder of all of them.

    Raises:
        MissingExtraError: TensorBoard is not installed.
    """

    def __init__(self, path: Path) -> None:
        with optional_import("tensorboard", parameter("tensorboard")):
            self._writers = importlib.import_module("torch.utils.tensorboard")
        self.path = path
        self._of: tuple[str, int] | None = None
        self._writer: Any = None

    def add(self, row: dict[str, Any], rows: Sequence[dict[str, Any]]) -> None:
        """Takes an epoch's row; its x is the number of steps.

        An arm's folder is made anew from its rows when its first one comes, so that a run
        that goes on shows nothing twice.

        Args:
            row: The new one.
            rows: All of the run, the new one among them.
        """
        key = row["arm"], row["seed"]
        new = [row]
        if key != self._of:
            self.close()
            folder = self.path / f"{key[0]}-seed{key[1]}"
            shutil.rmtree(folder, ignore_errors=True)
            self._writer = self._writers.SummaryWriter(folder)
            self._of = key
            new = [old for old in rows if (old["arm"], old["seed"]) == key]
        for one in new:
            for name, value in _scalars(one):
                self._writer.add_scalar(name, value, one["steps"])
        self._writer.flush()

    def close(self) -> None:
        """Ends the file that is written."""
        if self._writer is not None:
            self._writer.close()
        self._writer = self._of = None


def _scalars(row: dict[str, Any]) -> list[tuple[str, float]]:
    """Tags as TensorBoard groups them: what comes before the slash is a heading."""
    found: list[tuple[str, float]] = []
    for name, value in row.items():
        split, _, what = name.rpartition("_")
        if what in ("accuracy", "loss") and value is not None:  # else evaluate_every left it out
            found.append((f"{what}/{split}", value))
        elif name in NUMBERS and value is not None:  # else nobody knows which labels are wrong
            found.append((f"epoch/{name}", value))
    return found + [(f"seconds/{name}", value) for name, value in row["seconds"].items()]
