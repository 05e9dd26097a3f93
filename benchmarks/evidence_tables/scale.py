"""Tables of `scale.py`: what each part costs as the data grows."""

from __future__ import annotations

import math
from pathlib import Path

from evidence_tables.rows import NOTHING, Row, markdown, read_rows

__all__ = ["TABLES", "bottlenecks_table"]

BEYOND = 10_000_000


def _rows(results: Path) -> list[Row]:
    return [row for row in read_rows(results, "scale") if "question" in row]


def _minutes(seconds: float) -> str:
    return f"{seconds:,.1f} s" if seconds < 90 else f"{seconds / 60:,.1f} min"


def _seconds(row: Row) -> float:
    """For all rows."""
    return float(row["value"] * (row["n"] / 1e6 if "candidates" in row["unit"] else 1.0))


def scale(results: Path) -> str:
    """Seconds for all rows at every size, and what the last two sizes say of ten times more."""
    rows = _rows(results)
    sizes = sorted({row["n"] for row in rows if row["question"] == "neighbor table"})
    questions = [
        name
        for name in dict.fromkeys(row["question"] for row in rows)
        if sum(row["question"] == name for row in rows) == len(sizes)
    ]
    lines = []
    for name in questions:
        found = {row["n"]: row for row in rows if row["question"] == name}
        seconds = [_seconds(found[n]) for n in sizes]
        power = math.log(seconds[-1] / seconds[-2]) / math.log(sizes[-1] / sizes[-2])
        if name == "neighbor table":  # the law of the approximate search, not of the change to it
            power = 1.5
        beyond = seconds[-1] * (BEYOND / sizes[-1]) ** power
        peak = found[sizes[-1]]["peak_bytes"] / 2**30
        lines.append([name, *map(_minutes, seconds), f"{_minutes(beyond)} ({power:.2f})",
                      f"{peak:.2f}"])  # fmt: skip
    columns = ("part", *(f"{n:,}" for n in sizes), f"{BEYOND:,}, extrapolated (power of n)")
    return markdown((*columns, f"peak at {sizes[-1]:,} (GiB)"), lines)


def scale_flat(results: Path) -> str:
    """Whether a candidate costs the same in a larger store, measured in turns."""
    rows = [row for row in _rows(results) if "parts" in row]
    lines = [
        [row["question"], f"{row['baseline']:.1f}", f"{row['value']:.1f}", f"{row['ratio']:.3f}"]
        for row in rows
    ]
    columns = ("question", "smaller (s a million)", "larger (s a million)", "ratio")
    return markdown(columns, lines)


def approximate_search(results: Path) -> str:
    """Ways to search for neighbors approximately, on the same rows."""
    rows = [row for row in read_rows(results, "approximate-search") if "question" in row]
    lines = [
        [row["question"], f"{row['n']:,}", f"{row['value']:.1f}", f"{row['recall']:.3f}"]
        for row in rows
    ]
    return markdown(("question", "rows", "seconds of one core", "recall"), lines)


def busy_machine(results: Path) -> str:
    """What a busy process beside it leaves of the speed of extraction."""
    rows = [row for row in read_rows(results, "busy-machine") if "question" in row]
    lines = [
        [
            f"{row['threads']}, {'sleeping' if row['policy'] == 'PASSIVE' else 'spinning'}",
            f"{row['baseline']:.0f}",
            f"{row['value']:.0f}",
            f"{row['ratio']:.0%}",
        ]
        for row in rows
    ]
    columns = ("threads, and those that wait", "alone (images/s)", "beside it (images/s)", "left")
    return markdown(columns, lines) if lines else ""


def scale_bytes(results: Path) -> str:
    """Memory, disk and network for a million examples."""
    rows = _rows(results)

    def last(question: str) -> Row:
        return max((row for row in rows if row["question"] == question), key=lambda row: row["n"])

    table, kept = last("neighbor table"), last("saln select by saln")
    stored = last("extraction on disk")["value"]
    speed = last("extraction")["value"]
    lines = [
        ["features of EfficientNet-Lite0 and labels, on disk", f"{stored / 1e3:.2f} GB", NOTHING],
        ["neighbor table, on disk", f"{table['bytes_a_row'] / 1e3:.2f} GB",
         f"recall {table['recall']:.3f} at {table['n']:,} rows"],
        ["kept rows of a store at f = 0.8 (ids and scores), on disk and from Ray's workers",
         f"{1e3 * kept['bytes_a_row'] / 1e3:.1f} MB", NOTHING],
        ["features sent by Ray's extraction", f"{stored / 1e3:.2f} GB", NOTHING],
        ["one forward pass of EfficientNet-Lite0 at 96 pixels", _minutes(1e6 / speed),
         f"{speed:,.0f} images/s on this machine"],
    ]  # fmt: skip
    return markdown(("for a million examples", "costs", "note"), lines)


# What the operations that take the most time of a step are, for readers.
_OPERATIONS = {
    "aten::convolution_backward": "convolutions, backward",
    "aten::mkldnn_convolution": "convolutions, forward",
    "aten::native_batch_norm_backward": "batch normalization, backward",
    "aten::native_batch_norm": "batch normalization, forward",
}
_LIMITS = {
    "load": "reading images", "score": "scoring candidates", "train": "training steps",
    "evaluate": "measuring",
}  # fmt: skip


def bottlenecks_table(rows: list[Row]) -> str:
    """For each preset: the shares of its run by phase, and what limits it."""
    lines = []
    for row in rows:
        run, cost = row["run"], row["seconds"]
        whole = sum(run.values())
        operation, share = next(iter(row["operations"].items()))
        limit = max(run, key=lambda phase: run[phase])
        why = f": {_OPERATIONS.get(operation, f'`{operation}`')} ({share:.0%} of a step)"
        lines.append([
            f"`{row['preset']}`", f"{row['learner']}, {row['image_size']} px",
            _LIMITS[limit] + (why if limit == "train" else ""),
            *(f"{run[phase] / whole:.0%}" for phase in _LIMITS),
            f"{run['load'] / whole * cost['decode'] / cost['load']:.1%}",
            _minutes(whole),
        ])  # fmt: skip
    columns = ("preset", "network", "what limits it", "reading", "scoring", "training", "measuring",
               "decoding alone", "all arms, one seed, one core")  # fmt: skip
    return markdown(columns, lines, left=3)


def bottlenecks(results: Path) -> str:
    """Where the time of each preset goes."""
    return bottlenecks_table(read_rows(results, "bottlenecks"))


def compiled(results: Path) -> str:
    """Steps with and without torch.compile."""
    rows = [row for row in read_rows(results, "bottlenecks") if "compiled" in row]
    lines = [
        [
            f"{row['learner']}, {row['image_size']} px, {row['batch_size']} images",
            f"{1000 * row['compiled']['plain_step']:.0f}",
            f"{1000 * row['compiled']['step']:.0f}",
            f"{row['compiled']['start']:.0f}",
        ]
        for row in rows
    ]
    columns = ("a training step on one core", "plain (ms)", "compiled (ms)", "the first step (s)")
    return markdown(columns, lines)


TABLES = {
    "bottlenecks": bottlenecks,
    "compiled": compiled,
    "scale": scale,
    "scale-flat": scale_flat,
    "scale-approximate": approximate_search,
    "scale-bytes": scale_bytes,
    "busy-machine": busy_machine,
}
