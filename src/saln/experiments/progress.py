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
import dataclasses
import functools
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import torch

from saln.errors import DataError, InputError
from saln.experiments.config import Config
from saln.experiments.environment import environment
from saln.experiments.finished_run import finish
from saln.experiments.progress_file import FORMAT_VERSION, Record
from saln.experiments.rows import ArmCost, EpochRow, RunFacts, Summary, lines_of, row_of_line
from saln.experiments.run_folder import (
    ANEW,
    read_settings,
    refuse_setting,
    write_settings,
)
from saln.experiments.state_files import (
    DamagedStateError,
    load_state,
    save_state,
    sign_state,
)
from saln.files import (
    is_out_of_space,
    read_signed,
    write_bytes,
    write_json,
    write_signed,
    write_with,
)
from saln.messages import parameter

# What a write that was killed leaves beside its file: today's names, and an earlier version's.
_HALF_WRITTEN = re.compile(r"\..+\.([0-9a-f]{16}|\d+)")


class RunProgress(contextlib.AbstractContextManager["RunProgress"]):
    """What of a run is done. Make it by ``start`` or ``resume``, in a claimed folder.

    Attributes:
        path: The run folder.
        rows: The rows that count.
        record: What is finished.
        damaged: What was found damaged and is made anew, a line each.
    """

    def __init__(self, path: Path, config: Config, record: Record) -> None:
        self.path = path
        self.epochs = config.epochs
        self.order = [(arm, seed) for seed in config.seeds for arm in config.labels]
        self.record = record
        self.rows: list[EpochRow] = []
        self.damaged: list[str] = []
        self.stream: IO[bytes] | None = None
        try:
            for name in ("checkpoints", "resume"):
                (path / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"{parameter('out', path)} cannot be written ({error.strerror or error}); give "
                "another folder"
            ) from error

    @property
    def costs(self) -> dict[tuple[str, int], ArmCost]:
        """(arm, seed) -> what a finished arm cost."""
        return self.record.costs

    @property
    def failures(self) -> dict[tuple[str, int], str]:
        """(arm, seed) -> why it was stopped."""
        return self.record.failures

    def __exit__(self, *error: object) -> None:
        if self.stream is not None:
            self.stream.close()

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
        # First: whatever happens after this, the folder is a run that can go on.
        write_settings(path, config)
        write_signed(path / "environment.json", environment(device))
        progress = cls(path, config, Record(path, dict(facts)))
        progress.record.write()
        progress._open()
        return progress

    @classmethod
    def resume(
        cls, path: Path, config: Config, device: torch.device, facts: Mapping[str, Any]
    ) -> RunProgress:
        """Opens the folder of a run that was ended; see :meth:`start`.

        Raises:
            InputError: ``facts`` differ.
            DataError: The folder's files are damaged, or contradict each other.
        """
        record = Record.read(path, ANEW)
        if record is None:
            _refuse_what_was_done(path)
            record = Record(path, dict(facts))
        _check_facts(record, facts)
        progress = cls(path, config, record)
        progress._clean()
        progress._settle_rows()
        progress._add_seeds(config)
        progress._note_resumed(device)
        progress._sign_states()
        record.version = FORMAT_VERSION
        record.write()
        progress._open()
        return progress

    def _clean(self) -> None:
        """Removes what a killed process left half-written."""
        for name in (".", "checkpoints", "choices", "figures", "resume", "tables"):
            for entry in (self.path / name).glob(".*"):
                if _HALF_WRITTEN.fullmatch(entry.name) and entry.is_file():
                    entry.unlink()

    def _sign_states(self) -> None:
        """Gives what an earlier version left the checksums that this one asks for."""
        if self.record.is_old:
            for path in (self.path / "resume").glob("*.pt"):
                sign_state(path)

    def _add_seeds(self, config: Config) -> None:
        """Makes the folder that of an unfinished run of all the seeds."""
        saved = read_settings(self.path)
        if saved.seeds != config.seeds:
            # First: without them, whatever happens after this, the run is one that can go on.
            self.record.about = None
            if not self.record.is_old:
                self.record.write()
            (self.path / "summary.json").unlink(missing_ok=True)
        if saved.seeds != config.seeds or self.record.is_old:
            write_settings(self.path, dataclasses.replace(saved, seeds=config.seeds))

    def _note_resumed(self, device: torch.device) -> None:
        """What a run goes on upon stands beside what it began on."""
        source = self.path / "environment.json"
        now = environment(device)
        try:
            began = read_signed(source, ANEW, must=False) if source.exists() else dict(now)
            before = list(began.get("resumed", []))
        except (DataError, TypeError):
            self.damaged.append(f"{source} was damaged: what the run began on is lost")
            began, before = dict(now), []
        write_signed(source, {**began, "resumed": [*before, now]})

    def _settle_rows(self) -> None:
        """Makes ``epochs.jsonl`` hold the rows that count, and no others."""
        source = self.path / "epochs.jsonl"
        try:
            found = source.read_bytes() if source.exists() else b""
        except OSError as error:
            raise DataError(
                f"{source} cannot be read ({error.strerror or error}); make it readable, or {ANEW}"
            ) from error
        if self.record.is_old:
            self.record.rows = self._old_rows(found)
        for key in self.order:
            if self.record.done(*key):
                self.rows += self.record.of(*key)
            else:
                state = self.state(*key, device=torch.device("cpu"))
                self.rows += [] if state is None else map(EpochRow.from_json, state["rows"])
        counted = lines_of(self.rows)
        if found != counted:
            # A kill here loses nothing, since the rows are in the record and the states.
            write_bytes(source, counted, durable=True)

    def _old_rows(self, content: bytes) -> list[EpochRow]:
        """The rows of the arms that are done, of a run whose record holds none."""
        source = self.path / "epochs.jsonl"
        lines = content.splitlines()
        found: dict[tuple[str, int], list[EpochRow]] = {}
        for number, line in enumerate(lines, start=1):
            try:
                row = row_of_line(line, source, number, ANEW)
            except DataError:
                if number == len(lines):
                    break  # torn by the kill
                raise
            found.setdefault(row.key, []).append(row)
        for key in self.costs:
            epochs = [row.epoch for row in found.get(key, [])]
            if epochs != list(range(1, self.epochs + 1)):
                raise DataError(
                    f"{source} lacks rows of {key[0]}, seed {key[1]}, which is finished; {ANEW}"
                )
        return [row for key in (*self.costs, *self.failures) for row in found.get(key, [])]

    def _open(self) -> None:
        try:
            # Unbuffered and in one piece: a row is on disk or not, whenever the run ends.
            self.stream = (self.path / "epochs.jsonl").open("ab", buffering=0)
        except OSError as error:
            raise InputError(
                f"{parameter('out', self.path)} cannot be written ({error.strerror or error}); "
                "give another folder"
            ) from error

    def check_folder(self) -> None:
        """Notices a folder that was deleted, moved or replaced under the run.

        Raises:
            DataError: It was. What is written would be lost, or come to stand in a new folder.
        """
        if self.stream is None:
            return
        try:
            there = (self.path / "epochs.jsonl").stat()
            if os.path.samestat(os.fstat(self.stream.fileno()), there):
                return
        except OSError:  # not there: as if it were another
            pass
        raise DataError(
            f"{self.path / 'epochs.jsonl'} was deleted, moved or replaced while the run was at "
            f"work; put {self.path} back and go on with {parameter('resume', True)}, or begin a "
            "new run"
        )

    def _append(self, lines: bytes) -> None:
        assert self.stream is not None
        try:
            view = memoryview(lines)
            while view:
                view = view[self.stream.write(view) :]
            os.fsync(self.stream.fileno())
        except OSError as error:
            cure = "free some space, then" if is_out_of_space(error) else "mend the disk, then"
            raise DataError(
                f"{self.path / 'epochs.jsonl'} cannot be written ({error}); {cure} go on with "
                f"{parameter('resume', True)}"
            ) from error

    def _load(self, name: str, device: torch.device, what: str) -> dict[str, Any] | None:
        path = self.path / "resume" / name
        if not path.exists():
            return None
        try:
            state = load_state(path, device, checked=not self.record.is_old)
        except DamagedStateError as error:
            self.damaged.append(f"{error}: {what} anew")
            path.unlink()
            return None
        return state

    def done(self, arm: str, seed: int) -> bool:
        """Whether an arm is finished or has failed."""
        return self.record.done(arm, seed)

    def state(self, arm: str, seed: int, *, device: torch.device) -> dict[str, Any] | None:
        """The state after the arm's last durable epoch; None before its first.

        None, too, where the state is damaged: it is removed, and said in ``damaged``.

        Raises:
            DataError: The file cannot be read.
        """
        return self._load(f"{arm}-seed{seed}.pt", device, f"{arm}, seed {seed}, begins")

    def save_epoch(self, row: EpochRow, state: Mapping[str, Any]) -> None:
        """Makes the state after an epoch durable, then counts its row.

        Args:
            row: The epoch's row.
            state: Tensors and plain values that the arm goes on from.

        Raises:
            DataError: The disk is full, or the folder is no longer there.
        """
        self.check_folder()
        rows = [old.to_json() for old in (*self.rows, row) if old.key == row.key]
        save_state(self.path / "resume" / f"{row.arm}-seed{row.seed}.pt", {**state, "rows": rows})
        self.rows.append(row)
        self._append(lines_of([row]))

    def _end(self, arm: str, seed: int) -> None:
        """Keeps the rows of an arm that is done; its state goes."""
        done = self.record.done
        self.record.rows = [row for row in self.rows if done(row.arm, row.seed)]
        self.record.write()
        (self.path / "resume" / f"{arm}-seed{seed}.pt").unlink(missing_ok=True)

    def finish(
        self, arm: str, seed: int, learner: Mapping[str, torch.Tensor], cost: ArmCost
    ) -> None:
        """Keeps a finished arm's learner, what it cost and the checksums of what it wrote."""
        self.check_folder()
        name = f"checkpoints/{arm}-seed{seed}.pt"
        write_with(self.path / name, functools.partial(torch.save, dict(learner)), durable=True)
        self.costs[arm, seed] = cost
        own = (name, f"choices/{arm}-seed{seed}.npz")
        shared = (f"choices/examples-seed{seed}.npz", *self._sheets())
        for file in (*own, *(file for file in shared if file not in self.record.files)):
            if (self.path / file).exists():
                self.record.note(file)
        self._end(arm, seed)

    def _sheets(self) -> list[str]:
        return [f"choices/{sheet.name}" for sheet in (self.path / "choices").glob("*.webp")]

    def drop_damaged_choices(self, seed: int) -> None:
        """Removes what is damaged of what all arms share, before it would be kept as it is."""
        for name in (f"choices/examples-seed{seed}.npz", *self._sheets()):
            if self.record.is_damaged(name):
                (self.path / name).unlink()
                del self.record.files[name]

    def fail(self, arm: str, seed: int, why: str) -> None:
        """Keeps why an arm was stopped, so that it is not run again; its state goes."""
        self.failures[arm, seed] = why
        self._end(arm, seed)

    def reference(self, seed: int) -> dict[str, Any] | None:
        """What :meth:`save_reference` kept for the seed; None where it is damaged."""
        what = f"the reference model of seed {seed} is trained"
        return self._load(f"reference-{seed}.pt", torch.device("cpu"), what)

    def save_reference(self, seed: int, content: dict[str, Any]) -> None:
        """Keeps the reference model's outputs and costs until the seed's arms are done."""
        self.check_folder()
        save_state(self.path / "resume" / f"reference-{seed}.pt", content)

    def drop_reference(self, seed: int) -> None:
        """The seed's arms are done."""
        (self.path / "resume" / f"reference-{seed}.pt").unlink(missing_ok=True)

    def save_labels(self, found: Mapping[str, Any]) -> None:
        """Writes ``labels.json``; before the first arm, so that a finished arm has it."""
        write_json(self.path / "labels.json", found, durable=True)
        self.record.note("labels.json")
        self.record.write()

    def finish_run(self, about: RunFacts) -> Summary:
        """Writes ``summary.json`` and gives it; nothing is left to go on from.

        Args:
            about: See :func:`summarize`.

        Raises:
            DataError: The disk is full, or the folder is no longer there.
        """
        self.check_folder()
        return finish(self.record, about)


def _check_facts(record: Record, facts: Mapping[str, Any]) -> None:
    for name, now in facts.items():
        before = record.facts.get(name)
        if before != now and name == "device":
            refuse_setting(record.path, name, str(before), str(now))
        if before != now:
            raise InputError(
                f"{parameter('resume')}: the {name} was {before} when the run in {record.path} "
                "began and is "
                f"{now} now; put back what changed, or begin a new run in another folder "
                f"with {parameter('out')}"
            )


def _refuse_what_was_done(path: Path) -> None:
    """A run without its record: whether data and device are the same, nobody knows."""
    done = [path / "summary.json", *path.glob("checkpoints/*.pt"), *path.glob("resume/*.pt")]
    rows = path / "epochs.jsonl"
    if any(file.exists() for file in done) or (rows.exists() and rows.stat().st_size):
        raise DataError(
            f"{path / 'progress.json'} is missing, which says what of the run is done; {ANEW}"
        )
