"""``progress.json``: what of a run is done, with its rows, and the checksums of its files.

``epochs.jsonl``, ``trials.jsonl`` and ``summary.json`` are made of it, and made anew where they
are damaged: no reason to stop whoever reads a finished run.
"""

from __future__ import annotations

import contextlib
import json
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import xxhash

from saln.errors import DataError, InputError
from saln.experiments.json_record import json_lines
from saln.experiments.rows import ArmCost, EpochRow, Key, RunFacts, Summary, row_of_line
from saln.experiments.run_folder import ANEW, OLD_VERSION, RunFolder
from saln.experiments.summary import summarize
from saln.experiments.trials import Trial
from saln.files import (
    CHECKSUM,
    file_checksum,
    read_bytes,
    read_json,
    signed,
    write_bytes,
    write_signed,
    write_text,
)

FORMAT_VERSION = 3
# For a report: the run itself may be lost, but its rows need not.
_UNCHECKED = "put the file back, or delete it to draw the report without checking the other files"


@dataclass
class Record:
    """The content of ``progress.json``."""

    path: Path
    facts: dict[str, Any]  # what must be the same when the run goes on, beside the settings
    rows: list[EpochRow] = field(default_factory=list)  # of the arms that are done
    costs: dict[Key, ArmCost] = field(default_factory=dict)  # of the finished arms
    failures: dict[Key, str] = field(default_factory=dict)  # why an arm was stopped
    files: dict[str, str] = field(default_factory=dict)  # name -> checksum
    trials: list[Trial] = field(default_factory=list)  # of tuning
    about: RunFacts | None = None  # None until the whole run is finished
    version: int = FORMAT_VERSION

    @property
    def is_old(self) -> bool:
        """Whether it is of a version that kept neither rows nor checksums."""
        return self.version == OLD_VERSION

    def done(self, arm: str, seed: int) -> bool:
        """Whether an arm is finished or has failed."""
        return (arm, seed) in self.costs or (arm, seed) in self.failures

    def of(self, arm: str, seed: int) -> list[EpochRow]:
        """The rows of an arm."""
        return [row for row in self.rows if row.key == (arm, seed)]

    def note(self, name: str) -> None:
        """Takes a file's checksum."""
        self.files[name] = file_checksum(self.path / name)

    def is_damaged(self, name: str) -> bool:
        """Whether a file is there and is not the one whose checksum was taken."""
        path = self.path / name
        if name not in self.files or not path.exists():  # missing is for others to judge
            return False
        try:
            return file_checksum(path) != self.files[name]
        except OSError as error:
            raise DataError(
                f"{path} cannot be read ({error.strerror or error}); make it readable, or remove it"
            ) from error

    def write(self) -> None:
        """Writes the file, durably."""
        saved = {
            "format_version": FORMAT_VERSION,
            "facts": self.facts,
            "costs": [
                {"arm": arm, "seed": seed, **cost.to_json()}
                for (arm, seed), cost in self.costs.items()
            ],
            "failed": [{"arm": a, "seed": s, "error": e} for (a, s), e in self.failures.items()],
            "rows": [row.to_json() for row in self.rows],
            "files": self.files,
            "about": None if self.about is None else self.about.to_json(),
        }
        if self.trials:
            saved["trials"] = [trial.to_json() for trial in self.trials]
        write_signed(RunFolder(self.path).progress, saved)

    def summary(self, about: RunFacts) -> Summary:
        """What ``summary.json`` says of these arms."""
        return summarize(about, self.rows, self.costs, self.failures, self.trials)

    def finish(self, about: RunFacts) -> Summary:
        """Makes a run whose arms are all done a finished one; gives its summary."""
        summary = self.summary(about)
        text = _text(summary)
        # First: from here on the summary can be made of it.
        self.about = about
        self.files["summary.json"] = xxhash.xxh3_128_hexdigest(text.encode())
        self.write()
        _conclude(self.path, text)
        return summary

    def add_trial(self, trial: Trial) -> None:
        """Keeps a trial of tuning, durably."""
        self.trials.append(trial)
        self.write()
        self.write_trials()

    def write_trials(self) -> None:
        """Makes ``trials.jsonl`` what it should be; there is none where nothing was tried."""
        source, lines = RunFolder(self.path).trials, json_lines(self.trials)
        if self.trials and not (source.exists() and source.read_bytes() == lines):
            write_bytes(source, lines, durable=True)

    @classmethod
    def read(cls, path: Path, cure: str) -> Record | None:
        """Reads the file of a run folder; None where there is none.

        Raises DataError where it is not what was written, InputError for another version.
        """
        source = RunFolder(path).progress
        if not source.exists():
            return None
        values = read_json(source, cure)
        version = values.get("format_version")
        # One that lost its checksum to an editor would else pass for a version without.
        if CHECKSUM in values or version == FORMAT_VERSION:
            if signed(values)[CHECKSUM] != values.get(CHECKSUM):
                raise DataError(f"{source} is not what was written; {cure}")
        elif version != OLD_VERSION:  # older than runs that can be resumed, or from a later SALN
            raise InputError(
                f"{source} has format version {str(version)[:40]}, this SALN goes on with "
                f"{OLD_VERSION} and {FORMAT_VERSION}; use the SALN that began the run, or {cure}"
            )
        try:
            return cls._of(path, values)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise DataError(f"{source} holds no progress of a run ({error}); {cure}") from error

    @classmethod
    def _of(cls, path: Path, values: Mapping[str, Any]) -> Record:
        record = cls(path, dict(values["facts"]), version=values["format_version"])
        for entry in values["costs"]:
            # The file keeps arm and seed beside the cost, JSON having no keys of two parts.
            rest = {key: value for key, value in entry.items() if key not in ("arm", "seed")}
            key = entry["arm"], entry["seed"]
            record.costs[key] = ArmCost.from_json(rest, f"the cost of {key[0]}, seed {key[1]}")
        for entry in values["failed"]:
            record.failures[entry["arm"], entry["seed"]] = entry["error"]
        if record.is_old:  # its rows are in epochs.jsonl alone
            return record
        rows = [EpochRow.from_json(row, f"rows[{i}]") for i, row in enumerate(values["rows"])]
        # Runs that tune nothing, and those of earlier versions, have none.
        tried = enumerate(values.get("trials", []))
        trials = [Trial.from_json(trial, f"trials[{i}]") for i, trial in tried]
        about = None if values["about"] is None else RunFacts.from_json(values["about"], "about")
        return replace(record, rows=rows, files=values["files"], trials=trials, about=about)


class FinishedRun(NamedTuple):
    """A finished run, read; ``record`` is None for a run that is older than the checksums."""

    summary: Summary
    rows: list[EpochRow]
    record: Record | None

    def is_whole(self, path: Path) -> bool:
        """Whether rows and summary on the disk are what was written."""
        if self.record is None:
            return True  # nobody can tell
        try:
            lines = RunFolder(path).rows.read_bytes()
            tried = RunFolder(path).trials.read_bytes() if self.record.trials else b""
        except OSError:
            return False
        return (
            lines == json_lines(self.rows)  # of the record, which has a checksum
            and tried == json_lines(self.record.trials)
            and RunFolder(path).summary.exists()
            and not self.record.is_damaged("summary.json")
            and not RunFolder(path).resume.exists()
        )

    def mend(self, path: Path) -> None:
        """Writes rows and summary anew; nobody else may be at work on the run."""
        if self.record is not None and not self.is_whole(path):
            write_bytes(RunFolder(path).rows, json_lines(self.rows), durable=True)
            self.record.write_trials()
            _conclude(path, _text(self.summary))


def _text(summary: Summary) -> str:
    return json.dumps(summary.to_json(), indent=2) + "\n"


def _conclude(path: Path, text: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(RunFolder(path).resume)  # nothing is left to go on from
    write_text(RunFolder(path).summary, text, durable=True)


def read_finished(path: Path, cure: str = _UNCHECKED) -> FinishedRun | None:
    """Reads a finished run; None where it is not. Nothing is written.

    Rows and summary are made of what ``progress.json`` holds. Without it, or with that of an
    earlier version, they are those on the disk, which nobody can check. ``cure`` says what to do
    when ``progress.json`` is damaged.
    """
    record = Record.read(path, cure)
    if record is None or record.is_old:
        return _read_unchecked(path)
    if record.about is None:  # arms or seeds are still to be trained
        return None
    if RunFolder(path).summary.exists() and not record.is_damaged("summary.json"):
        summary = Summary.read(RunFolder(path).summary, ANEW)
    else:
        summary = record.summary(record.about)
    return FinishedRun(summary, record.rows, record)


def _read_unchecked(path: Path) -> FinishedRun | None:
    if not RunFolder(path).summary.exists():
        return None
    cure = f"delete it, and 'saln compare --resume --out {shlex.quote(str(path))}' makes it anew"
    summary = Summary.read(RunFolder(path).summary, f"{cure}, or {ANEW}")
    source = RunFolder(path).rows
    lines = enumerate(read_bytes(source, ANEW).splitlines(), start=1)
    again = "remove the line, or run again"
    rows = [row_of_line(line, source, number, again) for number, line in lines]
    return FinishedRun(summary, rows, None)
