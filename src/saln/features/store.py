"""Features on disk: a folder that is read without loading it and written shard by shard.

::

    features.npy    float16, (n, d)    memory-mapped; no pickle
    labels.npy      int64, (n,)
    manifest.json   what the rows were made of, how many are done, each shard's checksum
    timing.json     the seconds that each shard took
    verified.json   that the rows were compared with their checksums, and when they changed last

Everything but the last two is the same, byte by byte, however often the extraction was
interrupted. :mod:`saln.features.store_writer` writes it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from saln.data.arguments import as_path
from saln.data.fingerprint import fingerprint
from saln.data.items import MapStyle
from saln.errors import DataError, InputError
from saln.features.manifest import IDENTITY, Manifest, Skipped, damaged, read_manifest
from saln.features.verification import DamagedArrayError, find_damage, open_array
from saln.files import read_json

logger = logging.getLogger(__name__)


class UnfinishedStoreError(DataError):
    """A store of which rows are still to be made."""


class DamagedStoreError(DataError):
    """Rows or labels of a store are not what was written, and can be made anew."""


def read_shards(
    path: Path, manifest: Manifest, *, again: bool = False
) -> tuple[npt.NDArray[np.float16], npt.NDArray[np.int64]]:
    """Maps a store's arrays into memory; DamagedStoreError where they are not what was written."""
    try:
        # Mapped: of a store larger than memory only the pages that are used are read.
        features = open_array(path / "features.npy", (manifest.rows, manifest.width), np.float16)
        labels = open_array(path / "labels.npy", (manifest.rows,), np.int64)
    except DamagedArrayError as error:
        raise DamagedStoreError(_mendable(path, str(error))) from error
    found = find_damage(path, manifest, features, labels, again=again)
    if found is not None:
        shards, name = found
        rows = manifest.shard(shards[0])
        more = f", and {len(shards) - 1:,} more" if len(shards) > 1 else ""
        reason = (
            f"{name}: rows {rows.start:,} to {rows.stop - 1:,} are not what was written; "
            f"shard {shards[0]:,} of 0 to {len(manifest.checksums) - 1:,}{more}"
        )
        raise DamagedStoreError(_mendable(path, reason))
    return features, labels


def _mendable(path: Path, reason: str) -> str:
    return (
        f"the feature store {path} is damaged ({reason}); run the saln.extract_features, "
        "'saln features' or saln.write_store that made it again, which makes what is damaged "
        "anew and keeps the rest, or delete the folder"
    )


def read_seconds(path: Path) -> dict[str, float]:
    """The seconds of each shard, by its number as text; what is not known is left out.

    They lie beside the features and are no part of them: a broken file is no reason to stop.
    """
    try:
        seconds = read_json(path, "")["seconds"]
        return {str(shard): float(value) for shard, value in seconds.items()}
    except (DataError, KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return {}


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
            second of one of them counts for its share of a second on the clock. Shards whose
            entry in ``timing.json`` is lost count as long as the others on average.
        skipped: The examples that could not be read, where leaving them out was asked for:
            their rows hold NaN and the label -1, and whatever chooses from the store leaves
            them out.
    """

    path: Path
    features: npt.NDArray[np.float16]
    labels: npt.NDArray[np.int64]
    manifest: dict[str, Any]
    seconds: float
    skipped: tuple[Skipped, ...] = ()

    def __len__(self) -> int:
        return len(self.features)

    def __reduce__(self) -> tuple[Any, ...]:
        # To another process goes the path, not gigabytes of rows.
        return (FeatureStore.open, (self.path,))

    @property
    def readable(self) -> npt.NDArray[np.int64] | None:
        """The rows that are not skipped, int64 (m,), in order; None where that is all of them."""
        if not self.skipped:
            return None
        kept = np.ones(len(self), dtype=bool)
        kept[[entry.row for entry in self.skipped]] = False
        return np.flatnonzero(kept)

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """The names of classes 0, 1, ..., where the labels were given as names."""
        names = self.manifest.get("class_names")
        return None if names is None else tuple(names)

    @classmethod
    def open(
        cls, path: str | os.PathLike[str], *, expected: Mapping[str, Any] | None = None
    ) -> FeatureStore:
        """Opens a store.

        Its labels are read and compared with their checksums; its rows are, too, when they
        have changed on the disk since that was done last (:mod:`saln.features.verification`).

        Args:
            path: The folder.
            expected: What the store must have been made of: some of the manifest's
                entries, e.g. ``{"backbone": "resnet50"}``.

        Raises:
            DataError: There is no store, it is damaged, unfinished, of another format
                version or not what is expected.
            InputError: ``expected`` has a key that no manifest has; ``path`` is no path.
        """
        path = as_path(path, "path")
        # A misspelled key would be compared with nothing, and every store would do.
        unknown = [key for key in expected or () if key not in IDENTITY]
        if unknown:
            raise InputError(
                f"a feature store cannot be expected to have {', '.join(map(repr, unknown))}; "
                f"choose among {', '.join(IDENTITY)}"
            )
        manifest = read_manifest(path)
        # Arrays without a manifest: either damaged, or begun a moment ago.
        if manifest is None and path.is_dir() and any(path.glob("*.npy")):
            # Another process may have begun the store since.
            manifest = read_manifest(path)
            if manifest is None:
                raise damaged(path, "manifest.json is missing")
        if manifest is None:
            raise DataError(
                f"{path} holds no feature store; make one with saln.extract_features or "
                "'saln features', and give the folder that it names"
            )
        manifest.check(expected or {}, path)
        if manifest.left:
            raise UnfinishedStoreError(
                f"the feature store {path} is not finished: {manifest.rows_done:,} of "
                f"{manifest.rows:,} rows are done. Run the same saln.extract_features or "
                "'saln features' again: it goes on where it stopped"
            )
        features, mapped = read_shards(path, manifest)
        labels = np.array(mapped)
        labels.flags.writeable = False
        taken = read_seconds(path / "timing.json")
        shards = len(manifest.checksums)
        known = [taken[str(shard)] for shard in range(shards) if str(shard) in taken]
        if len(known) < shards:
            logger.warning(
                "%s does not say how long %d of %d shards took; %s",
                path / "timing.json", shards - len(known), shards,
                "they count as the others do" if known else "its features count as 0 s",
            )  # fmt: skip
        seconds = round(sum(known) * shards / max(len(known), 1), 3)
        return cls(path, features, labels, manifest.to_json(), seconds, manifest.skipped)

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
        """Reads every row again and compares it with the checksum of its shard.

        Opening does so where the file has changed; this, whatever its times say.

        Raises:
            DataError: Rows that are not what was written.
        """
        manifest = read_manifest(self.path)
        if manifest is None:
            raise damaged(self.path, "manifest.json is missing")
        read_shards(self.path, manifest, again=True)
