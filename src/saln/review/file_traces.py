"""Which file is which, while some have one name and some two: by content, inode and copies."""

from __future__ import annotations

from pathlib import Path

from saln.review.move_journal import MoveJournal
from saln.review.move_plan import file_state


class FileTraces:
    """Recognizes the files of a journal wherever they are by now."""

    def __init__(self, root: Path, journal: MoveJournal) -> None:
        self.root, self.journal = root, journal

    def paths(self, number: int) -> tuple[Path, Path]:
        """The old and the new place of a move."""
        move = self.journal.moves[number]
        return self.root / move.source, self.root / move.target

    def part(self, number: int, path: Path) -> Path:
        """The hidden name beside a place under which a copy is made."""
        return path.with_name(f".{self.journal.path.stem}-{number}.saln")

    def remove_parts(self, number: int) -> None:
        """Removes what a process that was killed while it copied has left."""
        for path in self.paths(number):
            self.part(number, path).unlink(missing_ok=True)

    def is_copy(self, number: int, path: Path) -> bool:
        """Whether a file is a copy that was made to be moved to another file system."""
        return _place(path) in self.journal.copies.get(number, ())

    def has_inode(self, number: int, path: Path) -> bool:
        """Whether a file is the one that is moved, or its copy, whatever its content is by now."""
        state = self.journal.moves[number].state
        return _place(path) == (state.device, state.inode) or self.is_copy(number, path)

    def is_ours(self, number: int, path: Path) -> bool:
        """Whether a file is the one that is moved, with the same content."""
        state = self.journal.moves[number].state
        try:
            found = path.lstat()
            as_then = (found.st_size, found.st_mtime_ns) == (state.size, state.modified)
            if as_then and self.has_inode(number, path):
                return True
            # A tree that was copied or put back from a backup has other inodes.
            return file_state(path).key == state.key
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return False


def _place(path: Path) -> tuple[int, int] | None:
    try:
        found = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino


def is_same(one: Path, other: Path) -> bool:
    """Whether two names are those of one file; links are not followed."""
    return (place := _place(one)) is not None and place == _place(other)
