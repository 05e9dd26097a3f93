"""Before a run goes on: that it is the same run, and that its folder holds what counts."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import torch

from saln.errors import DataError, InputError
from saln.experiments.config import Config
from saln.experiments.environment import environment
from saln.experiments.progress_file import Record
from saln.experiments.rows import EpochRow, Key, lines_of, row_of_line
from saln.experiments.run_folder import (
    ANEW,
    RunFolder,
    read_settings,
    refuse_setting,
    write_settings,
)
from saln.files import read_signed, write_bytes, write_signed
from saln.messages import parameter

# What a write that was killed leaves beside its file: today's names, and an earlier version's.
_HALF_WRITTEN = re.compile(r"\..+\.([0-9a-f]{16}|\d+)")


def read_record(folder: RunFolder, facts: Mapping[str, Any]) -> Record:
    """What of a run is done; nothing where it was ended before it noted anything.

    Args:
        folder: The run's.
        facts: What must be as it was when the run began, beside the settings.

    Raises:
        InputError: ``facts`` differ.
        DataError: The record is damaged, or missing in a run that has done something.
    """
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
        before = record.facts.get(name)
        if before != now and name == "device":
            refuse_setting(record.path, name, str(before), str(now))
        if before != now:
            raise InputError(
                f"{parameter('resume')}: the {name} was {before} when the run in {record.path} "
                f"began and is {now} now; put back what changed, or begin a new run in another "
                f"folder with {parameter('out')}"
            )
    return record


def remove_half_written(folder: RunFolder) -> None:
    """Removes what a killed process left half-written."""
    # Only where runs and reports write: another program's hidden files are its own.
    for name in (".", "checkpoints", "choices", "figures", "resume", "tables"):
        for entry in (folder.path / name).glob(".*"):
            if _HALF_WRITTEN.fullmatch(entry.name) and entry.is_file():
                entry.unlink()


def read_lines(folder: RunFolder) -> bytes:
    """The content of ``epochs.jsonl``, whatever it is; empty where there is none.

    Raises:
        DataError: It cannot be read.
    """
    try:
        return folder.rows.read_bytes() if folder.rows.exists() else b""
    except OSError as error:
        raise DataError(
            f"{folder.rows} cannot be read ({error.strerror or error}); make it readable, or {ANEW}"
        ) from error


def write_lines(folder: RunFolder, before: bytes, rows: list[EpochRow]) -> None:
    """Makes ``epochs.jsonl`` hold the rows that count, and no others."""
    counted = lines_of(rows)
    if before != counted:
        # A kill here loses nothing, since the rows are in the record and the states.
        write_bytes(folder.rows, counted, durable=True)


def old_rows(folder: RunFolder, content: bytes, record: Record, epochs: int) -> list[EpochRow]:
    """The rows of the arms that are done, of a run whose record holds none.

    Raises:
        DataError: A line is no row, or a finished arm lacks some.
    """
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


def add_seeds(folder: RunFolder, record: Record, config: Config) -> None:
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


def note_resumed(folder: RunFolder, device: torch.device) -> str | None:
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
