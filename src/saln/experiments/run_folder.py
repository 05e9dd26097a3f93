"""Which folder a run is in, who is at work there, and with which settings."""

from __future__ import annotations

import contextlib
import datetime
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NoReturn

from saln.errors import DataError, InputError
from saln.experiments.config import Config, from_mapping
from saln.features.locks import ByteLocks, LocksNotKnownError
from saln.files import CHECKSUM, check_new_path, read_json, read_signed, slug, write_signed
from saln.messages import parameter

LOCK = ".lock"
_ATTEMPTS = 100
# Runs of this version have no checksums; they are taken as they are.
OLD_VERSION = 2
ANEW = "put the file back, or begin a new run in another folder"
# What may differ when a run goes on: none of these changes a row.
FREE = frozenset(
    {
        "config", "data_root", "download", "workers", "cache_dir", "out", "resume", "json",
        "tensorboard", "log",
    }
)  # fmt: skip


class _File:
    """The path of something in a run folder."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, folder: RunFolder, owner: object) -> Path:
        return folder.path / self.name


@dataclass(frozen=True)
class RunFolder:
    """The files of a run; :mod:`saln.experiments.progress` says what they hold."""

    path: Path

    config = _File("config.json")
    environment = _File("environment.json")
    progress = _File("progress.json")
    rows = _File("epochs.jsonl")
    trials = _File("trials.jsonl")
    summary = _File("summary.json")
    labels = _File("labels.json")
    report = _File("report.html")
    checkpoints = _File("checkpoints")
    choices = _File("choices")
    resume = _File("resume")

    def log(self, tool: str) -> Path:
        """What is written for another tool, such as ``tensorboard``."""
        return self.path / tool

    def checkpoint(self, arm: str, seed: int) -> Path:
        """The weights that a finished arm ended with."""
        return self.checkpoints / f"{arm}-seed{seed}.pt"

    def state(self, arm: str, seed: int) -> Path:
        """What an arm in progress goes on from."""
        return self.resume / f"{arm}-seed{seed}.pt"

    def reference(self, seed: int) -> Path:
        """What the reference model of a seed gave, while its arms are in progress."""
        return self.resume / f"reference-{seed}.pt"

    def choices_of(self, arm: str, seed: int) -> Path:
        """What an arm chose."""
        return self.choices / f"{arm}-seed{seed}.npz"

    def examples(self, seed: int) -> Path:
        """The labels of a seed's training examples."""
        return self.choices / f"examples-seed{seed}.npz"

    def sheet(self, epoch: int, step: int) -> Path:
        """The images of a batch that is shown."""
        return self.choices / f"epoch{epoch}-step{step}.webp"

    @property
    def label_sheet(self) -> Path:
        """The images of the labels that are believed least."""
        return self.choices / "doubted-labels.webp"

    def shared(self, seed: int) -> list[Path]:
        """What the choices of a seed's arms share."""
        return [self.examples(seed), *self.choices.glob("*.webp")]

    def name_of(self, path: Path) -> str:
        """A file's name in records: relative to the folder, with slashes."""
        return path.relative_to(self.path).as_posix()


class _TakenError(InputError):
    """Another process is at work in the folder, or it holds something."""


@contextlib.contextmanager
def claimed(config: Config) -> Iterator[Path]:
    """Gives the folder of a run, which nobody else works in until the block ends.

    Two runs that are started at once would else both find it free. Nothing is written but the
    lock; a folder that was made for it and is still empty at the end goes again. Raises InputError
    where it cannot be made or another process is at work in it, where a new run finds anything
    there, or a run to go on with is not there or has other settings; DataError for ``config.json``.
    """
    with contextlib.ExitStack() as stack:
        for path in _places(config):
            try:
                stack.enter_context(held(path))
                if config.resume:
                    refuse_changes(path, config)
                else:
                    _refuse_what_is_there(path)
                break
            except _TakenError:
                if config.out is not None:
                    raise
                stack.close()  # a run that began in the same second
        yield path


def _places(config: Config) -> Iterator[Path]:
    if config.out is not None:
        yield config.out.expanduser()
        return
    start = slug(config.preset or config.dataset, 40)
    now = datetime.datetime.now(datetime.UTC).strftime("%Y%m%d-%H%M%S")
    yield Path("runs") / f"{start}-{now}"
    yield from (Path("runs") / f"{start}-{now}-{number}" for number in itertools.count(2))


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Keeps other processes from working in a folder, which is made; InputError where one is.

    The system ends it when the process ends, however it does; its loaders do not hold it.
    """
    check_new_path(path, "out")
    if path.exists() and not path.is_dir():
        raise InputError(f"{parameter('out', path)} is a file; give a folder")
    # What is made for the lock goes with it where no run came to be.
    made = [part for part in (path, *path.parents) if not part.exists()]
    try:
        lock = _lock(path)
    except OSError as error:
        raise unwritable_folder(path, error) from error
    try:
        yield
    finally:
        # Removed while it is held: who has opened it sees that it is no longer the folder's.
        with contextlib.suppress(OSError):  # Windows removes no open file
            (path / LOCK).unlink(missing_ok=True)
        if lock is not None:
            lock.close()
        with contextlib.suppress(OSError):  # not empty: it is a run
            for part in made:
                part.rmdir()


def unwritable_folder(path: Path, error: OSError) -> InputError:
    """The error for a run folder that nothing can be written to."""
    why = error.strerror or error
    return InputError(f"{parameter('out', path)} cannot be written ({why}); give another folder")


def _lock(path: Path) -> ByteLocks | None:
    """The lock of a folder; None on a disk that knows none, where nobody can be kept out."""
    attempts = 0
    while True:
        try:
            path.mkdir(parents=True, exist_ok=True)
            lock = ByteLocks(path / LOCK)
        except (FileNotFoundError, FileExistsError):
            attempts += 1
            if attempts == _ATTEMPTS:  # a link to nowhere
                raise
            continue  # who ended just now has removed it
        try:
            free = lock.try_lock(0)
        except LocksNotKnownError:
            lock.close()
            return None
        if free and lock.is_current():
            return lock
        lock.close()
        if not free:
            raise _TakenError(
                f"{parameter('out', path)}: another process is at work on a run there; wait for "
                "its end, or give another folder"
            )


def _refuse_what_is_there(path: Path) -> None:
    if all(entry.name == LOCK for entry in path.iterdir()):
        return
    if RunFolder(path).config.exists():
        raise _TakenError(
            f"{parameter('out', path)} holds another run; give a new or an empty folder, or "
            f"{parameter('resume', True)} to go on with that run"
        )
    raise _TakenError(f"{parameter('out', path)} holds other files; give a new or an empty folder")


def write_settings(path: Path, config: Config) -> None:
    """Writes ``config.json``; a folder that has it is a run."""
    write_signed(RunFolder(path).config, config.to_json())


def read_settings(path: Path) -> Config:
    """The settings of the run in a folder; InputError without one, DataError for damage."""
    source, progress = RunFolder(path).config, RunFolder(path).progress
    if not source.is_file():
        if progress.exists():
            raise DataError(f"{source} is missing; {ANEW}")
        raise InputError(
            f"{parameter('resume')}: {path} holds no run; give the folder of a run with "
            f"{parameter('out')}, or leave {parameter('resume')} out to begin one"
        )
    # Both have a checksum, or neither: those of an earlier version.
    must = progress.exists() and CHECKSUM in read_json(progress, ANEW)
    return from_mapping(read_signed(source, ANEW, must=must), str(source))


def refuse_changes(path: Path, asked: Config) -> None:
    """Refuses other settings than a run began with; more seeds after its own change no row."""
    saved = read_settings(path)
    for field in fields(Config):
        before, now = getattr(saved, field.name), getattr(asked, field.name)
        if field.name in FREE | {"device"}:  # for the device see RunProgress.resume
            continue
        if isinstance(now, Path):
            now = now.expanduser()
        if field.name == "seeds" and asked.seeds[: len(saved.seeds)] == saved.seeds:
            continue
        if field.name == "methods" and saved.labels == asked.labels:
            continue  # however they were written
        if before != now:
            refuse_setting(path, field.name, _text(before), _text(now))


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def refuse_setting(path: Path, name: str, before: str, now: str) -> NoReturn:
    """Raises that a run began with another value of a setting."""
    setting = parameter(name)
    more = f", give {before} and further seeds after them" if name == "seeds" else ""
    raise InputError(
        f"{parameter('resume')}: {setting} was {before} when the run in {path} began and is {now} "
        f"now; leave {setting} out to go on with {before}{more}, or begin a new run in another "
        f"folder with {parameter('out')}"
    )
