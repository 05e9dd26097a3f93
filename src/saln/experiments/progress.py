"""The run folder while a run is under way, so that a killed run can go on.

After every epoch the training state is made durable first, with the arm's rows in it,
and then the row is added to ``epochs.jsonl``. So a row counts only when training can go
on from it; whatever else the file holds after a kill, half a line among it, is cut off,
and a row that did not reach the file comes from the state. A finished arm's checkpoint,
costs and rows are written before its state is removed.

::

    config.json      the settings; a folder with this file is a run
    progress.json    finished arms with their costs and rows, failed arms with their reasons,
                     the trials, and the checksums of the files that nothing else is written after
    epochs.jsonl     the rows
    trials.jsonl     what was tried to tune the arms
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
import dataclasses
import functools
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import torch

from saln.errors import DataError, InputError
from saln.experiments.arm_states import ArmStates
from saln.experiments.config import Config
from saln.experiments.environment import environment
from saln.experiments.json_record import json_lines
from saln.experiments.progress_file import FORMAT_VERSION, Record
from saln.experiments.rows import ArmCost, EpochRow, Key, RunFacts, Summary, row_of_line
from saln.experiments.run_folder import (
    ANEW,
    RunFolder,
    read_settings,
    refuse_setting,
    unwritable_folder,
    write_settings,
)
from saln.files import (
    is_out_of_space,
    read_bytes,
    read_signed,
    write_bytes,
    write_json,
    write_signed,
    write_with,
)
from saln.messages import parameter

# What a write that was killed leaves beside its file: today's names, and an earlier version's.
# What says who judges labels where an arm leaves it to its default, and what runs had that do not
# say it.
JUDGING = "usual judge of labels"
JUDGED_BEFORE = "neighbors"
_HALF_WRITTEN = re.compile(r"\..+\.([0-9a-f]{16}|\d+)")


class RowLog:
    """``epochs.jsonl``, to which rows are added, each durable and in one piece."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            # Unbuffered and in one piece: a row is on disk or not, whenever the run ends.
            self.stream: IO[bytes] = path.open("ab", buffering=0)
        except OSError as error:
            raise unwritable_folder(path.parent, error) from error

    def check(self) -> None:
        """Raises DataError where the folder was moved under the run, and rows would be lost."""
        try:
            if os.path.samestat(os.fstat(self.stream.fileno()), self.path.stat()):
                return
        except OSError:  # not there: as if it were another
            pass
        raise DataError(
            f"{self.path} was deleted, moved or replaced while the run was at work; put "
            f"{self.path.parent} back and go on with {parameter('resume', True)}, or begin a new "
            "run"
        )

    def add(self, row: EpochRow) -> None:
        """Adds a row, or raises a DataError where the disk does not take it."""
        try:
            self._append(json_lines([row]))
        except OSError as error:
            cure = "free some space, then" if is_out_of_space(error) else "repair the disk, then"
            raise DataError(
                f"{self.path} cannot be written ({error}); {cure} go on with "
                f"{parameter('resume', True)}"
            ) from error

    def _append(self, line: bytes) -> None:
        view = memoryview(line)
        while view:  # a system may take less than it is given
            view = view[self.stream.write(view) :]
        os.fsync(self.stream.fileno())


class RunProgress(contextlib.AbstractContextManager["RunProgress"]):
    """A run under way, in a claimed folder; ``rows`` are those that count.

    Made by ``start`` or ``resume``, whose ``facts`` must be the same when the run goes on, beside
    the settings.
    """

    def __init__(self, path: Path, record: Record, rows: list[EpochRow], states: ArmStates) -> None:
        self.path = path
        self.folder = states.folder
        self.record = record
        self.rows = rows
        self.states = states
        self.log = RowLog(self.folder.rows)

    def __exit__(self, *error: object) -> None:
        self.log.stream.close()

    @classmethod
    def start(
        cls, path: Path, config: Config, device: torch.device, facts: Mapping[str, Any]
    ) -> RunProgress:
        """Begins a run in a folder from :func:`claimed`, which trains on ``device``."""
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

        Raises InputError where ``facts`` differ, DataError for files that are damaged or do
        not fit.
        """
        folder = RunFolder(path)
        record = _read_record(folder, facts)
        _make_folders(folder)
        _remove_half_written(folder)
        states = ArmStates(folder, checked=not record.is_old)
        cure = f"make it readable, or {ANEW}"
        lines = read_bytes(folder.rows, cure) if folder.rows.exists() else b""
        if record.is_old:
            record.rows = _old_rows(folder, lines, record, config.epochs)
        # In the order in which a run that is left alone would have written them.
        rows: list[EpochRow] = []
        for arm, seed in ((arm, seed) for seed in config.seeds for arm in config.labels):
            done = record.done(arm, seed)
            rows += record.of(arm, seed) if done else states.rows(arm, seed)
        # A kill here loses nothing, since the rows are in the record and the states.
        if lines != json_lines(rows):
            write_bytes(folder.rows, json_lines(rows), durable=True)
        record.write_trials()
        _add_seeds(folder, record, config)
        lost = _note_resumed(folder, device)
        states.damaged += [] if lost is None else [lost]
        # Before the record says that states carry checksums; a kill between the two does no harm.
        states.sign()
        record.version = FORMAT_VERSION
        record.write()
        return cls(path, record, rows, states)

    def save_epoch(self, row: EpochRow, state: Mapping[str, Any]) -> None:
        """Makes the state after an epoch durable, of tensors and plain values; counts its row."""
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
        self.folder.state(arm, seed).unlink(missing_ok=True)

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
        """Writes ``summary.json`` and gives it; nothing is left to go on from."""
        self.log.check()
        return self.record.finish(about)


def _make_folders(folder: RunFolder) -> None:
    try:
        for path in (folder.checkpoints, folder.resume):
            path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable_folder(folder.path, error) from error


def _read_record(folder: RunFolder, facts: Mapping[str, Any]) -> Record:
    """What of a run is done; nothing where it was ended before it noted anything."""
    record = Record.read(folder.path, ANEW)
    if record is None:
        # Whether data and device are the same, nobody knows then.
        done = [folder.summary, *folder.checkpoints.glob("*.pt"), *folder.resume.glob("*.pt")]
        has_rows = folder.rows.exists() and folder.rows.stat().st_size
        if has_rows or any(file.exists() for file in done):
            raise DataError(
                f"{folder.progress} is missing, which says what of the run is done; {ANEW}"
            )
        return Record(folder.path, dict(facts))
    for name, now in facts.items():
        before = record.facts.get(name, JUDGED_BEFORE if name == JUDGING else None)
        if before != now and name == "device":
            refuse_setting(record.path, name, str(before), str(now))
        if before != now:
            raise InputError(
                f"{parameter('resume')}: the {name} was {before} when the run in {record.path} "
                f"began and is {now} now; put back what changed, or begin a new run in another "
                f"folder with {parameter('out')}"
            )
    return record


def _remove_half_written(folder: RunFolder) -> None:
    """Removes what a killed process left half-written."""
    # Only where runs and reports write: another program's hidden files are its own.
    for name in (".", "checkpoints", "choices", "figures", "resume", "tables"):
        for entry in (folder.path / name).glob(".*"):
            if _HALF_WRITTEN.fullmatch(entry.name) and entry.is_file():
                entry.unlink()


def _old_rows(folder: RunFolder, content: bytes, record: Record, epochs: int) -> list[EpochRow]:
    """The rows of the arms that are done, of a run whose record holds none."""
    lines = content.splitlines()
    by_key: dict[Key, list[EpochRow]] = {}
    for number, line in enumerate(lines, start=1):
        try:
            row = row_of_line(line, folder.rows, number, ANEW)
        except DataError:
            if number == len(lines):
                break  # torn by the kill
            raise
        by_key.setdefault(row.key, []).append(row)
    for key in record.costs:
        if [row.epoch for row in by_key.get(key, [])] != list(range(1, epochs + 1)):
            raise DataError(
                f"{folder.rows} lacks rows of {key[0]}, seed {key[1]}, which is finished; {ANEW}"
            )
    return [row for key in (*record.costs, *record.failures) for row in by_key.get(key, [])]


def _add_seeds(folder: RunFolder, record: Record, config: Config) -> None:
    """Makes the folder that of an unfinished run of all the seeds."""
    saved = read_settings(folder.path)
    if saved.seeds != config.seeds:
        # First: without them, whatever happens after this, the run is one that can go on.
        record.about = None
        if not record.is_old:
            record.write()
        folder.summary.unlink(missing_ok=True)
    if saved.seeds != config.seeds or record.is_old:
        write_settings(folder.path, dataclasses.replace(saved, seeds=config.seeds))


def _note_resumed(folder: RunFolder, device: torch.device) -> str | None:
    """Writes what a run goes on upon beside what it began on; says what of that is lost."""
    now, lost = environment(device), None
    try:
        began = dict(now)
        if folder.environment.exists():
            began = read_signed(folder.environment, ANEW, must=False)
        before = list(began.get("resumed", []))
    except (DataError, TypeError):
        lost = f"{folder.environment} was damaged: what the run began on is lost"
        began, before = dict(now), []
    write_signed(folder.environment, {**began, "resumed": [*before, now]})
    return lost
