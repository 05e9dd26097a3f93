"""``manifest.json`` of a feature store: what the rows were made of, and each shard's checksum.

It carries a checksum of itself, so that a changed byte in it is noticed as one in the rows is.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import xxhash

from saln.errors import DataError
from saln.files import read_json, signed
from saln.messages import parameter

FORMAT_VERSION = 3
# Before it, a shard had one checksum of rows and labels together (BLAKE2b), and the manifest
# none of itself. Such stores are read, and finished, as they are.
_VERSIONS = (2, FORMAT_VERSION)
# What must be the same for rows to be the rows asked for, and how a message names it.
IDENTITY = {
    "rows": "the number of examples",
    "backbone": "the backbone",
    "weights": "the backbone's weights",
    "width": "the number of features",
    "preprocessing": "the preprocessing",
    "precision": "the precision",
    "dataset_fingerprint": "the data set (names, sizes, order or labels of its examples)",
}
# The key of the checksum of itself.
SIGNATURE = "manifest_checksum"


def shard_checksum(
    features: npt.NDArray[np.float16], labels: npt.NDArray[np.int64], version: int = FORMAT_VERSION
) -> str:
    """A hash of a shard's rows and labels: 16 hexadecimal digits of the rows, 16 of the labels."""
    rows, numbers = (np.ascontiguousarray(array).data for array in (features, labels))
    if version == 2:
        digest = hashlib.blake2b(rows, digest_size=8)
        digest.update(numbers)
        return digest.hexdigest()
    return xxhash.xxh3_64_hexdigest(rows) + xxhash.xxh3_64_hexdigest(numbers)


class Skipped(NamedTuple):
    """An example without features: its position, what a person finds it by, and why."""

    row: int
    file: str
    reason: str


@dataclass(frozen=True)
class Manifest:
    """The content of ``manifest.json``."""

    dataset: str  # The data set's name, for people
    identity: Mapping[str, Any]  # What the rows were made of; the keys of ``IDENTITY``
    shard_rows: int  # Rows of every shard but the last
    checksums: tuple[str | None, ...]  # One a shard; None where it is not written yet
    # Examples of the shards that are written that could not be read, by row
    skipped: tuple[Skipped, ...] = ()
    # The names of classes 0, 1, ..., where labels were given as names
    class_names: tuple[str, ...] | None = None
    version: int = FORMAT_VERSION  # Of the format

    @property
    def rows(self) -> int:
        """The number of examples."""
        return int(self.identity["rows"])

    @property
    def width(self) -> int:
        """The number of features."""
        return int(self.identity["width"])

    @property
    def rows_done(self) -> int:
        """How many rows are written and durable."""
        return sum(len(self.shard(i)) for i, done in enumerate(self.checksums) if done)

    @property
    def left(self) -> list[int]:
        """The shards that are not written yet."""
        return [i for i, done in enumerate(self.checksums) if done is None]

    def shard(self, number: int) -> range:
        """The rows of a shard."""
        start = number * self.shard_rows
        return range(start, min(start + self.shard_rows, self.rows))

    def changed(self, sums: Mapping[int, str | None], skipped: Iterable[Skipped]) -> Manifest:
        """With other checksums of some shards, and all that is skipped by now."""
        checksums = tuple(sums.get(i, one) for i, one in enumerate(self.checksums))
        return dataclasses.replace(self, checksums=checksums, skipped=tuple(skipped))

    def to_json(self) -> dict[str, Any]:
        """As on disk."""
        values = {
            "format_version": self.version,
            "dataset": self.dataset,
            **{key: self.identity[key] for key in IDENTITY},
            "rows_done": self.rows_done,
            "shard_rows": self.shard_rows,
            "checksums": list(self.checksums),
        }
        # Written back as it was found, so that an older SALN still reads it.
        if self.version == 2:
            return values
        values["skipped"] = [entry._asdict() for entry in self.skipped]
        values["class_names"] = None if self.class_names is None else list(self.class_names)
        return signed(values, key=SIGNATURE)

    def check(self, identity: Mapping[str, Any], path: Path) -> None:
        """Raises DataError for a store of something else: what differs, from what to what."""
        # Both by way of JSON: a tuple is a list there.
        mine, wanted = (json.loads(json.dumps(dict(part))) for part in (self.identity, identity))
        differing = [key for key in IDENTITY if key in wanted and mine[key] != wanted[key]]
        if differing:
            reasons = "; ".join(
                f"{IDENTITY[key]} was {_short(mine[key])} and is {_short(wanted[key])} now"
                for key in differing
            )
            raise DataError(
                f"the feature store {path} does not hold what is asked for: {reasons}. "
                f"Ask for what it holds, give another {parameter('cache_dir')}, or "
                f"{_delete(path)}"
            )


def _short(value: Any) -> str:
    return json.dumps(value) if not isinstance(value, str) else value[:40]


def _delete(path: Path) -> str:
    return f"delete the folder {path} and run again"


def damaged(path: Path, reason: object) -> DataError:
    """The error for a store that cannot be used and that nothing can be kept of."""
    return DataError(f"the feature store {path} is damaged ({reason}); {_delete(path)}")


def read_manifest(path: Path) -> Manifest | None:
    """The manifest in a store's folder, None without one; DataError where it cannot be used."""
    if not (path / "manifest.json").exists():
        return None
    values = read_json(path / "manifest.json", _delete(path))
    version = values.get("format_version")
    # type, not isinstance: True is an int, and no version.
    if type(version) is not int or version not in _VERSIONS:
        raise DataError(
            f"the feature store {path} has format version {str(version)[:40]} in its "
            f"manifest.json, this SALN reads {' and '.join(map(str, _VERSIONS))}; "
            f"{_delete(path)}, or read it with the SALN that wrote it"
        )
    needed = [*IDENTITY, "dataset", "shard_rows", "checksums", "rows_done"]
    needed += [] if version == 2 else ["skipped", "class_names", SIGNATURE]
    missing = [key for key in needed if key not in values]
    if missing:
        raise damaged(path, f"manifest.json lacks {', '.join(missing)}")
    # An edited manifest may hold anything: nothing of it is believed.
    if version != 2 and signed(values, key=SIGNATURE) != values:
        raise damaged(path, "manifest.json is not what was written")
    counts = [values[key] for key in ("rows", "width", "shard_rows")]
    # Before any range is made of them: damaged numbers would take all memory.
    if not all(type(count) is int and 0 < count < 2**62 for count in counts):
        raise damaged(path, "manifest.json: rows, width and shard_rows must be above 0")
    checksums = values["checksums"]
    shards = -(-values["rows"] // values["shard_rows"])
    if not isinstance(checksums, list) or len(checksums) != shards:
        raise damaged(path, f"manifest.json must hold {shards} checksums")
    if not all(one is None or (isinstance(one, str) and one) for one in checksums):
        raise damaged(path, "manifest.json: a checksum is no text")
    names = values.get("class_names")
    manifest = Manifest(
        str(values["dataset"]),
        {key: values[key] for key in IDENTITY},
        values["shard_rows"],
        tuple(checksums),
        tuple(Skipped(**entry) for entry in values.get("skipped", ())),
        None if names is None else tuple(names),
        version,
    )
    if manifest.rows_done != values["rows_done"]:
        raise damaged(
            path,
            f"manifest.json counts {str(values['rows_done'])[:40]} rows, its shards "
            f"{manifest.rows_done:,}",
        )
    return manifest
