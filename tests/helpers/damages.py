"""Damages to files, as disks, copies and people make them: random, and the same for a seed.

::

    random = np.random.default_rng(0)
    for _ in range(100):
        folder = fresh_copy()
        done = damage(folder, random)       # one file of the folder, changed or gone
        ...                                 # ``done.name`` and ``done.kind`` say what was done
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["KINDS", "Damage", "damage", "damage_file", "files_of"]

KINDS = ("cut", "emptied", "flipped", "deleted", "other JSON")
# What another program, or another version of this one, may have left under the name.
OTHERS = (
    "null",
    "[]",
    "{}",
    "0",
    '"text"',
    "[" * 100_000,
    '{"format_version": 1}',
    "\xff\xfe",
    "NaN",
)
# What a value inside JSON is changed to.
VALUES: tuple[Any, ...] = (None, [], {}, -1, 0, 1.5, 10**30, "text", [None], {"a": 1}, True)


@dataclass(frozen=True)
class Damage:
    """What was done.

    Attributes:
        kind: One of ``KINDS``.
        name: The file, relative to the folder.
        detail: Where, or what is there now; for the message of a failed test.
    """

    kind: str
    name: str
    detail: str


def files_of(folder: Path) -> list[str]:
    """All files below a folder, relative to it, in a fixed order."""
    return sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )


def damage(
    folder: Path,
    random: np.random.Generator,
    *,
    kinds: Sequence[str] = KINDS,
    names: Sequence[str] | None = None,
) -> Damage:
    """Damages one file of a folder at random.

    Args:
        folder: Holds at least one file.
        random: Decides which file, how and where.
        kinds: Which kinds there may be.
        names: Which files, relative to the folder; all that are in it when None.
    """
    found = list(files_of(folder) if names is None else names)
    name = found[int(random.integers(len(found)))]
    kind = kinds[int(random.integers(len(kinds)))]
    return Damage(kind, name, damage_file(folder / name, kind, random))


def damage_file(path: Path, kind: str, random: np.random.Generator) -> str:
    """Damages a file; gives what was done, for people."""
    data = path.read_bytes()
    if kind == "deleted":
        path.unlink()
        return "gone"
    if kind == "emptied":
        path.write_bytes(b"")
        return "0 bytes"
    if kind == "cut":
        length = int(random.integers(len(data))) if data else 0
        path.write_bytes(data[:length])
        return f"{length} of {len(data)} bytes"
    if kind == "flipped":
        if not data:
            path.write_bytes(b"\0")
            return "a byte where there was none"
        place, bit = int(random.integers(len(data))), int(random.integers(8))
        changed = bytearray(data)
        changed[place] ^= 1 << bit
        path.write_bytes(changed)
        return f"bit {bit} of byte {place} of {len(data)}"
    assert kind == "other JSON", kind
    text = _other_json(data, random)
    path.write_bytes(text.encode("latin-1", errors="replace"))
    return text[:200]


def _other_json(data: bytes, random: np.random.Generator) -> str:
    """JSON with one value changed or a key left out; or none of it, or something else."""
    try:
        values = json.loads(data)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict) or not values or random.integers(3) == 0:
        return OTHERS[int(random.integers(len(OTHERS)))]
    at: Any = values
    while True:
        keys = list(at) if isinstance(at, dict) else list(range(len(at)))
        key = keys[int(random.integers(len(keys)))]
        inside = at[key]
        if isinstance(inside, dict | list) and inside and random.integers(2):
            at = inside
            continue
        if random.integers(4) == 0:
            del at[key]
        else:
            at[key] = VALUES[int(random.integers(len(VALUES)))]
        return json.dumps(values)
