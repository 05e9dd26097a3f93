"""``saln labels apply``: what was decided about labels, brought into the data set."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saln.cli.flags import Command
from saln.errors import InputError
from saln.files import read_json
from saln.messages import not_allowed, parameter, shown
from saln.review.apply_folder import apply_to_folder, folder_state, undo_in_folder
from saln.review.decisions import REMEMBERED, DecisionFile, read_decisions, read_ids, remember
from saln.review.move_plan import HIDDEN, MovePlan, plan_moves, undo_folder

# How many files of a kind are shown.
_SHOWN = 10
_LIKELY_WRONG = 0.5
# Kinds of data sets whose labels are written anew.
_TABLES = ("hf", "csv", "jsonl", "parquet")


@dataclass(frozen=True, kw_only=True)
class ApplySettings:
    """The settings of `saln labels apply`."""

    file: Path
    """decisions.csv, as the page saves it, or labels.csv with decisions written into it."""
    out: Path | None = None
    """The folder of the review; by default the one that the file names, or the file's own."""
    yes: bool = False
    """Do it; without this flag what would be done is only shown."""
    undo: bool = False
    """Undo the last apply; given again, the one before it."""
    believed: bool = False
    """Of labels.csv: give undecided examples that look wrong the likeliest label."""
    below: float | None = None
    """With --believed: only where the given label's probability is below this (0.5)."""
    new_classes: bool = False
    """Accept labels that no example has yet as new classes, instead of as spelling mistakes."""
    to: Path | None = None
    """Of a table: the new file, or folder of Parquet files; by default beside the table."""
    json: bool = False
    """Print one JSON object instead of lines of text."""

    def __post_init__(self) -> None:
        """Checks what can be known before a file is opened; InputError for what is not allowed."""
        if self.below is not None and not self.believed:
            raise InputError(
                f"{parameter('below')} is for {parameter('believed', True)}; give both"
            )
        if self.below is not None and not 0 < self.below <= 1:
            raise not_allowed("below", self.below, "a probability above 0, at most 1")

    @property
    def threshold(self) -> float | None:
        """Below which probability a label is replaced though nobody has decided; None: nowhere."""
        return (self.below or _LIKELY_WRONG) if self.believed else None


@dataclass(frozen=True)
class _Review:
    """What review.json says of a review."""

    folder: Path
    dataset: str
    decided: DecisionFile
    facts: dict[str, Any]


def _apply(settings: ApplySettings) -> int:
    """Applies decisions about labels: files move to the folder of their class.

    Without --yes it only shows what would be done. No file is replaced or deleted: dropped files
    go into the hidden folder .NAME.saln beside the data set, and --undo moves everything back.
    After a stop the same command goes on.

    A table (CSV, JSON lines, Parquet, hf:) stays as it is; a corrected one is written beside it.

    Decisions are stored beside the review, so that the next 'saln labels' does not ask again.
    """
    review = _find_review(settings)
    kind, _, argument = review.dataset.partition(":")
    if kind == "folder":
        if settings.to is not None:
            raise InputError(
                f"{parameter('to', settings.to)} is for tables; the files of {argument} move "
                "inside of it: leave it out"
            )
        return (_undo if settings.undo else _change_folder)(settings, Path(argument), review)
    if kind not in _TABLES:
        raise InputError(
            f"the labels of {review.dataset} are no files or table of yours; apply takes a folder "
            f"of images, {', '.join(_TABLES)}"
        )
    return (_undo_table if settings.undo else _write_table)(settings, review)


def _find_review(settings: ApplySettings) -> _Review:
    """The review that the decisions are of, and these; an undo needs none."""
    path, named, decided = settings.file, settings.out, None
    if path.is_dir():
        named, path = path, path / "labels.csv"
    if not settings.undo or named is None:
        decided = read_decisions(path, below=settings.threshold)
        named = named or decided.review
    if named is None or not named.is_dir():  # moved, or a labels.csv, which names none
        named = path.parent if (path.parent / "review.json").is_file() else named
    if named is None:
        if decided is None or not decided.decisions:
            raise InputError(f"{path} holds no decision; decide on the page first, and save")
        raise InputError(
            f"{path} names no review; give its folder, which holds labels.html, as "
            f"{parameter('out')}"
        )
    facts = read_json(named / "review.json", f"give the review's folder as {parameter('out')}")
    if not isinstance(facts.get("dataset"), str):
        raise InputError(f"{named / 'review.json'} names no data set; run saln labels again")
    return _Review(named, facts["dataset"], decided or DecisionFile(path, (), None), facts)


def _undo(settings: ApplySettings, root: Path, review: _Review) -> int:
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


def _new_classes(settings: ApplySettings, decided: DecisionFile) -> set[str]:
    every = decided.decisions if settings.new_classes else ()
    return {each.label for each in every if each.decision == "relabel"}


def _undo_table(settings: ApplySettings, review: _Review) -> int:
    from saln.review.apply_table import undo_table

    removed = undo_table(review.folder)
    if settings.json:
        sys.stdout.write(json.dumps({"removed": [str(path) for path in removed]}) + "\n")
        return 0
    for path in removed:
        _print("removed", str(path))
    if not removed:
        sys.stdout.write(f"there is nothing to undo of {review.dataset}, which is as it was\n")
    return 0


def _write_table(settings: ApplySettings, review: _Review) -> int:
    from saln.review.apply_table import TableOfLabels, plan_table, write_table

    decided, table = review.decided, TableOfLabels(review.facts)
    plan = plan_table(
        table, decided, review.folder, settings.to, new_classes=_new_classes(settings, decided)
    )
    if settings.yes and plan.changes:
        write_table(table, plan, review.folder)
    if settings.yes:
        remember(review.folder, decided.decisions)
    dropped = sum(new is None for new in plan.changes.values())
    facts = {
        "source": plan.source, "target": str(plan.target), "done": settings.yes,
        "relabeled": len(plan.changes) - dropped, "dropped": dropped, "kept": plan.kept,
        "skipped": plan.skipped,
    }  # fmt: skip
    if settings.json:
        sys.stdout.write(json.dumps(facts) + "\n")
        return 0
    _print("table", f"{plan.source}, which stays as it is")
    _print("changed" if settings.yes else "change", f"{len(plan.changes):,} rows", plan.lines)
    if plan.changes:
        _print("written" if settings.yes else "to", str(plan.target))
    if plan.kept:
        _print("kept", f"{plan.kept:,} rows keep their label")
    _print_end(settings, plan.skipped, "row", bool(plan.changes), plan.kept > 0)
    return 0


def _change_folder(settings: ApplySettings, root: Path, review: _Review) -> int:
    decided, class_names = review.decided, _new_classes(settings, review.decided)

    def check(plan: MovePlan) -> None:
        table = review.folder / "labels.csv"
        if plan.missing and table.is_file():
            known = read_ids(table) | read_ids(review.folder / REMEMBERED)
            decided.check_ids(known, among=plan.missing)

    def begin(plan: MovePlan) -> None:
        check(plan)
        remember(review.folder, decided.decisions)

    if settings.yes:
        plan, ended = apply_to_folder(root, decided, class_names=class_names, begin=begin)
    else:
        state = folder_state(root)
        ended = state.unfinished
        plan = MovePlan(root)
        if not ended:  # else the folder is not yet what was decided about
            plan = plan_moves(root, decided, class_names=class_names, moved_before=state.moved)
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
    _print_end(settings, plan.skipped, "file", bool(plan.moves or ended), plan.kept > 0)
    if settings.yes and (plan.moves or ended):
        folder = undo_folder(plan.root)
        text = f"{(plan.root / folder).resolve()} holds what an undo needs, and what was dropped"
        if folder == HIDDEN:
            text += ". Programs that take hidden folders for classes (torchvision does) need it"
            text += " moved away"
        _print("note", text)


def _print_end(
    settings: ApplySettings, skipped: Mapping[str, str], what: str, changes: bool, keeps: bool
) -> None:
    """Prints what is left as it is, and what can be done next."""
    lines = [f"{name}: {why}" for name, why in skipped.items()]
    _print("skipped", f"{len(lines):,} {what}{'' if len(lines) == 1 else 's'}", lines)
    command = f"saln labels apply {shlex.quote(str(settings.file))}"
    for flag, value in (("--out", settings.out), ("--to", settings.to)):
        command += f" {flag} {shlex.quote(str(value))}" if value is not None else ""
    if settings.yes and changes:
        _print("undo", f"{command} --undo")
    elif not settings.yes and (changes or keeps):
        believed = " --believed" if settings.believed else ""
        below = f" --below {settings.below}" if settings.below else ""
        below += " --new-classes" if settings.new_classes else ""
        _print("to do it", f"{command}{believed}{below} --yes")
    elif not changes:
        _print("nothing", "was to be done" if settings.yes else "is to be done")


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
