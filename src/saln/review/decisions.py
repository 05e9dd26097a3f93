"""Decisions about labels: read from the files that people save, and remembered for next time."""

from __future__ import annotations

import csv
import difflib
import io
from bisect import bisect_left
from collections.abc import Container, Iterable, Iterator, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saln.errors import InputError
from saln.files import read_bytes, write_bytes
from saln.messages import shown
from saln.review.review_table import DECISION_COLUMNS, DECISIONS

# The file in the folder of a review that holds all that was decided so far.
REMEMBERED = "decisions.csv"
_AUTOMATIC = "automatic"
# How a name that is no UTF-8 passes through a file of UTF-8 unchanged.
_NAMES = "surrogateescape"


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided of one example; ``label`` is the label that it leads to, none of a drop."""

    id: str
    split: str
    given: str
    decision: str
    label: str
    key: str
    line: int = 0  # Where it stands in its file, from 1
    is_automatic: bool = False  # Nobody has looked: all labels were taken that are believed

    def refused(self, path: Path, what: str) -> InputError:
        """The error for a decision of a file."""
        return InputError(f"{path}, line {self.line}: {what}")


@dataclass(frozen=True)
class DecisionFile:
    """The decisions of a file, one an example, and the folder of the review that it names."""

    path: Path
    decisions: tuple[Decision, ...]
    review: Path | None

    def check_ids(self, known: Set[str], *, among: Container[str]) -> None:
        """Refuses an id of some that no example of the review has."""
        for each in self.decisions:
            if each.id in known or each.id not in among:
                continue
            # Near in the alphabet: to compare with all of a large data set takes seconds.
            names = sorted(known)
            place = bisect_left(names, each.id)
            near = difflib.get_close_matches(each.id, names[max(place - 500, 0) : place + 500], 1)
            hint = f"did you mean {shown(near[0])}?" if near else "give one that labels.csv lists"
            raise each.refused(self.path, f"no example has the id {shown(each.id)}; {hint}")


def read_decisions(path: Path, *, below: float | None = None) -> DecisionFile:
    """Reads decisions.csv, or a labels.csv in whose column ``decision`` somebody has written.

    Commas, semicolons and tabs are taken, with and without a byte order mark, in UTF-8 or UTF-16.
    The columns ``id`` and ``decision`` are needed; others are taken if there. ``keep`` leads to
    the given label; ``believe`` to ``label``, or to ``believed`` where that is empty. Rows without
    a decision are left out, or become ``believe`` where their probability is ``below``. InputError
    for a value that is not allowed, or two that contradict each other, names the line; DataError
    where the file cannot be read.
    """
    found: dict[str, Decision] = {}
    reviews: dict[str, int] = {}
    for line, row in _rows(path):
        if review := row.get("review", "").strip():
            reviews.setdefault(review, line)
        each = _decision(path, line, row, below)
        if each is None:
            continue
        before = found.setdefault(each.id, each)
        if (before.decision, before.label) != (each.decision, each.label):
            raise InputError(
                f"{path}, line {line}: {shown(each.id)} has {_said(each)}, and {_said(before)} in "
                f"line {before.line}; leave one of them out"
            )
    if len(reviews) > 1:
        first, second = list(reviews)[:2]
        raise InputError(
            f"{path}, line {reviews[second]}: the review is {shown(second)}, and {shown(first)} in "
            f"line {reviews[first]}; apply the decisions of one review at a time"
        )
    return DecisionFile(path, tuple(found.values()), Path(*reviews) if reviews else None)


def _said(decision: Decision) -> str:
    return f"{decision.decision} {shown(decision.label)}" if decision.label else decision.decision


def _decision(path: Path, line: int, row: dict[str, str], below: float | None) -> Decision | None:
    """The decision of a row; None where there is none."""
    # Ids and labels keep their outer spaces: those of a file or folder may be meant.
    decision, label = row["decision"].strip().lower(), row.get("label", "")
    given, key = row.get("given", ""), row.get("key", "").strip()
    automatic = bool(row.get(_AUTOMATIC, "").strip())
    if not decision:
        probability = row.get("probability", "").strip()
        if below is None or not probability or not row.get("believed"):
            return None
        try:
            # A spreadsheet of a country with decimal commas saves them so.
            if not float(probability.replace(",", ".")) < below:
                return None
        except ValueError as error:
            what = f"probability {shown(probability)} is no number; give one from 0 to 1"
            raise InputError(f"{path}, line {line}: {what}") from error
        decision, label, automatic = "believe", row["believed"], True
    if decision not in DECISIONS:
        raise InputError(
            f"{path}, line {line}: decision {shown(decision)} is not allowed; give one of "
            f"{', '.join(DECISIONS)}, or leave it empty"
        )
    if not row["id"]:
        raise InputError(f"{path}, line {line}: the id is missing; give that of an example")
    if decision == "believe":
        label = label or row.get("believed", "")
    label = {"keep": given, "drop": ""}.get(decision, label)
    if decision != "drop" and not label.strip():
        column = "given" if decision == "keep" else "label"
        what = f"{decision} needs a label; write it into the column {column}"
        raise InputError(f"{path}, line {line}: {what}")
    return Decision(row["id"], row.get("split", ""), given, decision, label, key, line, automatic)


def read_ids(path: Path) -> set[str]:
    """The ids of all rows of a table, decided or not; none where there is no file."""
    return {row["id"] for _, row in _rows(path)} if path.exists() else set()


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Each row that is not empty: its first line, and its cells by column."""
    text = _text(path)
    names, reader, separator = _header(path, text)
    line = reader.line_num + 1
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells[len(names) :]):
                raise InputError(
                    f"{path}, line {line}: there are {len(cells)} cells, and {len(names)} in the "
                    f"first line; quote a cell that has {shown(separator)} in it"
                )
            if any(cell.strip() for cell in cells):
                cells += [""] * (len(names) - len(cells))
                yield line, dict(zip(names, cells, strict=False))
            line = reader.line_num + 1
    except csv.Error as error:
        what = f"this is no CSV ({error}); save the file again"
        raise InputError(f"{path}, line {line}: {what}") from error


def _text(path: Path) -> str:
    content = read_bytes(path, "give the file that the page has saved")
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return content.decode("utf-16", "replace")
    return content.decode("utf-8-sig", _NAMES)


def _header(path: Path, text: str) -> tuple[list[str], Any, str]:
    """The columns' names, and a reader of the rows below them, by what parts the cells."""
    first = text[:4].lower() == "sep="  # how a spreadsheet says what parts the cells
    for separator in ",;\t":
        # Not splitlines(), which would also part at signs that a name may hold.
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
        try:
            names = [name.strip().lower() for name in next(reader, [])]
            names = [name.strip().lower() for name in next(reader, [])] if first else names
        except csv.Error:
            continue
        while names and not names[-1]:
            names.pop()
        double = next((name for name in names if name and names.count(name) > 1), None)
        if double is not None:
            what = f"the column {double} is there twice; remove one"
            raise InputError(f"{path}, line {reader.line_num}: {what}")
        if {"id", "decision"} <= set(names):
            return names, reader, separator
    raise InputError(
        f"{path}, line 1: the columns id and decision are missing; give a file with "
        f"{', '.join(DECISION_COLUMNS)}"
    )


@dataclass(frozen=True, slots=True)
class Remembered:
    """What is remembered of an example; all is empty where nothing is."""

    decision: str = ""  # One of :data:`~saln.review.review_table.DECISIONS`
    label: str = ""  # The label that it leads to
    is_done: bool = False  # The example has that label: nothing is left to decide or to apply


class RememberedDecisions:
    """All that was decided so far, found again by content, also where a file has another name."""

    def __init__(self, decisions: Iterable[Decision]) -> None:
        self._by_content: dict[str, list[Decision]] = {}
        self._by_id: dict[str, list[Decision]] = {}
        for each in decisions:  # the oldest first
            self._by_id.setdefault(each.id, []).insert(0, each)
            if each.key:
                self._by_content.setdefault(each.key, []).insert(0, each)

    def of(self, id: str, key: str, given: str) -> Remembered:
        """What is remembered of the example with this id, content and label."""
        # Other content may have come under the name.
        named = (each for each in self._by_id.get(id, ()) if not key or each.key in ("", key))
        same = next(named, None)
        # Of copies each has its own decision, and what leads to the given label is done.
        alike = [each for each in self._by_content.get(key, ()) if each is not same]
        every = [*((same,) if same else ()), *alike]
        for each in every:
            if each.decision != "drop" and each.label == given:
                return Remembered(each.decision, each.label, is_done=True)
        for each in every:
            # Not drop: who drops one of two copies wants to keep the other.
            meant = each.given == given and each.decision in ("believe", "relabel")
            # What nobody has looked at is no decision once it is taken back.
            if (each is same or meant) and not each.is_automatic:
                return Remembered(each.decision, each.label)
        return Remembered()


def remembered(out: Path) -> RememberedDecisions:
    """What was decided in the review in the folder ``out``; errors as :func:`read_decisions`."""
    return RememberedDecisions(_stored(out))


def _stored(out: Path) -> list[Decision]:
    path = out / REMEMBERED
    if not path.exists():
        return []
    # All of them: a name that other content had before has several.
    found = (_decision(path, line, row, None) for line, row in _rows(path))
    return [each for each in found if each is not None]


def merged(out: Path, decisions: Iterable[Decision]) -> list[Decision]:
    """What was decided in the review in ``out`` and now; of one example the newest alone."""
    kept = {(each.id, each.key): each for each in _stored(out)}
    for each in decisions:
        kept.pop((each.id, each.key), None)  # to the end: the newest comes last
        kept[each.id, each.key] = each
    return list(kept.values())


def remember(out: Path, decisions: Iterable[Decision]) -> None:
    """Adds decisions to those of the review in ``out``; see :func:`merged`."""
    kept = merged(out, decisions)
    stream = io.StringIO(newline="")
    writer = csv.writer(stream)  # of lines that end in both signs: so both are quoted in names
    writer.writerow((*DECISION_COLUMNS, _AUTOMATIC))
    place = str(out.absolute())
    for each in kept:
        values = (each.id, each.split, each.given, each.decision, each.label, each.key, place)
        writer.writerow((*values, "yes" if each.is_automatic else ""))
    write_bytes(out / REMEMBERED, stream.getvalue().encode("utf-8", _NAMES), durable=True)
