"""What a table of labels says, in the lines that the command prints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from saln.review.duplicate_images import duplicate_kinds
from saln.review.outliers import OUTLYING
from saln.review.review_table import ReviewTable
from saln.review.table_reading import SEPARATOR

# Pairs of classes, and names, that a line holds at most.
SHOWN = 5
# With fewer examples hardly anything can be said of a class's labels.
FEW = 5
# From this ratio of the largest class to the smallest on, the classes are called unequal.
UNEQUAL = 10
# How the texts of the column ``problem`` begin, and what a line says of one and of several.
_PROBLEMS = {
    "unreadable": ("cannot be read", "cannot be read"),
    "tiny": ("is tiny", "are tiny"),
    "blank": ("is blank", "are blank"),
}


def summary_lines(table: ReviewTable) -> dict[str, str]:
    """Lines by their headings; what there is nothing to say about has none.

    Headings are, in this order: ``wrong``, ``classes``, ``unlabeled``, ``problems``,
    ``duplicates``, ``outliers``, ``rare`` and ``balance``.
    """
    lines = {
        "wrong": _wrong(table),
        "classes": _pairs(table),
        "unlabeled": _unlabeled(table),
        "problems": _problems(table),
        "duplicates": _duplicates(table),
        "outliers": _outliers(table),
    } | _class_sizes(table)
    return {heading: line for heading, line in lines.items() if line}


def _count(number: int, one: str, several: str = "") -> str:
    return f"{number:,} {one if number == 1 else several or one + 's'}"


def _some(names: Sequence[str]) -> str:
    """Some names, and how many more there are."""
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more:,} more" if more > 0 else "")


def _wrong(table: ReviewTable) -> str:
    suspects, judged = len(table.suspects), int((~np.isnan(table.probability)).sum())
    decided = sum(map(bool, table.decision))
    line = f"{suspects:,} of {_count(judged, 'label')} look{'s' if suspects == 1 else ''} wrong"
    if decided:
        line += f", {decided:,} {'was' if decided == 1 else 'were'} decided before"
    low, high = table.noise_interval
    if not np.isnan(table.noise_rate):
        between = f" ({low:.1%} to {high:.1%})"
        known = low == high  # nothing but a share that was given is certain
        line += f"; {'given' if known else 'estimated'}: {table.noise_rate:.1%} of all"
        line += "" if known else between
    return line + (f"; {table.message}" if table.message else "")


def _pairs(table: ReviewTable) -> str:
    if table.task == "regression":
        return ""
    pairs = Counter((table.given[row], table.believed[row]) for row in table.suspects.tolist())

    def name(label: str) -> str:
        return "no class" if label == SEPARATOR and table.task == "multi-label" else label

    return _some(
        [f"{name(given)} looks like {name(other)} ({n:,})"
         for (given, other), n in pairs.most_common()]
    )  # fmt: skip


def _unlabeled(table: ReviewTable) -> str:
    count = sum(not label for label in table.given)
    if not count:
        return ""
    return f"{_count(count, 'example has', 'examples have')} no label"


def _problems(table: ReviewTable) -> str:
    parts: list[str] = []
    kinds = Counter(problem.partition(":")[0] for problem in table.problem if problem)
    for kind, (one, several) in _PROBLEMS.items():
        if count := kinds.pop(kind, 0):
            noun = "" if parts else (" image" if count == 1 else " images")
            parts.append(f"{count:,}{noun} {one if count == 1 else several}")
    # Of examples that are no images others may say more.
    parts += [f"{count:,} {kind}" for kind, count in kinds.items()]
    if not parts:
        return ""
    first = next(row for row, problem in enumerate(table.problem) if problem)
    return f"{', '.join(parts)}; the first: {table.ids[first]} ({table.problem[first]})"


def _duplicates(table: ReviewTable) -> str:
    kinds = duplicate_kinds(table)
    groups = {int(table.group[rows[0]]) for kind in kinds for rows in kind}
    if not groups:
        return ""
    examples = int(np.isin(table.group, list(groups)).sum())
    parts = [f"{len(kinds.inside):,} inside a class"] if kinds.inside else []
    if kinds.across_classes:
        parts.append(f"{len(kinds.across_classes):,} across classes (their labels contradict)")
    if kinds.across_splits:
        names = dict.fromkeys(table.splits[row] for rows in kinds.across_splits for row in rows)
        between = " and ".join(name or "no split" for name in names)
        parts.append(f"{len(kinds.across_splits):,} across splits (leaks between {between})")
    of = f"{_count(len(groups), 'group')} of near duplicates ({examples:,} examples)"
    return f"{of}: {', '.join(parts)}"


def _outliers(table: ReviewTable) -> str:
    known = np.nan_to_num(table.outlier)
    order = np.argsort(-known, kind="stable")
    rows = order[: int((known >= OUTLYING).sum())].tolist()
    if not rows:
        return ""
    are = _count(len(rows), "example is", "examples are")
    return f"{are} like no others: {_some([table.ids[row] for row in rows])}"


def _class_sizes(table: ReviewTable) -> dict[str, str]:
    """The lines ``rare`` and ``balance``."""
    if table.task == "regression" or not table.class_names:
        return {}
    labels: Counter[str] = Counter(dict.fromkeys(table.class_names, 0))
    for given in table.given:
        labels.update(given.split(";") if table.task == "multi-label" else [given])
    del labels[""]
    sizes = dict(labels)
    parts = []
    for low, high, has in ((0, 0, "no"), (1, 1, "one"), (2, FEW - 1, f"fewer than {FEW}")):
        names = [name for name, size in sizes.items() if low <= size <= high]
        if names:
            verb = _count(len(names), "class has", "classes have")
            examples = "example" if high == 1 else "examples"
            parts.append(f"{verb} {has} {examples} ({_some(names)})")
    present = {name: size for name, size in sizes.items() if size}
    if not present:
        return {"rare": "; ".join(parts)}
    largest, smallest = (choose(present, key=present.__getitem__) for choose in (max, min))
    ratio = present[largest] / present[smallest]
    unequal = (
        f"the largest class, {largest}, has {ratio:,.0f} times as many examples as the smallest, "
        f"{smallest} ({present[largest]:,} and {present[smallest]:,})"
    )
    return {"rare": "; ".join(parts), "balance": unequal if ratio >= UNEQUAL else ""}
