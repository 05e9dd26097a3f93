"""Moves files as a journal says, and back: killed at any moment nothing is lost, and it goes on."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from saln.errors import DataError
from saln.files import file_checksum, flush, is_out_of_space
from saln.messages import parameter
from saln.review.move_journal import MoveJournal
from saln.review.move_plan import file_state, free_name

# The most files that have both their names at a time.
_TOGETHER = 256
# What systems say where a file cannot have two names.
_NO_LINKS = frozenset(
    {errno.EPERM, errno.EMLINK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL}
)

# A symbolic link is moved itself, where the system can name it.
_ITSELF: dict[str, bool] = (
    {"follow_symlinks": False} if os.link in os.supports_follow_symlinks else {}
)


@dataclass
class Undone:
    """What an undo came to."""

    restored: int = 0  # How many files are where they were before the apply
    remarks: dict[str, str] = field(default_factory=dict)  # Ids of those that are not, and why


class FileMover:
    """Does what a journal says in a folder, or takes it back.

    A file gets its new name first, and loses the old one when the new one is on the disk. So at
    every moment it has one of them, and a file that somebody puts at the new name stays. DataError
    where a file or folder cannot be changed or read; the same call goes on then.
    """

    def __init__(self, root: Path, journal: MoveJournal) -> None:
        self.root, self.journal, self.undone = root, journal, Undone()
        self.traces = FileTraces(root, journal)

    def apply(self) -> int:
        """Does all moves that are not done, and says how many were in all."""
        numbers = range(len(self.journal.moves))
        with self._explained():
            for folder in self.journal.folders:
                (self.root / folder).mkdir(exist_ok=True)
            # The journal's is as new as these: what is dropped must be found after a power cut.
            parents = ((self.root / folder).parent for folder in self.journal.folders)
            _flush_all((self.root, self.journal.path.parent.parent, *parents))
            self._in_parts(numbers, backward=False)
            self.journal.add({"done": True})
        return len(self.journal.moves) - len(self.journal.gone)

    def undo(self) -> Undone:
        """Gives all files their old places again, and removes the journal.

        A file that has another name or content by now is left alone, and remarked.
        """
        numbers = range(len(self.journal.moves))
        with self._explained():
            if not self.journal.is_undone:
                self.journal.add({"undone": True})
            self._in_parts(reversed(numbers), backward=True)
            for folder in reversed(self.journal.folders):
                with contextlib.suppress(OSError):  # somebody has put something into it
                    (self.root / folder).rmdir()
            self.journal.remove()
        return self.undone

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            path = error.filename2 or error.filename or self.root
            cure = "free some space" if is_out_of_space(error) else "make it writable"
            raise DataError(
                f"not all files are moved: {os.fsdecode(path)} ({error.strerror}); {cure}; nothing "
                "is lost: the same command goes on then, and "
                f"{parameter('undo', True)} takes all back"
            ) from error

    def _in_parts(self, numbers: Iterable[int], *, backward: bool) -> None:
        wanted = [number for number in numbers if number not in self.journal.gone]
        for start in range(0, len(wanted), _TOGETHER):
            both: list[tuple[int, Path, Path]] = []
            for number in wanted[start : start + _TOGETHER]:
                self.traces.remove_parts(number)
                place = self._backward(number) if backward else self._forward(number)
                if place is not None:
                    both.append((number, *place))
            # A file's new name is on the disk before the old one goes.
            _flush_all(new.parent for _, _, new in both)
            for number, old, new in both:
                # Not what somebody has saved under the old name in this moment.
                if os.path.lexists(old) and (is_same(old, new) or self.traces.is_ours(number, old)):
                    old.unlink()
            _flush_all(old.parent for _, old, _ in both)

    def _forward(self, number: int) -> tuple[Path, Path] | None:
        """Gives a file its new name; the name that has to go and the new one, None for nothing."""
        source, target = self.traces.paths(number)
        if not self.traces.is_ours(number, source):
            if not self.traces.is_ours(number, target):
                self.journal.add({"gone": number})
            return None
        if is_same(source, target) or self.traces.is_copy(number, target):
            return source, target  # somebody has stopped it between the two steps
        while True:
            try:
                return self._transfer(number, source, target)
            except FileExistsError:  # it has appeared since the plan was made
                target = free_name(target.with_name(source.name), set())
                self.journal.add({"target": [number, self._below(target)]})

    def _backward(self, number: int) -> tuple[Path, Path] | None:
        """As :meth:`_forward`, to the old place; remarks what hinders it."""
        source, target = self.traces.paths(number)
        move = self.journal.moves[number]
        ours = self.traces.is_ours(number, target)
        if self.traces.is_ours(number, source) or (
            not self.journal.is_done and self.traces.has_inode(number, source)
        ):
            self.undone.restored += 1
            both = ours and (is_same(source, target) or self.traces.is_copy(number, target))
            return (target, source) if both else None
        if not ours and not self.traces.has_inode(number, target):
            what = "another file is now at" if os.path.lexists(target) else "it is no longer at"
            self.undone.remarks[move.id] = f"{what} {move.target}; it is left as it is"
            return None
        if not ours:
            self.undone.remarks[move.id] = "its content has changed since; it is back with that"
        _make(source.parent)
        while True:
            try:
                place = self._transfer(number, target, source)
            except FileExistsError:
                source = free_name(source, set())
                self.journal.add({"source": [number, self._below(source)]})
                name = f"its place is taken; it is back as {source.name}"
                self.undone.remarks[move.id] = name
            else:
                self.undone.restored += 1
                return place

    def _below(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def _transfer(self, number: int, old: Path, new: Path) -> tuple[Path, Path] | None:
        """Gives a file another name beside the old one; None where the old one has gone at once.

        FileExistsError where something has the other name.
        """
        try:
            return (old, new) if _link(old, new) else None
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
        self._copy(number, old, new)
        return old, new

    def _copy(self, number: int, old: Path, new: Path) -> None:
        """Copies a file to another file system: first beside its place, under a hidden name."""
        part = self.traces.part(number, new)
        shutil.copy2(old, part, follow_symlinks=False)
        if not old.is_symlink():
            flush(part)
            if file_checksum(part) != file_checksum(old):
                raise DataError(f"{old} has changed while it was copied; run the same again")
        found = part.lstat()
        # Written down first: it tells our copy from a file that somebody else puts there.
        self.journal.add({"copied": [number, found.st_dev, found.st_ino]})
        if _link(part, new):
            part.unlink()


def _link(old: Path, new: Path) -> bool:
    """Gives a file another name; says whether the old one is still there."""
    try:
        os.link(old, new, **_ITSELF)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # Where a file cannot have two names no call is left that would never replace one.
        if os.path.lexists(new):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(new)) from error
        old.rename(new)
        return False
    return True


def _make(folder: Path) -> None:
    """Makes a folder that somebody has removed, with those above it, durably."""
    if not folder.is_dir():
        _make(folder.parent)
        folder.mkdir(exist_ok=True)
        flush(folder.parent)


def _flush_all(folders: Iterable[Path]) -> None:
    for folder in sorted(set(folders)):
        if folder.is_dir():
            flush(folder)


class FileTraces:
    """Recognizes the files of a journal wherever they are by now: by content, inode and copies."""

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
