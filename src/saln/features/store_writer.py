"""Writing a feature store: shard by shard, each durable before it is counted.

The arrays have their final size from the beginning, so that a full disk is noticed before
anything is computed. A shard's rows are written to their place and fsynced; then the
manifest that counts them is written beside the old one, fsynced and renamed. After a kill
at any moment every counted shard is whole, and every other one is computed again.

A store that is finished and damaged is written again where it is damaged: what differs from
its checksums is counted no more, and so is left to be done.

Any number of processes may write one store: each locks the shards that it computes
(:mod:`saln.features.locks`), and the manifest while it changes it.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from saln.errors import DataError
from saln.features.locks import ByteLocks, LocksNotKnownError
from saln.features.manifest import Manifest, Skipped, read_manifest, shard_checksum
from saln.features.store import (
    DamagedStoreError,
    FeatureStore,
    UnfinishedStoreError,
    read_seconds,
)
from saln.features.verification import STAMP, DamagedArrayError, find_damage, open_array
from saln.files import flush, is_out_of_space, replacing
from saln.messages import parameter

logger = logging.getLogger(__name__)

_LOCK = ".lock"
_ARRAYS = ("features.npy", "labels.npy")
_BESIDE = (".timing.json.new", ".manifest.json.new")
# How long to wait before looking again what another process has finished.
POLL_SECONDS = 0.05
_MANIFEST_BYTE = 1 << 40  # the lock of the manifest, behind those of all shards
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR}
# Byte locks exclude other processes only; inside one, the writers of a folder take turns.
_TURNS: defaultdict[Path, threading.Lock] = defaultdict(threading.Lock)


def finished_store(path: Path, identity: Mapping[str, Any]) -> FeatureStore | None:
    """A folder's store where it is finished and whole; DataError for one of something else."""
    found = read_manifest(path)
    if found is None or found.left:
        return None
    try:
        store = FeatureStore.open(path, expected=identity)
    except (DamagedStoreError, UnfinishedStoreError):
        # Whoever writes it makes what is damaged anew; another process may do so just now, may
        # have begun since the manifest was read, and would lose its locks with the lock file.
        return None
    remove_lock_file(path)
    return store


def remove_lock_file(path: Path) -> None:
    """Removes the lock file of a finished store, which nobody writes any more."""
    with contextlib.suppress(OSError):  # the folder may be read-only; the file does no harm
        (path / _LOCK).unlink(missing_ok=True)


def _cure(error: OSError) -> str:
    """What to do about a store that cannot be written."""
    kept = "rows that are done stay and are not computed again"
    other = f"another folder with {parameter('cache_dir')}"
    if is_out_of_space(error):
        return f"Free some space, or give {other}; {kept}"
    if error.errno in _FORBIDDEN:
        return f"Give {other}, or make this one one that may be written to; {kept}"
    if error.errno == errno.ENOENT:
        return "Somebody removed it while it was written; run again"
    return f"Run again; if it stays so, look after the disk, or give {other}; {kept}"


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Says of what fails in the block what to do about it."""
    try:
        yield
    except LocksNotKnownError as error:
        raise DataError(
            f"the feature store {path} cannot be written: its disk gives no locks "
            f"({error.__cause__}). Give a folder on another disk with {parameter('cache_dir')}"
        ) from error
    except OSError as error:
        raise DataError(
            f"the feature store {path} cannot be written ({error}). {_cure(error)}"
        ) from error


def _replace(path: Path, values: dict[str, Any]) -> None:
    """Writes JSON beside its place and renames it."""
    beside = path.with_name(f".{path.name}.new")  # the manifest's lock is held: nobody else does
    with replacing(path, beside=beside, durable=True):
        beside.write_bytes(json.dumps(values, indent=2).encode() + b"\n")


def _write_at(stream: BinaryIO, data: bytes | memoryview, position: int) -> None:
    stream.seek(position)
    rest = memoryview(data).cast("B")
    while len(rest):  # an unbuffered file may take a part only
        rest = rest[stream.write(rest) :]


def _allocate(path: Path, shape: tuple[int, ...], dtype: type) -> None:
    """Gives an array its header and its final size; rows that are there stay."""
    header = {
        "descr": np.lib.format.dtype_to_descr(np.dtype(dtype)),
        "fortran_order": False,
        "shape": shape,
    }
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    with os.fdopen(descriptor, "r+b", buffering=0) as stream:
        np.lib.format.write_array_header_1_0(stream, header)
        size = stream.tell() + int(np.prod(shape)) * np.dtype(dtype).itemsize
        if os.fstat(stream.fileno()).st_size == size:
            return  # another process may be writing rows already
        if hasattr(os, "posix_fallocate"):
            # Not only named: a file with holes would meet the full disk hours later.
            try:
                os.posix_fallocate(stream.fileno(), 0, size)
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
                    raise  # those: a file system that cannot reserve space
        stream.truncate(size)
        os.fsync(stream.fileno())


def claimed_shards(writer: StoreWriter) -> Iterator[list[int]]:
    """Gives shards that this process has to write, until all are written by one."""
    while left := writer.left():
        if claimed := writer.claim(left):
            yield claimed
        else:
            time.sleep(POLL_SECONDS)  # another process writes them


class StoreWriter:
    """Writes what a store still lacks; a context manager.

    The folder is made when missing. The manifest says what is asked for, with no shard done; a
    store that is there goes on with its own shards. On entry raises DataError where the folder
    holds a store of something else, of another format version, or with a damaged manifest, or
    cannot be written to.
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest
        self._turn = _TURNS[path.resolve()]
        self._close = contextlib.ExitStack()

    def __enter__(self) -> StoreWriter:
        with contextlib.ExitStack() as stack, _explained(self.path):
            stack.enter_context(self._turn)
            self.path.mkdir(parents=True, exist_ok=True)
            self._locks = ByteLocks(self.path / _LOCK)
            stack.callback(self._locks.close)
            with self._locks.hold(_MANIFEST_BYTE):
                self._begin()
            self._arrays = [
                stack.enter_context((self.path / name).open("r+b", buffering=0)) for name in _ARRAYS
            ]
            self._close = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        if not self.manifest.left:
            remove_lock_file(self.path)
        self._close.close()

    def _begin(self) -> None:
        """Makes the store, or checks the one that is there. The manifest is locked."""
        found = read_manifest(self.path)
        try:
            self._adopt(found)
        except Exception:
            if found is None:  # else it is another run's
                self._discard()
            raise
        arrays: list[tuple[Path, tuple[int, ...], type]] = [
            (self.path / "features.npy", (self.manifest.rows, self.manifest.width), np.float16),
            (self.path / "labels.npy", (self.manifest.rows,), np.int64),
        ]
        mend = not self.manifest.left  # finished, and whoever finds it whole writes nothing
        for path, shape, dtype in arrays:
            try:
                if self.manifest.rows_done == 0:
                    _allocate(path, shape, dtype)
                open_array(path, shape, dtype)
            except DamagedArrayError:
                mend = True
                _allocate(path, shape, dtype)
            except OSError:
                if self.manifest.rows_done == 0:
                    self._discard()
                raise
        mapped = [open_array(*array) for array in arrays]
        self._offsets = [array.offset for array in mapped]  # where the first row is
        if mend:
            self._uncount_damaged(mapped)
        flush(self.path)

    def _uncount_damaged(self, arrays: list[Any]) -> None:
        """Has the shards that are not what was written done again. The manifest is locked."""
        found = find_damage(self.path, self.manifest, *arrays)
        if found is None:
            return
        shards, _ = found
        logger.warning(
            "%d of %d shards of %s are damaged and made anew",
            len(shards), len(self.manifest.checksums), self.path,
        )  # fmt: skip
        gone = [self.manifest.shard(shard) for shard in shards]
        kept = (one for one in self.manifest.skipped if not any(one.row in rows for rows in gone))
        self.manifest = self.manifest.changed(dict.fromkeys(shards), kept)
        _replace(self.path / "manifest.json", self.manifest.to_json())

    def _adopt(self, found: Manifest | None) -> None:
        """Takes the manifest that is there, or puts this writer's there."""
        if found is None:
            # A kill before the first manifest leaves these.
            strangers = {entry.name for entry in self.path.iterdir()} - {_LOCK, *_BESIDE}
            if strangers:
                raise DataError(
                    f"{self.path} holds {', '.join(sorted(strangers)[:3])} but no manifest.json: "
                    "no feature store, or a damaged one. Delete the folder and run again, or "
                    f"give another one with {parameter('cache_dir')}"
                )
            _replace(self.path / "manifest.json", self.manifest.to_json())
        else:
            found.check(self.manifest.identity, self.path)
            self.manifest = found

    def discard(self) -> None:
        """Removes what this writer has begun, where no shard is done."""
        with _explained(self.path), self._locks.hold(_MANIFEST_BYTE):
            self._discard()

    def _discard(self) -> None:
        found = read_manifest(self.path)
        names = [*_BESIDE, _LOCK]
        if found is not None:
            if found.rows_done or not all(map(self._locks.try_lock, found.left)):
                return  # or another process is computing
            # The manifest goes after the arrays: what it is alone with is a store begun.
            names = ["timing.json", STAMP, *_ARRAYS, "manifest.json", *names]
        for name in names:
            (self.path / name).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # something of another's is in it
            self.path.rmdir()

    def left(self) -> list[int]:
        """The shards that nobody has finished yet."""
        found = read_manifest(self.path)
        if found is None:
            raise DataError(
                f"the feature store {self.path} was removed while it was written; run again"
            )
        self.manifest = found
        return found.left

    def claim(self, shards: Sequence[int]) -> list[int]:
        """Locks those of the shards that no other process writes; gives them."""
        locked = [shard for shard in shards if self._locks.try_lock(shard)]
        left = set(self.left())  # some may have been finished just before
        for shard in locked:
            if shard not in left:
                self._locks.unlock(shard)
        return [shard for shard in locked if shard in left]

    def write(
        self,
        shard: int,
        features: npt.NDArray[np.float16],
        labels: npt.NDArray[np.int64],
        skipped: Sequence[Skipped],
        seconds: float,
    ) -> None:
        """Writes a claimed shard and, once it is durable, counts it with the seconds it took.

        Features are float16 (rows of the shard, d), labels int64; of examples that are
        skipped NaN and -1. Where the disk does not take it, DataError: it is not counted,
        those before it are kept.
        """
        first = self.manifest.shard(shard).start
        with _explained(self.path):
            arrays: tuple[npt.NDArray[Any], ...] = (features, labels)
            for stream, offset, array in zip(self._arrays, self._offsets, arrays, strict=True):
                row_bytes = array.nbytes // len(array)
                _write_at(stream, np.ascontiguousarray(array).data, offset + first * row_bytes)
                os.fsync(stream.fileno())
            checksum = shard_checksum(features, labels, self.manifest.version)
            with self._locks.hold(_MANIFEST_BYTE):
                self._count(shard, checksum, seconds, skipped)

    def _count(self, shard: int, checksum: str, seconds: float, skipped: Sequence[Skipped]) -> None:
        self.left()  # what other processes have counted meanwhile
        if skipped and self.manifest.version == 2:
            raise DataError(
                f"the feature store {self.path} was begun in format 2, which lists no unreadable "
                "examples; delete the folder and run again"
            )
        timing = self.path / "timing.json"
        taken = read_seconds(timing) if timing.exists() else {}
        taken[str(shard)] = round(seconds, 6)
        _replace(timing, {"seconds": taken})
        every = sorted([*self.manifest.skipped, *skipped])
        self.manifest = self.manifest.changed({shard: checksum}, every)
        _replace(self.path / "manifest.json", self.manifest.to_json())
