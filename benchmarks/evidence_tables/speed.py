"""Tables of `fiedler.py` and `loading.py`: how fast the eigenvector and the loading are."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from evidence_tables.rows import NOTHING, markdown, read_rows

__all__ = ["TABLES"]


def _seconds(value: float | None) -> str:
    return NOTHING if value is None else f"{1000 * value:,.1f}"


def fiedler(results: Path, rows: str = "fiedler") -> str:
    """The eigenvector of n candidates, ours beside the paper's listing and SciPy's solver."""
    lines = []
    for row in read_rows(results, rows):
        if "n" not in row:
            continue
        peer = (row.get("peers") or {}).get("scipy_eigsh") or {}
        same = row["same_set"]
        lines.append(
            [
                f"{row['n']:,}",
                _seconds(row["listing_seconds"]),
                _seconds(peer.get("seconds")),
                _seconds(row["saln_seconds"]),
                NOTHING if row["ratio"] is None else f"{row['ratio']:.1f}",
                NOTHING if same is None else ("yes" if same else "no"),
                f"{row['peak_bytes'] / 2**20:.0f}",
            ]
        )
    columns = (
        *("candidates", "listing (ms)", "SciPy eigsh (ms)", "saln (ms)"),
        *("listing / saln", "same choice", "peak (MiB)"),
    )
    return markdown(columns, lines, left=0)


def choosing_share(results: Path) -> str:
    """What choosing is of a step, in a sentence."""
    for row in read_rows(results, "fiedler"):
        if "share" in row:
            return (
                f"Choosing 64 of 320 by the eigenvector takes {1000 * row['select_seconds']:.1f} "
                f"ms beside {1000 * row['load_seconds']:.0f} ms of loading and "
                f"{1000 * row['train_seconds']:.0f} ms of training: "
                f"{100 * row['share']:.1f}% of the step."
            )
    return ""


def loading(results: Path, rows: str = "loading") -> str:
    """Loading with a choice beside loading without."""
    lines = []
    for row in read_rows(results, rows):
        if "question" not in row:
            continue
        digits = 0 if row["unit"] in ("files", "candidates/s") else 2
        lines.append(
            [
                row["question"],
                f"{row['value']:,.{digits}f} {row['unit']}",
                f"{row['baseline']:,.{digits}f} {row['unit']}",
                f"{row['ratio']:.2f}",
            ]
        )
    return markdown(("question", "measured", "baseline", "ratio"), lines)


TABLES: dict[str, Callable[[Path], str]] = {
    "fiedler": fiedler,
    "fiedler-gpu": partial(fiedler, rows="gpu"),
    "choosing-share": choosing_share,
    "loading": loading,
    "extraction-gpu": partial(loading, rows="gpu"),
}
