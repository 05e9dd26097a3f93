"""Decisions brought into a table: a new file with the corrected labels, beside the old."""

from __future__ import annotations

import contextlib
import difflib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from saln.errors import InputError
from saln.files import file_checksum, read_json, remove, write_folder, write_json, write_with
from saln.messages import parameter, shown
from saln.review.corrected_files import (
    Changes,
    write_csv_labels,
    write_hub,
    write_json_labels,
    write_parquet_labels,
)
from saln.review.decisions import Decision, DecisionFile, merged
from saln.review.table_items import label_set, text_key
from saln.review.table_reading import SEPARATOR, HubTable, open_table

# Beside review.json: what was written, so that it is known for ours when it is replaced.
_WRITTEN = "applied.json"


@dataclass
class TablePlan:
    """What is to be written."""

    source: str  # The table's specification
    target: Path  # The new file, or the new folder of a data set of several
    # Row, counted over all splits -> the new label as text; None: it is dropped
    changes: dict[int, str | None] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)  # What changes, for people
    skipped: dict[str, str] = field(default_factory=dict)  # Ids of what is left as it is, and why
    kept: int = 0  # How many keep their label, as decided


class TableOfLabels:
    """A table whose labels were reviewed, by the ``facts`` in ``review.json``.

    SalnError where it cannot be read.
    """

    def __init__(self, facts: Mapping[str, Any]) -> None:
        self.spec, self.task = str(facts["dataset"]), facts.get("task", "classes")
        self.separator = facts.get("separator") or SEPARATOR
        self.kind, _, self.place = self.spec.partition(":")
        columns = facts.get("columns") or {}
        self.tables: dict[str, Any] = {}
        if self.kind == "hf":
            from saln.data.hugging_face import label_column, open_tables

            tables, _ = open_tables(self.place, download=False)
            self.label = columns.get("label") or label_column(self.spec, tables)
            labeled = {name: t for name, t in tables.items() if self.label in t.features}
            self.tables = labeled | tables  # splits without labels come last
            table: Any = HubTable(self.spec, labeled, self.separator)
        else:
            self.label = columns.get("label")
            table = open_table(Path(self.place), self.separator)
        # Features that were computed elsewhere are what keys are made of, not the text.
        given = str(facts.get("backbone", "")).endswith(".npy")
        self.text = None if given else columns.get("text")
        names = [name for name in (self.label, columns.get("id"), self.text) if name]
        values = table.read(list(dict.fromkeys(names)))
        self.labels: list[str] = values[self.label]
        self.texts: list[str] | None = values[self.text] if self.text else None
        if columns.get("id"):
            self.ids = values[columns["id"]]
        elif self.kind == "hf" and not columns:  # of images
            self.ids = [f"{name}/{row}" for name, t in labeled.items() for row in range(len(t))]
        else:
            self.ids = [str(row) for row in range(len(self.labels))]

    def target(self, out: Path) -> Path:
        """Where the corrected table goes when nobody says: beside it."""
        path = Path(self.place)
        if self.kind == "hf" and not path.exists():  # a name on the hub
            return out / f"{path.name}-corrected"
        if path.is_dir():
            return path.with_name(f"{path.name}-corrected")
        ending = ".parquet" if self.kind == "hf" else path.suffix
        return path.with_name(f"{path.stem}.corrected{ending}")

    def write(self, path: Path, changes: Changes) -> None:
        """Writes the corrected table; whole or not at all.

        InputError for a new label that the column cannot hold, DataError for a disk that takes
        none.
        """
        if self.kind == "hf" and Path(self.place).is_file():
            write_with(path, lambda at: write_hub(self.tables, self.label, changes, at, whole=True))
        elif self.kind == "hf":
            write_folder(path, lambda at: write_hub(self.tables, self.label, changes, at))
        else:
            writers: dict[str, Callable[[Path, str, Changes, Path], None]]
            writers = {"csv": write_csv_labels, "jsonl": write_json_labels}
            write = writers.get(self.kind, write_parquet_labels)
            write_with(path, lambda at: write(Path(self.place), self.label, changes, at))

    def classes(self, label: str) -> tuple[str, ...]:
        """The classes in a label of the table."""
        return label_set(label, self.separator) if self.task == "multi-label" else (label,)

    def decided_classes(self, label: str) -> tuple[str, ...]:
        """The classes in a label of a decision."""
        return label_set(label, SEPARATOR) if self.task == "multi-label" else (label,)


def plan_table(
    table: TableOfLabels,
    decided: DecisionFile,
    out: Path,
    to: Path | None = None,
    *,
    new_classes: Iterable[str] = (),
) -> TablePlan:
    """Plans a corrected table, at ``to`` or beside the old one, by a review in the folder ``out``.

    No row need have one of the ``new_classes``. InputError for an id that no row has, or a label
    that is no class; names the line.
    """
    plan = TablePlan(table.spec, to or table.target(out))
    rows = {name: row for row, name in enumerate(table.ids)}
    decided.check_ids(rows.keys(), among={each.id for each in decided.decisions})
    known = {name for label in set(table.labels) for name in table.classes(label)} - {""}
    known |= {name for label in new_classes for name in table.decided_classes(label)}
    # What was decided before goes into the new file, too: it is made of the table as it was.
    for each in merged(out, decided.decisions):
        row = rows.get(each.id, -1)
        if row < 0:
            continue
        why = _changed(table, row, each)
        if why:
            plan.skipped[each.id] = why
        elif each.decision == "drop":
            plan.changes[row] = None
            plan.lines.append(f"{each.id}: dropped")
        elif each.decision == "keep" or each.label == each.given:
            plan.kept += 1
        else:
            plan.changes[row] = _label(table, decided, each, known)
            plan.lines.append(f"{each.id}: {each.given} -> {each.label}")
    return plan


def _changed(table: TableOfLabels, row: int, decision: Decision) -> str | None:
    """Why a row is not the one that was decided about."""
    if table.texts is not None and decision.key not in ("", text_key(table.texts[row])):
        return "its text has changed since the review"
    now, then = table.labels[row], decision.given
    if table.task == "multi-label":
        same = set(table.classes(now)) == set(table.decided_classes(then))
    else:
        same = now == then or (_number(now) is not None and _number(now) == _number(then))
    return None if same else f"its label is {shown(now)} by now"


def _number(text: str) -> float | None:
    with contextlib.suppress(ValueError):
        return float(text)
    return None


def _label(table: TableOfLabels, decided: DecisionFile, each: Decision, known: set[str]) -> str:
    """The new label as the table would write it."""
    label = each.label
    wanted = table.decided_classes(label)
    unknown = [name for name in wanted if name not in known]
    if table.task == "regression":
        if _number(label) is None:
            raise each.refused(decided.path, f"the label {shown(label)} is no number; give one")
    elif unknown:
        # Whole numbers may be written as 3 and as 3.0.
        alike = [name for name in known if _number(name) not in (None, _number("nan"))]
        alike = [name for name in alike if _number(name) == _number(label)]
        if len(alike) != 1:
            near = difflib.get_close_matches(unknown[0], known, 1) or sorted(known)[:5]
            raise each.refused(
                decided.path,
                f"the label {shown(unknown[0])} is no class of {table.spec}; give one, such as "
                f"{', '.join(map(shown, near))}, or {parameter('new_classes', True)}",
            )
        return alike[0]
    return (table.separator.join(wanted) or table.separator) if len(wanted) != 1 else wanted[0]


def write_table(table: TableOfLabels, plan: TablePlan, out: Path) -> None:
    """Writes what is planned; a file that an earlier apply wrote there is replaced.

    InputError where something else is there, DataError where it cannot be written.
    """
    if os.path.lexists(plan.target):
        if written_by(out).get(str(plan.target)) != _checksums(plan.target):
            raise InputError(
                f"{plan.target} is there already; move it away, or give {parameter('to')} another "
                "path"
            )
        if plan.target.is_dir():
            remove(plan.target)
    table.write(plan.target, plan.changes)
    write_json(
        out / _WRITTEN, written_by(out) | {str(plan.target): _checksums(plan.target)}, durable=True
    )


def undo_table(out: Path) -> list[Path]:
    """Removes what applies have written of a review, and gives the paths.

    InputError where somebody has changed one since.
    """
    there = {Path(name): sums for name, sums in written_by(out).items() if os.path.lexists(name)}
    for path, checksums in there.items():
        if _checksums(path) != checksums:
            raise InputError(
                f"{path} is no longer what was written; remove it by hand: the data set itself "
                "is as it was"
            )
    for path in there:
        remove(path)
    remove(out / _WRITTEN)
    return list(there)


def written_by(out: Path) -> dict[str, Any]:
    """What applies have written of the review in a folder: path -> its files' checksums."""
    path = out / _WRITTEN
    return read_json(path, "remove it") if path.exists() else {}


def _checksums(path: Path) -> dict[str, str]:
    files: Sequence[Path] = sorted(path.rglob("*")) if path.is_dir() else [path]
    return {file.name: file_checksum(file) for file in files if file.is_file()}
