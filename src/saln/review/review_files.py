"""The files of a review, each whole or not there."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from saln.files import write_bytes, write_json
from saln.review.review_run import Review
from saln.review.review_table import COLUMNS, ReviewTable

FORMAT_VERSION = 1


def write_review(review: Review, out: Path) -> dict[str, Any]:
    """Writes what a review gave into a folder: labels.csv, worst first, and review.json.

    Returns:
        The content of ``review.json``.

    Raises:
        DataError: The disk cannot be written to; what was there stays whole.
    """
    facts = _facts(review, out)
    _write_csv(review.table, out / "labels.csv")
    write_json(out / "review.json", facts)
    return facts


def _facts(review: Review, out: Path) -> dict[str, Any]:
    table, network = review.table, review.network
    return {
        "format_version": FORMAT_VERSION,
        "dataset": table.dataset,
        "out": str(out.absolute()),
        "backbone": network.name,
        "feature_size": network.image_size,
        "weights": network.identity(),
        "examples": len(table),
        "classes": len(table.class_names),
        "suspects": len(table.suspects),
        "decided": sum(map(bool, table.decision)),
        "problems": sum(map(bool, table.problem)),
        "noise_rate": _number(table.noise_rate),
        "noise_interval": [_number(end) for end in table.noise_interval],
        "informative": table.informative,
        "message": table.message,
        "features_computed": review.rows.computed,
        "seconds": {name: round(value, 3) for name, value in review.seconds.items()},
    }


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value  # JSON knows no NaN


def _write_csv(table: ReviewTable, path: Path) -> None:
    texts = (table.ids, table.splits, table.given, table.believed)
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in _worst_first(table).tolist():
        numbers = [
            "" if math.isnan(value) else f"{value:.6g}"
            for value in (table.probability[row], table.margin[row])
        ]
        group = "" if table.group[row] < 0 else str(table.group[row])
        rest = (table.problem, table.decision, table.label, table.keys)
        writer.writerow(
            [*(t[row] for t in texts), *numbers, group, "", *(text[row] for text in rest)]
        )
    write_bytes(path, stream.getvalue().encode("utf-8", "surrogateescape"))


def _worst_first(table: ReviewTable) -> npt.NDArray[np.int64]:
    suspects = table.suspects
    rest = np.setdiff1d(np.arange(len(table)), suspects)
    rest = rest[np.argsort(table.probability[rest], kind="stable")]
    return np.concatenate([suspects, rest])
