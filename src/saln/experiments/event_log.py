"""Rows of a comparison for tools that draw and compare runs: one run of theirs an arm and seed."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from saln._extras import optional_import
from saln.experiments.config import Config
from saln.experiments.rows import METRICS, EpochRow
from saln.experiments.run_folder import RunFolder
from saln.experiments.tracking_logs import MLflowWriter, WandbWriter
from saln.messages import parameter
from saln.training.cost_ledger import PHASES

# What is drawn of a row, beside its measures and seconds.
NUMBERS = ("epoch", "examples_forward", "examples_backward", "wrong_label_share_kept")


class EventWriter(Protocol):
    """Writes one tool's events; the tool's package is imported where the writer is made."""

    def begin(self, name: str) -> None:
        """Begins the run of an arm and seed anew: what it held before is gone."""

    def write(self, step: int, values: dict[str, float]) -> None:
        """Takes what an epoch gave, at a number of steps."""

    def end(self) -> None:
        """Ends the run that was begun."""


class TensorBoardWriter:
    """Folders ``NAME/`` of events, which TensorBoard shows as runs."""

    def __init__(self, folder: Path, config: Config) -> None:
        with optional_import("tensorboard", parameter("tensorboard")):
            self._writers = importlib.import_module("torch.utils.tensorboard")
        self.folder = folder
        self._writer: Any = None

    def begin(self, name: str) -> None:
        """See :class:`EventWriter`."""
        # TensorBoard adds the files of a folder up, those of a killed run among them.
        shutil.rmtree(self.folder / name, ignore_errors=True)
        self._writer = self._writers.SummaryWriter(self.folder / name)

    def write(self, step: int, values: dict[str, float]) -> None:
        """See :class:`EventWriter`."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def end(self) -> None:
        """See :class:`EventWriter`."""
        self._writer.close()


# As in --log -> what writes it, and where in the run's folder.
_WRITERS: dict[str, Callable[[Path, Config], EventWriter]] = {
    "tensorboard": TensorBoardWriter,
    "wandb": WandbWriter,
    "mlflow": MLflowWriter,
}


class EventLog:
    """Hands rows to the tools that the settings name, each in its folder of the run's folder.

    Raises:
        MissingExtraError: One that is not installed.
    """

    def __init__(self, path: Path, config: Config) -> None:
        folder = RunFolder(path)
        self._writers = [_WRITERS[name](folder.log(name), config) for name in config.logs]
        self._of: tuple[str, int] | None = None

    def add(self, row: EpochRow, rows: Sequence[EpochRow]) -> None:
        """Takes an epoch's row; its x is the number of steps. ``rows`` are all of the run.

        The run of an arm and seed is made anew from its rows when its first one comes, so that
        a comparison that goes on shows nothing twice.
        """
        new = [row]
        if row.key != self._of:
            self.close()
            for writer in self._writers:
                writer.begin(f"{row.arm}-seed{row.seed}")
            self._of = row.key
            new = [old for old in rows if old.key == row.key]
        for one in new:
            for writer in self._writers:
                writer.write(one.steps, dict(_scalars(one)))

    def close(self) -> None:
        """Ends what is written."""
        if self._of is not None:
            for writer in self._writers:
                writer.end()
        self._of = None


def _scalars(row: EpochRow) -> list[tuple[str, float]]:
    """Tags as these tools group them: what comes before the slash is a heading."""
    tags = {name: f"epoch/{name}" for name in NUMBERS}
    for name in METRICS:
        split, _, what = name.rpartition("_")
        tags[name] = f"{what}/{split}"
    # None: the epoch was not evaluated, or nobody knows which labels are wrong.
    values = [(tag, getattr(row, name)) for name, tag in tags.items()]
    values += [(f"seconds/{phase}", getattr(row.seconds, phase)) for phase in PHASES]
    return [(tag, value) for tag, value in values if value is not None]
