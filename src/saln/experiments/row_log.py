"""``epochs.jsonl`` while a run adds rows to it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO

from saln.errors import DataError
from saln.experiments.rows import EpochRow, lines_of
from saln.experiments.run_folder import unwritable_folder
from saln.files import is_out_of_space
from saln.messages import parameter


class RowLog:
    """Adds rows to a file, each durable and in one piece.

    Args:
        path: The file; what it holds stays.

    Raises:
        InputError: It cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            # Unbuffered and in one piece: a row is on disk or not, whenever the run ends.
            self.stream: IO[bytes] = path.open("ab", buffering=0)
        except OSError as error:
            raise unwritable_folder(path.parent, error) from error

    def check(self) -> None:
        """Notices a folder that was deleted, moved or replaced under the run.

        Raises:
            DataError: It was. What is written would be lost, or come to stand in a new folder.
        """
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
        """Adds a row.

        Raises:
            DataError: The disk is full or cannot be written to.
        """
        try:
            self._append(lines_of([row]))
        except OSError as error:
            cure = "free some space, then" if is_out_of_space(error) else "mend the disk, then"
            raise DataError(
                f"{self.path} cannot be written ({error}); {cure} go on with "
                f"{parameter('resume', True)}"
            ) from error

    def _append(self, line: bytes) -> None:
        view = memoryview(line)
        while view:  # a system may take less than it is given
            view = view[self.stream.write(view) :]
        os.fsync(self.stream.fileno())

    def close(self) -> None:
        """Ends it."""
        self.stream.close()
