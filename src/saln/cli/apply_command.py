"""``saln labels apply``: what was decided about labels, brought into the data set."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saln.cli.flags import Command
from saln.errors import InputError
from saln.files import read_json
from saln.messages import parameter, shown
from saln.review.apply_folder import apply_to_folder, folder_state, undo_in_folder
from saln.review.decisions import REMEMBERED, read_decisions, read_ids, remember
from saln.review.move_plan import MovePlan, plan_moves

# How many files of a kind are shown.
_SHOWN = 10
_LIKELY_WRONG = 0.5


@dataclass(frozen=True, kw_only=True)
class ApplySettings:
    """The settings of `saln labels apply`."""

    file: Path
    """decisions.csv, as the page saves it, or labels.csv with decisions written into it."""
    out: Path | None = None
    """The folder of the review; when not given, the one that the file names, or its own."""
    yes: bool = False
    """Do it; without, what would be done is only shown."""
    undo: bool = False
    """Take the last apply back; each once more takes back the one before."""
    believed: bool = False
    """Of labels.csv: give undecided examples that look wrong the label that is believed."""
    below: float | None = None
    """With --believed: only where the given label is right with a probability below this (0.5)."""
    json: bool = False
    """Print one JSON object in the place of lines."""

    def __post_init__(self) -> None:
        """Checks what can be known before a file is opened.

        Raises:
            InputError: A value that is not allowed.
        """
        if self.below is not None and not self.believed:
            raise InputError(
                f"{parameter('below')} is for {parameter('believed', True)}; give both"
            )
        if self.below is not None and not 0 < self.below <= 1:
            raise InputError(
                f"{parameter('below', self.below)} is not allowed; give a probability above 0, at "
                "most 1"
            )

    @property
    def threshold(self) -> float | None:
        """Below which probability a label is replaced though nobody has decided; None: nowhere."""
        return (self.below or _LIKELY_WRONG) if self.believed else None


@dataclass(frozen=True)
class _Review:
    """What review.json says of a review."""

    folder: Path
    dataset: str
    class_names: tuple[str, ...]


def _apply(settings: ApplySettings) -> int:
    """Brings decisions about labels into the data set: files move to the folder of their class.

    Shows what would be done, and does it with --yes. No file is replaced or removed: what is
    dropped goes into the hidden folder .saln of the data set, and --undo takes all back. What was
    stopped midway goes on with the same command. What was decided is remembered beside the
    review, so that the next 'saln labels' does not ask again.
    """
    review = _find_review(settings)
    kind, _, argument = review.dataset.partition(":")
    if kind != "folder":
        raise InputError(
            f"{review.dataset} is no folder of images; its labels cannot be changed in place"
        )
    if settings.undo:
        return _undo(settings, Path(argument))
    return _change_folder(settings, Path(argument), review)


def _find_review(settings: ApplySettings) -> _Review:
    """The review that the decisions are of."""
    path = settings.file
    named = path if path.is_dir() else settings.out
    if named is None:
        decided = read_decisions(path, below=settings.threshold)
        named = decided.review
        if named is None or not named.is_dir():  # moved, or a labels.csv, which names none
            named = path.parent if (path.parent / "review.json").is_file() else named
    if named is None:
        if not decided.decisions:
            raise InputError(f"{path} holds no decision; decide on the page first, and save")
        raise InputError(
            f"{path} names no review; give its folder, which holds labels.html, as "
            f"{parameter('out')}"
        )
    facts = read_json(named / "review.json", f"give the review's folder as {parameter('out')}")
    dataset, names = facts.get("dataset"), facts.get("class_names") or ()
    if not isinstance(dataset, str):
        raise InputError(f"{named / 'review.json'} names no data set; review it anew")
    return _Review(named, dataset, tuple(map(str, names)))


def _undo(settings: ApplySettings, root: Path) -> int:
    undone = undo_in_folder(root)
    left = folder_state(root).applies
    if settings.json:
        facts = {"restored": 0, "remarks": {}} if undone is None else vars(undone)
        sys.stdout.write(json.dumps(facts | {"applies_left": left}) + "\n")
    elif undone is None:
        sys.stdout.write(f"there is nothing to undo in {root}\n")
    else:
        _print("back", f"{_files(undone.restored)} of {root} where they were before")
        remarks = [f"{name}: {why}" for name, why in undone.remarks.items()]
        _print("but", f"{_files(len(remarks))} not as before", remarks)
        if left:
            _print("left", f"{left} earlier, which the same command takes back one by one")
    return 1 if undone is not None and undone.remarks else 0


def _change_folder(settings: ApplySettings, root: Path, review: _Review) -> int:
    path = settings.file / "labels.csv" if settings.file.is_dir() else settings.file
    decided = read_decisions(path, below=settings.threshold)

    def check(plan: MovePlan) -> None:
        table = review.folder / "labels.csv"
        if plan.missing and table.is_file():
            known = read_ids(table) | read_ids(review.folder / REMEMBERED)
            decided.check_ids(known, among=plan.missing)

    def begin(plan: MovePlan) -> None:
        check(plan)
        remember(review.folder, decided.decisions)

    if settings.yes:
        plan, ended = apply_to_folder(root, decided, class_names=review.class_names, begin=begin)
    else:
        state = folder_state(root)
        ended = state.unfinished
        plan = plan_moves(root, decided, class_names=review.class_names, moved_before=state.moved)
        check(plan)
    if settings.json:
        sys.stdout.write(json.dumps(_facts(settings, plan, ended)) + "\n")
    else:
        _print_plan(settings, plan, ended)
    return 0


def _facts(settings: ApplySettings, plan: MovePlan, ended: int) -> dict[str, Any]:
    return {
        "root": str(plan.root),
        "done": settings.yes,
        "moved": sum(not move.is_drop for move in plan.moves),
        "dropped": sum(move.is_drop for move in plan.moves),
        "renamed": sum(move.is_renamed for move in plan.moves),
        "kept": plan.kept,
        "moved_before": plan.done,
        "unfinished": ended,
        "skipped": plan.skipped,
        "moves": [{"id": m.id, "from": m.source, "to": m.target} for m in plan.moves],
    }


def _print_plan(settings: ApplySettings, plan: MovePlan, ended: int) -> None:
    _print("folder", str(plan.root))
    if ended:
        what = "were ended now" if settings.yes else "is ended first, or taken back by --undo"
        _print("stopped", f"an apply of {_files(ended)} was stopped midway; it {what}")
    moved = [f"{m.source} -> {m.target}" for m in plan.moves if not m.is_drop]
    dropped = [f"{m.source} -> {m.target}" for m in plan.moves if m.is_drop]
    renamed = [f"{m.source} -> {m.target}" for m in plan.moves if m.is_renamed]
    _print("moved" if settings.yes else "move", _files(len(moved)), moved)
    _print("dropped" if settings.yes else "drop", _files(len(dropped)), dropped)
    _print("renamed", f"{_files(len(renamed))} of these, for the name is taken there", renamed)
    if plan.kept:
        _print("kept", f"{_files(plan.kept)} where they are")
    if plan.done:
        _print("before", f"{_files(plan.done)} moved by an earlier apply")
    skipped = [f"{name}: {why}" for name, why in plan.skipped.items()]
    _print("skipped", _files(len(skipped)), skipped)
    command = f"saln labels apply {shlex.quote(str(settings.file))}"
    if settings.out is not None:
        command += f" --out {shlex.quote(str(settings.out))}"
    if settings.yes:
        if plan.moves or ended:
            _print("undo", f"{command} --undo")
    elif plan.moves or ended or plan.kept:
        believed = " --believed" if settings.believed else ""
        below = f" --below {settings.below}" if settings.below else ""
        _print("to do it", f"{command}{believed}{below} --yes")
    else:
        _print("nothing", "is to be done")


def _files(count: int) -> str:
    return f"{count:,} file{'' if count == 1 else 's'}"


def _print(name: str, text: str, lines: Sequence[str] | None = None) -> None:
    """Prints a fact and the first lines of what it is about; nothing where those are none."""
    if lines is not None and not lines:
        return
    sys.stdout.write(f"{name:<8} {text}\n")
    for line in (lines or ())[:_SHOWN]:
        sys.stdout.write(f"           {shown(line) if not line.isprintable() else line}\n")
    if lines and len(lines) > _SHOWN:
        sys.stdout.write(f"           and {len(lines) - _SHOWN:,} more\n")


COMMAND = Command(name="labels apply", settings=ApplySettings, run=_apply, positional=("file",))
