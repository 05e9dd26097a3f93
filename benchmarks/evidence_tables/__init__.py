"""What stands in the blocks of the README and the docs: one function a name.

A function takes the folder of the rows and gives Markdown. A new table: write the function in
the file of its topic (or a new file) and name it below.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from evidence_tables import (
    claims,
    criteria,
    fast,
    label_finding,
    label_review,
    methods,
    probe,
    scale,
    speed,
    tuned,
    tuned_confirmation,
)
from evidence_tables.claims import eigenvector_svg
from evidence_tables.rows import RESULTS

__all__ = ["PICTURES", "RESULTS", "TABLES"]

TABLES: dict[str, Callable[[Path], str]] = {
    **criteria.TABLES,
    **speed.TABLES,
    **scale.TABLES,
    **claims.TABLES,
    **methods.TABLES,
    **label_finding.TABLES,
    **label_review.TABLES,
    **tuned.TABLES,
    **tuned_confirmation.TABLES,
    **probe.TABLES,
    **fast.TABLES,
}

# Pictures by their file, made of rows too; None while there are none.
PICTURES: dict[str, Callable[[Path], str | None]] = {"docs/eigenvector.svg": eigenvector_svg}
