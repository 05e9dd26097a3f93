"""Features on disk: a folder that is read without loading it and written shard by shard.

::

    features.npy    float16, (n, d)    memory-mapped; no pickle
    labels.npy      int64, (n,)
    manifest.json   what the rows were made of, how many are done, each shard's checksum
    timing.json     the seconds that each shard took

Everything but ``timing.json`` is the same, byte by byte, however often the extraction was
interrupted. :mod:`saln.features.writing` writes it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from saln.data.fingerprint import fingerprint
from saln.data.items import MapStyle
from saln.errors import DataError, InputError

__all__ = [
    "FORMAT_VERSION",
    "FeatureStore",
    "Manifest",
    "open_array",
    "read_json",
    "read_manifest",
    "shard_checksum",
]

FORMAT_VERSION = 2
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


def shard_checksum(features: npt.NDArray[np.float16], labels: npt.NDArray[np.int64]) -> str:
    """A hash of a shard's rows and labels."""
    digest = hashlib.blake2b(np.ascontiguousarray(features).data, digest_size=8)
    digest.update(np.ascontiguousarray(labels).data)
    return digest.hexdigest()


@dataclass(frozen=True)
class Manifest:
    """The content of ``manifest.json``.

    Attributes:
        dataset: The data set's name, for people.
        identity: What the rows were made of; the keys of ``IDENTITY``.
        shard_rows: Rows of every shard but the last.
        checksums: One a shard; None where it is not written yet.
    """

    dataset: str
    identity: Mapping[str, Any]
    shard_rows: int
    checksums: tuple[str | None, ...]

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

    def to_json(self) -> dict[str, Any]:
        """As on disk."""
        return {
            "format_version": FORMAT_VERSION,
            "dataset": self.dataset,
            **{key: self.identity[key] for key in IDENTITY},
            "rows_done": self.rows_done,
            "shard_rows": self.shard_rows,
            "checksums": list(self.checksums),
        }

    def check(self, identity: Mapping[str, Any], path: Path) -> None:
        """Refuses a store that is not what is asked for.

        Raises:
            DataError: The message says what differs, from what to what, and the cure.
        """
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
                f"Ask for what it holds, give another cache_dir (--cache-dir), or {_delete(path)}"
            )


def _short(value: Any) -> str:
    return json.dumps(value) if not isinstance(value, str) else value[:40]


def _delete(path: Path) -> str:
    return f"delete the folder {path} and run again"


def _damaged(path: Path, reason: object) -> DataError:
    return DataError(f"the feature store {path} is damaged ({reason}); {_delete(path)}")


def read_json(path: Path) -> dict[str, Any]:
    """Reads one of a store's JSON files.

    Raises:
        DataError: It cannot be read, or holds no object.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _damaged(path.parent, f"{path.name}: {error}") from error
    if not isinstance(values, dict):
        raise _damaged(path.parent, f"{path.name} holds no JSON object")
    return values


def read_manifest(path: Path) -> Manifest | None:
    """Reads the manifest of the store in a folder; None where there is none.

    Raises:
        DataError: It is broken or of another format version.
    """
    if not (path / "manifest.json").exists():
        return None
    values = read_json(path / "manifest.json")
    version = values.get("format_version")
    if version != FORMAT_VERSION:
        raise DataError(
            f"the feature store {path} has format version {version}, this SALN reads "
            f"{FORMAT_VERSION}; {_delete(path)}, or read it with the SALN that wrote it"
        )
    missing = [key for key in (*IDENTITY, "dataset", "shard_rows", "checksums", "rows_done")
               if key not in values]  # fmt: skip
    if missing:
        raise _damaged(path, f"manifest.json lacks {', '.join(missing)}")
    counts = [values[key] for key in ("rows", "width", "shard_rows")]
    if not all(type(count) is int and count > 0 for count in counts):
        raise _damaged(path, "manifest.json: rows, width and shard_rows must be above 0")
    checksums = values["checksums"]
    shards = -(-values["rows"] // values["shard_rows"])
    if not isinstance(checksums, list) or len(checksums) != shards:
        raise _damaged(path, f"manifest.json must hold {shards} checksums")
    manifest = Manifest(
        str(values["dataset"]),
        {key: values[key] for key in IDENTITY},
        values["shard_rows"],
        tuple(checksums),
    )
    if manifest.rows_done != values["rows_done"]:
        raise _damaged(
            path,
            f"manifest.json counts {values['rows_done']:,} rows, its shards {manifest.rows_done:,}",
        )
    return manifest


def open_array(path: Path, shape: tuple[int, ...], dtype: type) -> Any:
    """Maps an array of a store into memory, read-only.

    Raises:
        DataError: It is missing, cut short, too long or of another shape.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        size = path.stat().st_size
    except (OSError, ValueError, EOFError) as error:
        raise _damaged(path.parent, f"{path.name}: {error}") from error
    if array.shape != shape or array.dtype != dtype:
        raise _damaged(
            path.parent,
            f"{path.name} holds {array.dtype} {array.shape}, expected {np.dtype(dtype)} {shape}",
        )
    if size != array.offset + array.nbytes:
        raise _damaged(path.parent, f"{path.name} is {size - array.offset - array.nbytes} too long")
    return array


@dataclass(frozen=True)
class FeatureStore:
    """Features of a data set, one row an example.

    Attributes:
        path: The folder.
        features: float16, (n, d), memory-mapped, read-only.
        labels: int64, (n,), read-only.
        manifest: The content of ``manifest.json``: backbone, weights' hash,
            preprocessing, data set fingerprint, rows, shards' checksums.
        seconds: What the extraction took, all its runs together; with several ranks each
            second of one of them counts for its share of a second on the clock.
    """

    path: Path
    features: npt.NDArray[np.float16]
    labels: npt.NDArray[np.int64]
    manifest: dict[str, Any]
    seconds: float

    def __len__(self) -> int:
        return len(self.features)

    def __reduce__(self) -> tuple[Any, ...]:
        # To another process goes the path, not gigabytes of rows.
        return (FeatureStore.open, (self.path,))

    @classmethod
    def open(cls, path: str | Path, *, expected: Mapping[str, Any] | None = None) -> FeatureStore:
        """Opens a store; nothing is read but the manifest and the labels.

        Args:
            path: The folder.
            expected: What the store must have been made of: some of the manifest's
                entries, e.g. ``{"backbone": "resnet50"}``.

        Raises:
            DataError: There is no store, it is damaged, unfinished, of another format
                version or not what is expected.
            InputError: ``expected`` has a key that no manifest has.
        """
        path = Path(path)
        unknown = [key for key in expected or () if key not in IDENTITY]
        if unknown:
            raise InputError(
                f"a feature store cannot be expected to have {', '.join(map(repr, unknown))}; "
                f"choose among {', '.join(IDENTITY)}"
            )
        manifest = read_manifest(path)
        if manifest is None:
            if path.is_dir() and any(path.glob("*.npy")):
                raise _damaged(path, "manifest.json is missing")
            raise DataError(
                f"{path} holds no feature store; make one with saln.extract_features or "
                "'saln features', and give the folder that it names"
            )
        manifest.check(expected or {}, path)
        if manifest.left:
            raise DataError(
                f"the feature store {path} is not finished: {manifest.rows_done:,} of "
                f"{manifest.rows:,} rows are done. Run the same saln.extract_features or "
                "'saln features' again: it goes on where it stopped"
            )
        features = open_array(path / "features.npy", (manifest.rows, manifest.width), np.float16)
        labels = open_array(path / "labels.npy", (manifest.rows,), np.int64)
        timing = read_json(path / "timing.json")
        try:
            seconds = round(sum(map(float, timing["seconds"].values())), 3)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise _damaged(path, f"timing.json: {error!r}") from error
        labels = np.array(labels)
        labels.flags.writeable = False
        return cls(path, features, labels, manifest.to_json(), seconds)

    def check(self, dataset: MapStyle) -> None:
        """Refuses a data set that is not the one whose features these are.

        Raises:
            DataError: It shrank, grew, or its names, sizes, order or labels changed.
        """
        if len(dataset) != len(self):
            raise DataError(
                f"the data set has {len(dataset):,} examples and the feature store {self.path} "
                f"{len(self):,} rows; extract its features anew with saln.extract_features"
            )
        if fingerprint(dataset) != self.manifest["dataset_fingerprint"]:
            raise DataError(
                f"the data set is not the one that the feature store {self.path} was made of: "
                "names, sizes, order or labels of its examples differ; extract its features anew "
                "with saln.extract_features"
            )

    def verify(self) -> None:
        """Reads every row and compares it with the checksum of its shard.

        Raises:
            DataError: The first rows that are not what was written.
        """
        manifest = read_manifest(self.path)
        for number, checksum in enumerate(manifest.checksums if manifest else ()):
            rows = manifest.shard(number) if manifest else range(0)
            part = slice(rows.start, rows.stop)
            if shard_checksum(self.features[part], self.labels[part]) != checksum:
                raise _damaged(
                    self.path, f"rows {rows.start:,} to {rows.stop - 1:,} are not what was written"
                )
