"""The run folder while a run is under way, so that a killed run can go on.

After every epoch the training state is made durable first, with the arm's rows in it,
and then the row is added to ``epochs.jsonl``. So a row counts only when training can go
on from it; whatever else the file holds after a kill, half a line among it, is cut off,
and a row that did not reach the file comes from the state. A finished arm's checkpoint,
costs and rows are written before its state is removed.

::

    config.json      the settings; a folder with this file is a run
    progress.json    finished arms with their costs and rows, failed arms with their reasons,
                     and the checksums of the files that nothing else is written after
    epochs.jsonl     the rows
    resume/          the unfinished arm's state, the reference model's outputs for its seed
    checkpoints/     the finished arms' learners
    labels.json      what an arm that judges labels makes of the first seed's
    choices/         what they chose
    summary.json     once the whole run is finished

Every file that rows are made of carries a checksum. A state that is damaged is left, and its
arm begins anew, which gives the same rows; of anything else the damaged file is named.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from saln.experiments.arm_states import ArmStates
from saln.experiments.config import Config
from saln.experiments.environment import environment
from saln.experiments.finished_run import finish
from saln.experiments.progress_file import FORMAT_VERSION, Record
from saln.experiments.row_log import RowLog
from saln.experiments.rows import ArmCost, EpochRow, RunFacts, Summary
from saln.experiments.run_folder import RunFolder, unwritable_folder, write_settings
from saln.experiments.run_repair import (
    add_seeds,
    note_resumed,
    old_rows,
    read_lines,
    read_record,
    remove_half_written,
    write_lines,
)
from saln.files import write_json, write_signed, write_with


class RunProgress(contextlib.AbstractContextManager["RunProgress"]):
    """A run under way. Make it by ``start`` or ``resume``, in a claimed folder.

    Attributes:
        path: The run folder.
        folder: Its files.
        rows: The rows that count.
        record: What is finished, and why arms were stopped.
        states: What arms in progress go on from.
    """

    def __init__(self, path: Path, record: Record, rows: list[EpochRow], states: ArmStates) -> None:
        self.path = path
        self.folder = states.folder
        self.record = record
        self.rows = rows
        self.states = states
        self.log = RowLog(self.folder.rows)

    def __exit__(self, *error: object) -> None:
        self.log.close()

    @classmethod
    def start(
        cls, path: Path, config: Config, device: torch.device, facts: Mapping[str, Any]
    ) -> RunProgress:
        """Begins a run in a folder.

        Args:
            path: From :func:`claimed`.
            config: The settings.
            device: Where the run trains.
            facts: What must be the same when the run goes on, beside the settings.

        Raises:
            InputError: The folder cannot be written to.
            DataError: The disk is full.
        """
        folder, record = RunFolder(path), Record(path, dict(facts))
        # First: whatever happens after this, the folder is a run that can go on.
        write_settings(path, config)
        write_signed(folder.environment, environment(device))
        _make_folders(folder)
        record.write()
        return cls(path, record, [], ArmStates(folder, checked=True))

    @classmethod
    def resume(
        cls, path: Path, config: Config, device: torch.device, facts: Mapping[str, Any]
    ) -> RunProgress:
        """Opens the folder of a run that was ended; see :meth:`start`.

        Raises:
            InputError: ``facts`` differ.
            DataError: The folder's files are damaged, or contradict each other.
        """
        folder = RunFolder(path)
        record = read_record(folder, facts)
        _make_folders(folder)
        remove_half_written(folder)
        states = ArmStates(folder, checked=not record.is_old)
        lines = read_lines(folder)
        if record.is_old:
            record.rows = old_rows(folder, lines, record, config.epochs)
        # In the order in which a run that is left alone would have written them.
        rows: list[EpochRow] = []
        for arm, seed in ((arm, seed) for seed in config.seeds for arm in config.labels):
            done = record.done(arm, seed)
            rows += record.of(arm, seed) if done else states.rows(arm, seed)
        write_lines(folder, lines, rows)
        add_seeds(folder, record, config)
        lost = note_resumed(folder, device)
        states.damaged += [] if lost is None else [lost]
        # Before the record says that states carry checksums; a kill between the two does no harm.
        states.sign()
        record.version = FORMAT_VERSION
        record.write()
        return cls(path, record, rows, states)

    def save_epoch(self, row: EpochRow, state: Mapping[str, Any]) -> None:
        """Makes the state after an epoch durable, then counts its row.

        Args:
            row: The epoch's row.
            state: Tensors and plain values that the arm goes on from.

        Raises:
            DataError: The disk is full, or the folder is no longer there.
        """
        self.log.check()
        # In this order: a kill between the two leaves a row too few, which the state has.
        self.states.save([old for old in (*self.rows, row) if old.key == row.key], state)
        self.rows.append(row)
        self.log.add(row)

    def save_reference(self, seed: int, content: Mapping[str, Any]) -> None:
        """Keeps the reference model's outputs and costs until the seed's arms are done."""
        self.log.check()
        self.states.save_reference(seed, content)

    def finish(
        self, arm: str, seed: int, learner: Mapping[str, torch.Tensor], cost: ArmCost
    ) -> None:
        """Keeps a finished arm's learner, what it cost and the checksums of what it wrote."""
        self.log.check()  # else a moved folder would begin to come into being again
        checkpoint = self.folder.checkpoint(arm, seed)
        write_with(checkpoint, functools.partial(torch.save, dict(learner)), durable=True)
        self.record.costs[arm, seed] = cost
        names = map(self.folder.name_of, self.folder.shared(seed))
        # What all arms share is as it was when the first of them was done.
        new = [name for name in names if name not in self.record.files]
        own = map(self.folder.name_of, (checkpoint, self.folder.choices_of(arm, seed)))
        for name in (*own, *new):
            if (self.path / name).exists():
                self.record.note(name)
        self._end(arm, seed)

    def fail(self, arm: str, seed: int, why: str) -> None:
        """Keeps why an arm was stopped, so that it is not run again; its state goes."""
        # With its rows: the summary says that it failed, the file how far it came.
        self.record.failures[arm, seed] = why
        self._end(arm, seed)

    def _end(self, arm: str, seed: int) -> None:
        """Keeps the rows of an arm that is done; its state goes."""
        self.record.rows = [row for row in self.rows if self.record.done(*row.key)]
        # First: what the state holds is in the record before it goes.
        self.record.write()
        self.states.drop(arm, seed)

    def drop_damaged_choices(self, seed: int) -> None:
        """Removes what is damaged of what all arms share, before it would be kept as it is."""
        for path in self.folder.shared(seed):
            name = self.folder.name_of(path)
            if self.record.is_damaged(name):
                path.unlink()
                del self.record.files[name]

    def save_labels(self, doubts: Mapping[str, Any]) -> None:
        """Writes ``labels.json``; before the first arm, so that a finished arm has it."""
        write_json(self.folder.labels, doubts, durable=True)
        self.record.note("labels.json")
        self.record.write()

    def finish_run(self, about: RunFacts) -> Summary:
        """Writes ``summary.json`` and gives it; nothing is left to go on from.

        Raises:
            DataError: The disk is full, or the folder is no longer there.
        """
        self.log.check()
        return finish(self.record, about)


def _make_folders(folder: RunFolder) -> None:
    try:
        for path in (folder.checkpoints, folder.resume):
            path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable_folder(folder.path, error) from error
