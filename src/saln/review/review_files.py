"""The files of a review, each whole or not there."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from saln.errors import MissingExtraError
from saln.files import write_json
from saln.review.review_page import write_page
from saln.review.review_run import Review
from saln.review.table_files import known, write_csv, write_parquet

FORMAT_VERSION = 1


def write_review(review: Review, out: Path) -> dict[str, Any]:
    """Writes what a review gave into a folder.

    ::

        labels.csv      a row an example, the worst first
        labels.parquet  the same, where pyarrow is installed
        labels.html     the page on which they are looked at and decided
        review.json     what was reviewed, by which network, counts and seconds

    Gives the content of ``review.json``. DataError where the disk cannot be written to; what was
    there stays whole.
    """
    facts = _facts(review, out)
    write_csv(review.table, out / "labels.csv")
    with contextlib.suppress(MissingExtraError):  # the CSV file says the same
        write_parquet(review.table, out / "labels.parquet")
    write_page(out / "labels.html", review.table, review.items, review=out)
    write_json(out / "review.json", facts)
    return facts


def _facts(review: Review, out: Path) -> dict[str, Any]:
    table, maker = review.table, review.maker
    # Of a table, by what it is read again.
    read = review.read
    source = {} if read is None else {"columns": vars(read.columns), "separator": read.separator}
    return {
        "format_version": FORMAT_VERSION,
        "dataset": table.dataset,
        **source,
        "task": table.task,
        "out": str(out.absolute()),
        "backbone": maker.name,
        "feature_size": maker.image_size,
        "weights": maker.identity,
        "examples": len(table),
        "classes": len(table.class_names),
        "suspects": len(table.suspects),
        "decided": sum(map(bool, table.decision)),
        "problems": sum(map(bool, table.problem)),
        "noise_rate": known(table.noise_rate),
        "noise_interval": [known(end) for end in table.noise_interval],
        "informative": table.informative,
        "message": table.message,
        "features_computed": review.rows.computed,
        "seconds": {name: round(value, 3) for name, value in review.seconds.items()},
    }
