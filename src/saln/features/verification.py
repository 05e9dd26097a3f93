"""Whether a store's bytes are those that were written.

Labels are compared with their checksums whenever a store is opened. Rows may be far larger
than memory: they are read once, in parts, and what is then known is kept beside them, in
``verified.json``, with the file's size, its times and its number on the disk. While these are
as they were, the rows are not read again. The file is changed by whatever changes the rows:
by a copy, too, which is so read once more.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from saln.errors import DataError
from saln.features.manifest import Manifest
from saln.files import write_text
from saln.messages import first_line

logger = logging.getLogger(__name__)

STAMP = "verified.json"
# Bytes of the rows' file that are read at a time.
_PIECE = 4 * 2**20
# Reading more than this is worth a word.
_LONG = 8 * 2**30
# A file may be changed twice within one tick of its disk's clock, which is up to 2 s long (FAT):
# one that was changed so shortly before may be changed again and look the same.
_TICK_NS = 2 * 10**9
# Where nothing can be kept beside the rows: what this process has verified, by folder.
_known: dict[str, list[Any]] = {}


class DamagedArrayError(DataError):
    """An array of a store that is not what was written, and can be made anew in its place."""


def open_array(path: Path, shape: tuple[int, ...], dtype: type) -> Any:
    """Maps an array of a store, read-only; DamagedArrayError if it is not there as a whole."""
    wanted = np.dtype(dtype)
    read: Any = np.lib.format.read_array_header_1_0
    try:
        with path.open("rb") as stream:
            np.lib.format.read_magic(stream)
            found, by_column, kind = read(stream)
            offset, size = stream.tell(), os.fstat(stream.fileno()).st_size
    except Exception as error:  # the parser of a header raises many kinds, of Python's own too
        raise DamagedArrayError(f"{path.name}: {first_line(error)}") from error
    if found != shape or kind != wanted or by_column:
        raise DamagedArrayError(f"{path.name} holds {kind} {found}, expected {wanted} {shape}")
    expected = offset + wanted.itemsize * int(np.prod(shape, dtype=object))
    if size != expected:
        raise DamagedArrayError(f"{path.name} has {size:,} bytes, expected {expected:,}")
    return np.memmap(path, dtype=wanted, mode="r", offset=offset, shape=shape)


def find_damage(
    path: Path,
    manifest: Manifest,
    features: Any,
    labels: npt.NDArray[np.int64],
    *,
    again: bool = False,
) -> tuple[list[int], str] | None:
    """Compares what is written with its checksums: which shards differ, and in which file.

    Shards that are not written yet are passed over. The arrays are those of :func:`open_array`;
    with ``again`` the rows are read although they are known to be unchanged.
    """
    written = [number for number, one in enumerate(manifest.checksums) if one is not None]
    if manifest.version == 2:
        # One checksum of both: the rows must be read to know about the labels.
        stamp = _Stamp(path, manifest, [features, labels])
    else:
        bad = [number for number in written if not _labels_agree(manifest, number, labels)]
        if bad:
            return bad, "labels.npy"
        stamp = _Stamp(path, manifest, [features])
    if stamp.known and not again:
        return None
    if features.nbytes > _LONG:
        logger.warning(
            "reading the %.0f GiB of %s once, to compare them with their checksums",
            features.nbytes / 2**30,
            path / "features.npy",
        )
    bad = [number for number in written if not _rows_agree(manifest, number, features, labels)]
    if bad:
        name = "features.npy or labels.npy" if manifest.version == 2 else "features.npy"
        return bad, name
    stamp.keep()
    return None


def _labels_agree(manifest: Manifest, number: int, labels: npt.NDArray[np.int64]) -> bool:
    rows = manifest.shard(number)
    part = np.ascontiguousarray(labels[rows.start : rows.stop])
    return xxhash.xxh3_64_hexdigest(part.data) == (manifest.checksums[number] or "")[16:]


def _rows_agree(
    manifest: Manifest, number: int, features: Any, labels: npt.NDArray[np.int64]
) -> bool:
    rows = manifest.shard(number)
    recorded = manifest.checksums[number] or ""
    digest: Any = xxhash.xxh3_64() if manifest.version != 2 else hashlib.blake2b(digest_size=8)
    for piece in _pieces(features, rows):
        digest.update(piece)
    if manifest.version != 2:
        return bool(digest.hexdigest() == recorded[:16])
    digest.update(np.ascontiguousarray(labels[rows.start : rows.stop]).data)
    return bool(digest.hexdigest() == recorded)


def _pieces(features: Any, rows: range) -> Iterable[memoryview]:
    """A shard's bytes, read and not mapped: pages that are mapped count as this process's."""
    size = features.shape[1] * features.itemsize
    left = len(rows) * size
    buffer = memoryview(bytearray(min(_PIECE, left)))
    with Path(features.filename).open("rb", buffering=0) as stream:
        stream.seek(features.offset + rows.start * size)
        while left:
            count = stream.readinto(buffer[: min(_PIECE, left)])
            if not count:  # cut short since it was opened: then the checksum differs
                return
            yield buffer[:count]
            left -= count


def _stamp_of(manifest: Manifest, files: Iterable[Path]) -> list[Any]:
    """What stays the same while nobody writes to the files, and the checksums they had."""
    checksums = xxhash.xxh3_64_hexdigest(json.dumps(manifest.checksums).encode())
    stats = [file.stat() for file in files]
    return [
        checksums,
        *([s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino] for s in stats),
    ]


class _Stamp:
    """The note that arrays were verified; ``known`` if they are as they were then."""

    def __init__(self, path: Path, manifest: Manifest, arrays: list[Any]) -> None:
        self._path = path / STAMP
        files = [Path(getattr(array, "filename", path / "labels.npy")) for array in arrays]
        self._stamp = _stamp_of(manifest, files)
        changed = max(max(times[1], times[2]) for times in self._stamp[1:])
        self._settled = time.time_ns() - changed > _TICK_NS
        self._key = str(path.resolve())
        self.known = self._stamp in (_known.get(self._key), self._read())

    def _read(self) -> Any:
        try:
            return json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return None  # then they are verified again

    def keep(self) -> None:
        """Notes that the arrays are what was written."""
        if self._settled:
            _known[self._key] = self._stamp
            with contextlib.suppress(DataError):  # a disk that is only read
                write_text(self._path, json.dumps(self._stamp) + "\n")
