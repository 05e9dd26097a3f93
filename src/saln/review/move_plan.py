"""What decisions mean for the files of a folder: which goes where. Nothing is touched here."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from saln.errors import DataError
from saln.files import file_checksum
from saln.messages import shown
from saln.review.class_folders import ClassFolders, normal
from saln.review.decisions import Decision, DecisionFile

# Ends the name of the folder that holds dropped files and what is needed to undo.
HIDDEN = ".saln"
# Before the text of a symbolic link, where a checksum stands for other files.
LINK = "link "
_LONGEST = 255  # bytes of a name, of the usual file systems


@dataclass(frozen=True, slots=True)
class FileState:
    """What a file is recognized by under another name: its content, and its place on the disk."""

    key: str  # A checksum of the bytes; of a symbolic link its text
    device: int
    inode: int
    size: int
    modified: int


@dataclass(frozen=True, slots=True)
class Move:
    """One file that gets another place; both are paths below the root."""

    id: str
    source: str
    target: str
    state: FileState

    @property
    def is_drop(self) -> bool:
        """Whether the file leaves the data set."""
        return self.target.partition("/")[0] in ("..", HIDDEN)

    @property
    def is_renamed(self) -> bool:
        """Whether its name was taken there."""
        return PurePosixPath(self.source).name != PurePosixPath(self.target).name


@dataclass
class MovePlan:
    """What is to be done in a folder."""

    root: Path
    moves: list[Move] = field(default_factory=list)  # In the order of the decisions
    # Those that have to be made first, below the root, parents before children
    folders: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)  # Ids of what cannot be moved, and why
    missing: set[str] = field(default_factory=set)  # Those of them that have no file
    kept: int = 0  # How many examples stay where they are, as decided
    done: int = 0  # How many were moved before by the same decision


def undo_folder(root: Path) -> str:
    """Where dropped files and what an undo needs are, as a path from the root.

    Beside the data set: inside of it torchvision would take the folder for a class. Where nothing
    can be made beside it, or an apply has left one inside, it is there.
    """
    real = Path(os.path.realpath(root))
    beside = f".{real.name}{HIDDEN}"
    there = (real.parent / beside).is_dir() or os.access(real.parent, os.W_OK | os.X_OK)
    inside = not real.name or (real / HIDDEN).is_dir() or not there
    return HIDDEN if inside else f"../{beside}"


def file_state(path: Path) -> FileState:
    """What a file can be recognized by; a symbolic link is not followed."""
    found = path.lstat()
    key = f"{LINK}{path.readlink()}" if stat.S_ISLNK(found.st_mode) else file_checksum(path)
    return FileState(key, found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def free_name(path: Path, taken: set[str]) -> Path:
    """The path itself or, where something is there, one with ``(2)`` in it, ``(3)`` and so on."""
    number, free = 1, path
    while str(free) in taken or os.path.lexists(free):
        number += 1
        stem, ending = path.stem, f" ({number}){path.suffix}"
        while len(os.fsencode(stem + ending)) > _LONGEST:
            stem = stem[:-1]
        free = path.with_name(stem + ending)
    return free


def check_writable(folder: Path) -> None:
    """Refuses a folder in which nothing can be moved, with a DataError that names it."""
    if not os.access(folder, os.W_OK | os.X_OK):
        raise DataError(
            f"nothing is moved: the folder {folder} cannot be changed; make it writable"
        )


def plan_moves(
    root: Path,
    decided: DecisionFile,
    *,
    class_names: Iterable[str] = (),
    moved_before: dict[str, Move] | None = None,
) -> MovePlan:
    """Plans what makes a folder be as was decided.

    A file goes into the folder of its new class in the same split, below the same sub-folders; a
    name that is taken there gets a number. What is dropped goes into :func:`undo_folder`.
    Classes of ``class_names`` may have no folder yet; ``moved_before`` is what earlier applies have
    moved and nobody has undone, by id.

    InputError for a label that is no class, or an id that no file of the folder can have, names the
    line; DataError where a folder that a file leaves or enters cannot be read or changed.
    """
    return _Planner(root, decided, class_names, moved_before or {}).plan()


class _Planner:
    def __init__(
        self, root: Path, decided: DecisionFile, class_names: Iterable[str], before: dict[str, Move]
    ) -> None:
        self.root, self.decided, self.before = root, decided, before
        self.classes = ClassFolders(root, class_names)
        self.plan_ = MovePlan(root)
        self.taken: set[str] = set()
        self.undo_folder = undo_folder(root)

    def plan(self) -> MovePlan:
        """See :func:`plan_moves`."""
        if not self.root.is_dir():
            raise DataError(f"{self.root} no longer exists; put it back, or run saln labels again")
        for each in self.decided.decisions:
            why = self._add(each)
            if why:
                self.plan_.skipped[each.id] = why
        self._keep_linked_files()
        self._check_writable()
        for move in self.plan_.moves:
            self._make((self.root / move.target).parent)
        return self.plan_

    def _add(self, decision: Decision) -> str | None:
        """Adds what a decision asks for; says why it cannot be done."""
        source = self._source(decision)
        moves = decision.decision != "drop" and normal(decision.label) != normal(decision.given)
        if not moves and decision.decision != "drop":
            self.plan_.kept += 1
            return None
        if source is None:
            return self._missing(decision)
        depth = self._depth(decision, source)
        if depth is None:
            return f"it is no longer in a folder of the class {decision.given}"
        try:
            if not stat.S_ISREG(source.stat().st_mode):
                return "it is no file"
            changed = decision.key and file_checksum(source) != decision.key
            state = file_state(source)
        except OSError as error:
            return f"it cannot be read ({error.strerror})"
        if changed:
            return "its content has changed since the review"
        below = source.relative_to(self.root)
        if decision.decision == "drop":
            wanted = self.root / self.undo_folder / "dropped" / below
        else:
            base = self.root.joinpath(*below.parts[:depth])
            try:
                folder = self.classes.folder(base, decision.label)
            except ValueError as error:
                raise decision.refused(self.decided.path, str(error)) from error
            wanted = base.joinpath(folder, *below.parts[depth + 1 :])
        if source.is_symlink() and not _leads_alike(source, wanted):
            return f"it is a relative link, which would lead nowhere from {wanted.parent}"
        target = free_name(wanted, self.taken)
        self.taken.add(str(target))
        there = target.relative_to(self.root)
        self.plan_.moves.append(Move(decision.id, below.as_posix(), there.as_posix(), state))
        return None

    def _source(self, decision: Decision) -> Path | None:
        """The file that an id names; None where there is none."""
        path = PurePosixPath(decision.id)
        if path.is_absolute() or ".." in path.parts or not path.parts or path.parts[0] == HIDDEN:
            what = f"the id {shown(decision.id)} is no path below {self.root}; give one"
            raise decision.refused(self.decided.path, what)
        found = self.root / path
        if os.path.lexists(found):
            return found
        found = self.root
        for part in path.parts:
            if not os.path.lexists(found / part):
                # A spreadsheet or another system may have coded the accents anew.
                alike = self.classes.coded(found).get(normal(part), [])
                if len(alike) != 1:
                    return None
                part = alike[0]
            found /= part
        return found

    def _missing(self, decision: Decision) -> str | None:
        before = self.before.get(decision.id)
        if before is not None and (
            before.state.key == decision.key
            or not decision.key
            or before.state.key.startswith(LINK)
        ):
            self.plan_.done += 1
            return None
        self.plan_.missing.add(decision.id)
        return "it no longer exists"

    def _depth(self, decision: Decision, source: Path) -> int | None:
        """How far below the root the class folders are: 0, or 1 where there are splits."""
        parts = source.relative_to(self.root).parts[:-1]
        for depth in (1, 0) if decision.split else (0, 1):
            if len(parts) > depth and normal(parts[depth]) == normal(decision.given):
                return depth
        return None

    def _make(self, folder: Path) -> None:
        """Notes the folders that are missing for one to be there."""
        missing: list[str] = []
        while str(folder) not in self.taken and not folder.is_dir():
            self.taken.add(str(folder))
            missing.append(folder.relative_to(self.root).as_posix())
            folder = folder.parent
        self.plan_.folders += [path for path in reversed(missing) if path != self.undo_folder]

    def _keep_linked_files(self) -> None:
        """Leaves files in place that links in the folder lead to: those would lead nowhere."""
        if not self.plan_.moves:
            return
        links = list(_links(self.root))
        sources = {
            os.path.realpath(self.root / move.source): move.id
            for move in (self.plan_.moves if links else ())
            if not (self.root / move.source).is_symlink()
        }
        led = {link: sources.get(os.path.realpath(link)) for link in links}
        linked = {
            name: f"the link {link} leads to it" for link, name in led.items() if name is not None
        }
        self.plan_.skipped.update(linked)
        self.plan_.moves = [move for move in self.plan_.moves if move.id not in linked]

    def _check_writable(self) -> None:
        moves = self.plan_.moves
        folders = {(self.root / move.source).parent for move in moves}
        folders |= {(self.root / move.target).parent for move in moves} | {self.root}
        for folder in sorted(folders if moves else ()):
            while not folder.exists():
                folder = folder.parent
            check_writable(folder)


def _links(folder: Path) -> Iterator[str]:
    """The symbolic links to files below a folder; the kind of an entry costs no look at it."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_symlink():
                if not entry.is_dir():
                    yield entry.path
            elif entry.is_dir() and not entry.name.startswith("."):
                yield from _links(Path(entry.path))


def _leads_alike(link: Path, wanted: Path) -> bool:
    """Whether a symbolic link leads to the same file from another place."""
    led = link.readlink()
    parent = Path(os.path.realpath(wanted.parent))
    return os.path.realpath(parent / led) == os.path.realpath(link)
