"""Decisions brought into a folder of images, and taken back."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from saln.errors import DataError
from saln.files import locked
from saln.review.decisions import DecisionFile
from saln.review.file_mover import FileMover, Undone
from saln.review.move_journal import MoveJournal
from saln.review.move_plan import Move, MovePlan, check_writable, plan_moves, undo_folder


@dataclass(frozen=True)
class FolderState:
    """What earlier applies have left in a folder."""

    moved: dict[str, Move]  # What they have moved and nobody has undone, by id
    unfinished: int  # How many files the last one is about, where it was stopped midway
    applies: int  # How many can be undone


def folder_state(root: Path) -> FolderState:
    """What earlier applies have left in a folder; DataError where that cannot be read."""
    journals = MoveJournal.all_of(root)
    moved = {
        move.id: move
        for journal in journals
        for number, move in enumerate(journal.moves)
        if number not in journal.gone
    }
    stopped = [journal for journal in journals if journal.is_undone or not journal.is_done]
    return FolderState(moved, sum(len(journal.moves) for journal in stopped), len(journals))


@contextlib.contextmanager
def _alone(root: Path) -> Iterator[None]:
    if not root.is_dir():
        raise DataError(f"{root} no longer exists; put it back, or run saln labels again")
    check_writable(root)  # which the message about a lock would say less plainly
    refusal = f"another process changes {root} at this moment; wait until it has ended"
    folder = root / undo_folder(root)
    try:
        with locked(folder / "lock", refusal):
            # What a process has left that was killed while it wrote a plan down.
            for path in folder.glob(".apply-*"):
                path.unlink()
            yield
    finally:
        with contextlib.suppress(OSError):  # there is something to undo
            folder.rmdir()


def apply_to_folder(
    root: Path,
    decided: DecisionFile,
    *,
    class_names: Iterable[str] = (),
    begin: Callable[[MovePlan], object] = lambda plan: None,
) -> tuple[MovePlan, int]:
    """Moves files to where the decisions want them; see :func:`plan_moves`.

    An apply or undo that was stopped is ended first. ``begin`` is called when all is planned and
    before anything is moved, and may refuse it. Gives what was planned, and the number of files
    of an apply that is ended now. InputError as there, or where another process is at it;
    DataError where a file or folder cannot be changed or read: the same call goes on then.
    """
    with _alone(root):
        ended = 0
        for journal in reversed(MoveJournal.all_of(root)):
            if journal.is_undone:
                FileMover(root, journal).undo()
            elif not journal.is_done:
                ended += FileMover(root, journal).apply()
        moved = folder_state(root).moved
        plan = plan_moves(root, decided, class_names=class_names, moved_before=moved)
        begin(plan)
        if plan.moves:
            journal = MoveJournal.begin(plan)
            FileMover(root, journal).apply()
            plan.moves = [
                move for number, move in enumerate(journal.moves) if number not in journal.gone
            ]
            gone = "it has gone or changed while the others were moved"
            plan.skipped.update({journal.moves[number].id: gone for number in journal.gone})
        return plan, ended


def undo_in_folder(root: Path) -> Undone | None:
    """Takes the last apply back that nobody has undone; None where there is none.

    Errors are those of :func:`apply_to_folder`.
    """
    if not (root / undo_folder(root)).is_dir() and root.is_dir():
        return None
    with _alone(root):
        journals = MoveJournal.all_of(root)
        return FileMover(root, journals[-1]).undo() if journals else None
