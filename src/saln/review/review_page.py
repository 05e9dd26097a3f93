"""The page on which a person looks at doubted labels and decides: one file that needs no other."""

from __future__ import annotations

import functools
import math
import os
from pathlib import Path

import jinja2
import numpy as np

from saln.files import write_text
from saln.review.page_data import page_data
from saln.review.review_items import ReviewItems
from saln.review.review_table import ReviewTable


@functools.cache
def _template() -> jinja2.Template:
    """The page; what is put into it is escaped."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader("saln.review", "templates"),
        autoescape=True,  # names of classes and files come from anywhere
        undefined=jinja2.StrictUndefined,  # a name that is misspelled must not show as nothing
        trim_blocks=True,
        lstrip_blocks=True,
    ).get_template("labels_page.html.j2")


def write_page(
    path: Path,
    table: ReviewTable,
    items: ReviewItems,
    *,
    review: Path,
    pictures: int | None = None,
    budget: int = 24 * 2**20,
) -> Path:
    """Writes the page of a review: what looks wrong, worst first, to be decided and saved.

    It holds small pictures of the worst examples and of those that contradict them; other
    pictures are shown from their own files, where they have some. Nothing else is loaded.
    ``pictures`` says of how many examples; when not given 2,000, and 10,000 where images have no
    files of their own. ``budget`` is the most bytes that they take. The saved decisions name the
    folder of the ``review``. Gives the path; DataError where it cannot be written.
    """
    kind, _, argument = table.dataset.partition(":")
    name = Path(argument or kind).name or table.dataset
    values = {
        "name": os.fsencode(name).decode(errors="replace"),
        "headline": headline(table),
        "message": table.message,
        "task": table.task,
        "data": page_data(
            table, items, page=path, review=review, pictures=pictures, budget=budget
        ),
    }  # fmt: skip
    write_text(path, _template().render(values))
    return path


def headline(table: ReviewTable) -> str:
    """What a person should know first: how many labels look wrong, and how many are."""
    doubted, total = len(table.suspects), int((~np.isnan(table.probability)).sum())
    decided = [row for row, decision in enumerate(table.decision) if decision]
    if doubted:
        text = f"{doubted:,} of {total:,} labels look{'s' if doubted == 1 else ''} wrong"
    else:
        left = " that is undecided" if decided else ""
        text = f"None of {total:,} labels{left} looks wrong" if total else "No label was judged"
    if not math.isnan(table.noise_rate):
        low, high = table.noise_interval
        between = "" if math.isnan(low + high) or low == high else f" ({low:.1%} to {high:.1%})"
        who = "said" if low == high else "estimated"  # only a share that was given is certain
        text += f"; about {table.noise_rate:.1%}{between} are {who} to be"
    waiting = sum(table.label[row] != table.given[row] for row in decided)
    if waiting:
        text += f"; {waiting:,} decision{'s are' if waiting > 1 else ' is'} not applied yet"
    return f"{text}."
