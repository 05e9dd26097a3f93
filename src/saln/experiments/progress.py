"""The run folder while a run is under way, so that a killed run can go on.

After every epoch the training state is made durable first, with the arm's rows in it,
and then the row is added to ``epochs.jsonl``. So a row counts only when training can go
on from it; whatever else the file holds after a kill, half a line among it, is cut off,
and a row that did not reach the file comes from the state. A finished arm's checkpoint
and costs are written before its state is removed.

::

    config.json      the settings; a folder with this file is a run
    progress.json    finished arms with their costs, failed arms with their reasons
    epochs.jsonl     the rows
    resume/          the unfinished arm's state, the reference model's outputs for its seed
    checkpoints/     the finished arms' learners
    labels.json      what an arm that judges labels makes of the first seed's
    choices/         what they chose
    summary.json     once the whole run is finished
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import functools
import json
import os
import re
import shutil
import sys
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import torch

from saln.errors import DataError, InputError
from saln.experiments.config import Config, from_mapping
from saln.experiments.environment import environment
from saln.files import write_text, write_with

__all__ = ["RunProgress", "finished_summary", "free_folder", "read_settings", "refuse_changes"]

FORMAT_VERSION = 2
# What may differ when a run goes on: none of these changes a row.
FREE = frozenset(
    {
        "config",
        "data_root",
        "download",
        "workers",
        "cache_dir",
        "out",
        "resume",
        "json",
        "tensorboard",
    }
)  # fmt: skip

Row = dict[str, Any]


def free_folder(config: Config) -> Path:
    """The folder of a new run; nothing is written.

    Raises:
        InputError: It is a file, or holds something already.
    """
    slug = re.sub(r"[^a-z0-9]+", "-", (config.preset or config.dataset).lower()).strip("-")[-40:]
    now = datetime.datetime.now(datetime.UTC).strftime("%Y%m%d-%H%M%S")
    path = (config.out or Path("runs") / f"{slug}-{now}").expanduser()
    if path.exists() and not path.is_dir():
        raise InputError(f"--out {path} is a file; give a folder")
    if path.exists() and any(path.iterdir()):
        if (path / "config.json").exists():
            raise InputError(
                f"--out {path} holds another run; give a new or an empty folder, or --resume "
                "to go on with that run"
            )
        raise InputError(f"--out {path} holds other files; give a new or an empty folder")
    return path


def read_settings(path: Path) -> Config:
    """The settings of the run in a folder.

    Raises:
        InputError: The folder holds no run, or one of another version of SALN.
        DataError: Its ``config.json`` cannot be read.
    """
    source = path / "config.json"
    if not source.is_file():
        raise InputError(
            f"--resume: {path} holds no run; give the folder of a run with --out, or leave "
            "--resume out to begin one"
        )
    values = _read_json(source)
    return from_mapping(values, str(source))


def refuse_changes(path: Path, asked: Config) -> None:
    """Checks that a run would go on with the settings that it began with.

    More seeds may follow its own: that adds rows and changes none.

    Raises:
        InputError: A setting differs, or the folder holds no run.
        DataError: The folder's ``config.json`` cannot be read.
    """
    saved = read_settings(path)
    for field in dataclasses.fields(Config):
        before, now = getattr(saved, field.name), getattr(asked, field.name)
        if field.name in FREE | {"device"}:  # for the device see RunProgress.resume
            continue
        if isinstance(now, Path):
            now = now.expanduser()
        if field.name == "seeds" and asked.seeds[: len(saved.seeds)] == saved.seeds:
            continue
        if before != now:
            _refuse(path, field.name, _text(before), _text(now))


def _text(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _refuse(path: Path, name: str, before: str, now: str) -> typing.NoReturn:
    flag = "--" + name.replace("_", "-")
    more = f", give {before} and further seeds after them" if name == "seeds" else ""
    raise InputError(
        f"--resume: {flag} was {before} when the run in {path} began and is {now} now; leave "
        f"{flag} out to go on with {before}{more}, or begin a new run in another folder with --out"
    )


def finished_summary(path: Path, config: Config) -> dict[str, Any] | None:
    """The content of ``summary.json``; None while the run lacks a seed that is asked for.

    Raises:
        DataError: It cannot be read.
    """
    source = path / "summary.json"
    summary = _read_json(source) if source.exists() else None
    return summary if summary and summary.get("seeds") == list(config.seeds) else None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise ValueError("it holds no object")
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} cannot be read ({error}); put the file back, or begin a new run in "
            "another folder with --out"
        ) from error
    return values


class RunProgress(contextlib.AbstractContextManager["RunProgress"]):
    """What of a run is done. One process at a time; make it by ``start`` or ``resume``.

    Attributes:
        path: The run folder.
        rows: The rows that count.
        costs: (arm, seed) -> what a finished arm cost.
        failures: (arm, seed) -> why it was stopped.
    """

    def __init__(self, path: Path, config: Config, facts: Mapping[str, Any]) -> None:
        self.path = path
        self.epochs = config.epochs
        self.order = [(arm, seed) for seed in config.seeds for arm in config.methods]
        self.facts = dict(facts)
        self.rows: list[Row] = []
        self.costs: dict[tuple[str, int], dict[str, Any]] = {}
        self.failures: dict[tuple[str, int], str] = {}
        try:
            for name in ("checkpoints", "resume"):
                (path / name).mkdir(parents=True, exist_ok=True)
            # Unbuffered and in one piece: a row is on disk or not, whenever the run ends.
            self.stream: IO[bytes] = (path / "epochs.jsonl").open("ab", buffering=0)
        except OSError as error:
            raise InputError(
                f"--out {path} cannot be written ({error}); give another folder"
            ) from error
        self._lock()

    def _lock(self) -> None:
        if sys.platform == "win32":
            return
        import fcntl

        try:
            # Held by this process alone, not by its loaders; gone when it is killed.
            fcntl.lockf(self.stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.stream.close()
            raise InputError(
                f"--out {self.path}: another process is at work on this run; wait for its end, "
                "or end it first"
            ) from error

    def __exit__(self, *error: object) -> None:
        self.stream.close()

    @classmethod
    def start(
        cls, path: Path, config: Config, device: torch.device, facts: Mapping[str, Any]
    ) -> RunProgress:
        """Makes the folder of a new run.

        Args:
            path: From :func:`free_folder`.
            config: The settings.
            device: Where the run trains.
            facts: What must be the same when the run goes on, beside the settings.

        Raises:
            InputError: The folder cannot be made.
            DataError: The disk is full.
        """
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"--out {path} cannot be made ({error}); give another folder"
            ) from error
        # First: whatever happens after this, the folder is a run that can go on.
        write_text(
            path / "config.json", json.dumps(config.to_json(), indent=2) + "\n", durable=True
        )
        write_text(path / "environment.json", json.dumps(environment(device), indent=2) + "\n")
        progress = cls(path, config, facts)
        progress._write()
        return progress

    @classmethod
    def resume(
        cls, path: Path, config: Config, device: torch.device, facts: Mapping[str, Any]
    ) -> RunProgress:
        """Opens the folder of a run that was ended; see :meth:`start`.

        Raises:
            InputError: ``facts`` differ, or another process is at work on the run.
            DataError: The folder's files contradict each other.
        """
        progress = cls(path, config, facts)
        try:
            progress._clean()
            if (path / "progress.json").exists():
                progress._read()
            progress._settle_rows()
            progress._add_seeds(config)
            progress._note_resumed(device)
            progress._write()
        except BaseException:
            progress.stream.close()
            raise
        return progress

    def _clean(self) -> None:
        """Removes what a killed process left half-written."""
        for name in (".", "checkpoints", "choices", "resume"):
            for entry in (self.path / name).glob(".*"):
                if re.fullmatch(r"\..+\.\d+", entry.name):
                    entry.unlink()

    def _read(self) -> None:
        saved = _read_json(self.path / "progress.json")
        if saved.get("format_version") != FORMAT_VERSION:
            raise InputError(
                f"--resume: the run in {self.path} has format version "
                f"{saved.get('format_version')}, this SALN goes on with {FORMAT_VERSION}; use the "
                "SALN that began it, or begin a new run in another folder with --out"
            )
        for name, now in self.facts.items():
            before = saved["facts"].get(name)
            if before != now and name == "device":
                _refuse(self.path, name, str(before), str(now))
            if before != now:
                raise InputError(
                    f"--resume: the {name} was {before} when the run in {self.path} began and is "
                    f"{now} now; put back what changed, or begin a new run in another folder "
                    "with --out"
                )
        self.costs = {(entry.pop("arm"), entry.pop("seed")): entry for entry in saved["costs"]}
        self.failures = {(entry["arm"], entry["seed"]): entry["error"] for entry in saved["failed"]}

    def _write(self) -> None:
        saved = {
            "format_version": FORMAT_VERSION,
            "facts": self.facts,
            "costs": [{"arm": a, "seed": s, **cost} for (a, s), cost in self.costs.items()],
            "failed": [{"arm": a, "seed": s, "error": e} for (a, s), e in self.failures.items()],
        }
        text = json.dumps(saved, indent=2) + "\n"
        write_text(self.path / "progress.json", text, durable=True)

    def _add_seeds(self, config: Config) -> None:
        """Makes the folder that of an unfinished run of all the seeds."""
        saved = read_settings(self.path)
        if saved.seeds == config.seeds:
            return
        # First: without it, whatever happens after this, the run is one that can go on.
        (self.path / "summary.json").unlink(missing_ok=True)
        settings = dataclasses.replace(saved, seeds=config.seeds).to_json()
        text = json.dumps(settings, indent=2) + "\n"
        write_text(self.path / "config.json", text, durable=True)

    def _note_resumed(self, device: torch.device) -> None:
        """What a run goes on upon stands beside what it began on."""
        source = self.path / "environment.json"
        now = environment(device)
        began = _read_json(source) if source.exists() else dict(now)
        began["resumed"] = [*began.get("resumed", []), now]
        write_text(source, json.dumps(began, indent=2) + "\n")

    def _settle_rows(self) -> None:
        """Makes ``epochs.jsonl`` hold the rows that count, and no others."""
        source = self.path / "epochs.jsonl"
        lines = source.read_bytes().splitlines(keepends=True)
        found: dict[tuple[str, int], list[Row]] = {}
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line)
                found.setdefault((row["arm"], row["seed"]), []).append(row)
            except (ValueError, TypeError, KeyError) as error:
                if number == len(lines):
                    break  # torn by the kill
                raise DataError(
                    f"{source}, line {number} is no row of a run ({error}); put the file back, or "
                    "begin a new run in another folder with --out"
                ) from error
        for key in self.order:
            if key in self.costs:
                mine = found.get(key, [])
                if [row["epoch"] for row in mine] != list(range(1, self.epochs + 1)):
                    raise DataError(
                        f"{source} lacks rows of {key[0]}, seed {key[1]}, which is finished; put "
                        "the file back, or begin a new run in another folder with --out"
                    )
            elif key in self.failures:
                mine = found.get(key, [])
            else:
                state = self.state(*key, device=torch.device("cpu"))
                mine = [] if state is None else state["rows"]
            self.rows += mine
        counted = [_line(row) for row in self.rows]
        same = 0
        while same < min(len(lines), len(counted)) and lines[same] == counted[same]:
            same += 1
        # In place, for the lock is on this very file; a kill here loses nothing, since
        # the rows to be added are in the state.
        self.stream.truncate(sum(map(len, lines[:same])))
        self._append(b"".join(counted[same:]))

    def _append(self, lines: bytes) -> None:
        try:
            view = memoryview(lines)
            while view:
                view = view[self.stream.write(view) :]
            os.fsync(self.stream.fileno())
        except OSError as error:
            raise DataError(
                f"{self.path / 'epochs.jsonl'} cannot be written ({error}); free some space, then "
                "go on with --resume"
            ) from error

    def _state_path(self, arm: str, seed: int) -> Path:
        return self.path / "resume" / f"{arm}-seed{seed}.pt"

    def _load(self, path: Path, device: torch.device) -> dict[str, Any] | None:
        if not path.exists():
            return None
        try:
            state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
        except Exception as error:  # a broken file raises anything from EOFError to KeyError
            raise DataError(
                f"{path} cannot be read ({error}); delete it, and what it holds is made anew "
                "from the start"
            ) from error
        return state

    def done(self, arm: str, seed: int) -> bool:
        """Whether an arm is finished or has failed."""
        return (arm, seed) in self.costs or (arm, seed) in self.failures

    def state(self, arm: str, seed: int, *, device: torch.device) -> dict[str, Any] | None:
        """The state after the arm's last durable epoch; None before its first.

        Raises:
            DataError: The file is broken.
        """
        return self._load(self._state_path(arm, seed), device)

    def save_epoch(self, row: Row, state: Mapping[str, Any]) -> None:
        """Makes the state after an epoch durable, then counts its row.

        Args:
            row: The epoch's row.
            state: Tensors and plain values that the arm goes on from.

        Raises:
            DataError: The disk is full.
        """
        key = row["arm"], row["seed"]
        rows = [old for old in self.rows if (old["arm"], old["seed"]) == key]
        content = {**state, "rows": [*rows, row]}
        write_with(self._state_path(*key), functools.partial(torch.save, content), durable=True)
        self.rows.append(row)
        self._append(_line(row))

    def finish(
        self, arm: str, seed: int, learner: Mapping[str, torch.Tensor], cost: dict[str, Any]
    ) -> None:
        """Keeps a finished arm's learner and what it cost; its state goes."""
        checkpoint = self.path / "checkpoints" / f"{arm}-seed{seed}.pt"
        write_with(checkpoint, functools.partial(torch.save, dict(learner)), durable=True)
        self.costs[arm, seed] = cost
        self._write()
        self._state_path(arm, seed).unlink(missing_ok=True)

    def fail(self, arm: str, seed: int, why: str) -> None:
        """Keeps why an arm was stopped, so that it is not run again; its state goes."""
        self.failures[arm, seed] = why
        self._write()
        self._state_path(arm, seed).unlink(missing_ok=True)

    def reference(self, seed: int) -> dict[str, Any] | None:
        """What :meth:`save_reference` kept for the seed."""
        return self._load(self.path / "resume" / f"reference-{seed}.pt", torch.device("cpu"))

    def save_reference(self, seed: int, content: dict[str, Any]) -> None:
        """Keeps the reference model's outputs and costs until the seed's arms are done."""
        path = self.path / "resume" / f"reference-{seed}.pt"
        write_with(path, functools.partial(torch.save, content), durable=True)

    def drop_reference(self, seed: int) -> None:
        """The seed's arms are done."""
        (self.path / "resume" / f"reference-{seed}.pt").unlink(missing_ok=True)

    def save_labels(self, found: Mapping[str, Any]) -> None:
        """Writes ``labels.json``; before the first arm, so that a finished arm has it."""
        write_text(self.path / "labels.json", json.dumps(found, indent=2) + "\n", durable=True)

    def finish_run(self, summary: Mapping[str, Any]) -> None:
        """Writes ``summary.json``; nothing is left to go on from."""
        shutil.rmtree(self.path / "resume")
        text = json.dumps(summary, indent=2) + "\n"
        write_text(self.path / "summary.json", text, durable=True)


def _line(row: Row) -> bytes:
    return (json.dumps(row) + "\n").encode()
