"""A finished run as others read it; what can be made anew of it is no reason to stop."""

from __future__ import annotations

import contextlib
import json
import shlex
import shutil
from pathlib import Path
from typing import NamedTuple

import xxhash

from saln.experiments.json_record import json_lines
from saln.experiments.progress_file import Record
from saln.experiments.rows import EpochRow, RunFacts, Summary, row_of_line
from saln.experiments.run_folder import ANEW, RunFolder
from saln.experiments.summary import summarize
from saln.files import read_bytes, write_bytes, write_text

# For a report: the run itself may be lost, but its rows need not.
_UNCHECKED = "put the file back, or delete it to draw the report without checking the other files"


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


def finish(record: Record, about: RunFacts) -> Summary:
    """Makes a run whose arms are all done a finished one; gives its summary."""
    summary = _summary(record, about)
    text = _text(summary)
    # First: from here on the summary can be made of it.
    record.about = about
    record.files["summary.json"] = xxhash.xxh3_128_hexdigest(text.encode())
    record.write()
    _conclude(record.path, text)
    return summary


def _summary(record: Record, about: RunFacts) -> Summary:
    return summarize(about, record.rows, record.costs, record.failures, record.trials)


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
        summary = _summary(record, record.about)
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
