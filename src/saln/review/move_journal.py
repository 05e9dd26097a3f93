"""What an apply does to a folder, written down before it is done: so it can go on, or be undone."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from saln.errors import DataError
from saln.files import flush, read_bytes, unwritable, write_bytes
from saln.review.move_plan import FileState, Move, MovePlan, undo_folder

_FORMAT = 1


class MoveJournal:
    """A file of lines of JSON: the whole plan, which comes first, then what differed from it.

    The plan is on the disk before a file is moved, and moving is one of few steps whose traces
    differ, so not every move needs a line. Later lines are on the disk before what they announce
    is done. Moves have the targets that they got, folders are those that the apply makes.
    """

    def __init__(self, path: Path, moves: list[Move], folders: list[str]) -> None:
        self.path, self.moves, self.folders = path, moves, folders
        # Number of a move -> device and inode of each copy of its file.
        self.copies: dict[int, set[tuple[int, int]]] = {}
        self.gone: set[int] = set()  # moves that were not done, for the file had gone
        self.is_done = False
        self.is_undone = False  # or somebody has begun to

    @classmethod
    def begin(cls, plan: MovePlan) -> MoveJournal:
        """Writes a plan down, durably; DataError where it cannot be, and nothing is there."""
        before = list(_numbers(plan.root))
        path = plan.root / undo_folder(plan.root) / f"apply-{max(before, default=0) + 1:04}.jsonl"
        lines: list[Any] = [{"format": _FORMAT, "folders": plan.folders}]
        lines += [dataclasses.asdict(move) for move in plan.moves]
        # Escaped to ASCII, names that are no UTF-8 come back as they were.
        text = "".join(json.dumps(line) + "\n" for line in lines)
        write_bytes(path, text.encode(), durable=True)
        return cls(path, plan.moves, plan.folders)

    @classmethod
    def read(cls, path: Path) -> MoveJournal:
        """Reads what was written, without a last line that was cut short; else DataError."""
        cure = "move the files back by hand, by what it says, and remove it"
        try:
            lines = read_bytes(path, "make it so").split(b"\n")[:-1]
            first, *rest = [json.loads(line) for line in lines]
            if first["format"] != _FORMAT:
                raise DataError(f"{path} is of a newer version of saln; undo it by that one")
            moves = [
                Move(**line | {"state": FileState(**line["state"])})
                for line in rest
                if "id" in line
            ]
            journal = cls(path, moves, first["folders"])
            for line in rest:
                journal._take(line)
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path} is damaged ({error}); {cure}") from error
        return journal

    @classmethod
    def all_of(cls, root: Path) -> list[MoveJournal]:
        """Those of a folder that nobody has undone to the end, the oldest first."""
        numbers = sorted(_numbers(root))
        folder = root / undo_folder(root)
        return [cls.read(folder / f"apply-{number:04}.jsonl") for number in numbers]

    def _take(self, line: dict[str, Any]) -> None:
        match line:
            case {"target": [int(number), str(path)]}:
                self.moves[number] = dataclasses.replace(self.moves[number], target=path)
            case {"source": [int(number), str(path)]}:
                self.moves[number] = dataclasses.replace(self.moves[number], source=path)
            case {"copied": [int(number), int(device), int(inode)]}:
                self.copies.setdefault(number, set()).add((device, inode))
            case {"gone": int(number)}:
                self.gone.add(number)
            case {"done": True}:
                self.is_done = True
            case {"undone": True}:
                self.is_undone = True

    def add(self, line: dict[str, Any]) -> None:
        """Writes a line down, durably; DataError where it cannot be written."""
        try:
            with self.path.open("r+b") as stream:
                # A line that was cut short would join this one.
                whole = stream.read().rfind(b"\n") + 1
                stream.truncate(whole)
                stream.seek(whole)
                stream.write(json.dumps(line).encode() + b"\n")
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            raise unwritable(self.path, error) from error
        self._take(line)

    def remove(self) -> None:
        """Ends it: there is nothing left to undo."""
        self.path.unlink()
        flush(self.path.parent)


def _numbers(root: Path) -> Iterator[int]:
    for path in (root / undo_folder(root)).glob("apply-*.jsonl"):
        number = path.stem.removeprefix("apply-")
        if number.isdecimal():
            yield int(number)
