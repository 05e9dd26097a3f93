"""The nearest neighbors of every example, found once and kept beside the features.

Exact, and sure of it: float32 products propose some more neighbors than are asked for,
float64 products of the proposed pairs rank them, and a bound on the error of the first
tells whether an example that was not proposed could belong among the nearest. The rows
where it could are searched again in float64. Memory is bounded by blocks; no matrix
between all examples is ever formed. Large tables are approximate, with the share of the
exact neighbors that they hold measured: see :mod:`saln.features.approximate_neighbors`.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import secrets
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from saln._extras import optional_import
from saln.data.arguments import as_array, as_whole
from saln.errors import DataError, InputError
from saln.features.approximate_neighbors import approximate_neighbors, search_index
from saln.features.store import FeatureStore
from saln.features.unit_rows import KEYS, QUERIES, UnitRows, blocks, nearest_rows
from saln.files import file_checksum, read_json, remove, write_folder, write_json

logger = logging.getLogger(__name__)

FORMAT_VERSION = 3
# What a disk says that is only read. A full one says something else, and may be cured.
_READ_ONLY = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})
# What renaming a folder to a name says where another folder has it.
_OCCUPIED = frozenset({errno.ENOTEMPTY, errno.EEXIST})
_ARRAYS = ("indices", "similarities")
# Similarities that agree to this many decimals are equal: then the lower index comes first.
DECIMALS = 9
# Neighbors proposed beyond those asked for.
SPARE = 12
# Above this many rows "auto" is approximate: an exact search takes minutes on two cores.
EXACT_ROWS = 150_000

Engine = Literal["auto", "exact", "approximate", "faiss"]
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class NeighborTable:
    """The nearest neighbors of every example, itself left out, nearest first."""

    indices: npt.NDArray[np.int32]  # (n, k)
    similarities: npt.NDArray[np.float32]  # (n, k): cosines of mean-centered features
    seconds: float  # How long the search took, when it was made
    # The share of the exact neighbors that it holds, measured on a sample; 1 for an exact search.
    recall: float = 1.0

    def __len__(self) -> int:
        return len(self.indices)


def _faiss_index(rows: UnitRows) -> Any:
    with optional_import("faiss", "engine 'faiss'", instead="use engine 'exact'"):
        import faiss
    index = faiss.IndexFlatIP(rows.d)
    for start, stop in blocks(rows.n, KEYS):
        index.add(np.ascontiguousarray(rows.take(slice(start, stop)).numpy()))
    return index


def _rank(similarities: Array, indices: Array, k: int) -> tuple[Array, Array]:
    """The k first by (similarity, largest first; index, lowest first)."""
    # Sums in another order differ in the last digits; rounded, they sort the same way.
    similarities = np.round(similarities, DECIMALS)
    order = np.lexsort((indices, -similarities), axis=1)[:, :k]
    return np.take_along_axis(similarities, order, 1), np.take_along_axis(indices, order, 1)


def _search_in_float64(rows: UnitRows, queries: Array, k: int) -> tuple[Array, Array]:
    """The k nearest of some examples, by float64 products with all the others."""
    own = rows.exact(queries)
    best = np.empty((len(queries), 0))
    where = np.empty((len(queries), 0), dtype=np.int64)
    for low, high in blocks(rows.n, KEYS):
        products = own @ rows.exact(slice(low, high)).T
        inside = np.flatnonzero((queries >= low) & (queries < high))
        products[inside, queries[inside] - low] = -np.inf
        columns = np.broadcast_to(np.arange(low, high), products.shape)
        best, where = _rank(
            np.concatenate([best, products], axis=1), np.concatenate([where, columns], axis=1), k
        )
    return best, where


def _is_approximate(engine: Engine, n: int) -> bool:
    return engine == "approximate" or (engine == "auto" and n > EXACT_ROWS)


def nearest_neighbors(features: Any, k: int = 20, *, engine: Engine = "auto") -> NeighborTable:
    """The ``k`` nearest examples of each, by the cosine of mean-centered features.

    The same table for both exact engines, any number of threads and any block sizes:
    similarities that agree to nine decimals are equal, and of equals the lower index
    comes first.

    Args:
        features: floating, (n, d): an array, in memory or memory-mapped, a tensor, a list
            of rows, a data frame.
        k: At least 1; where there are fewer other examples, all of them.
        engine: ``exact``: blocked products; ``faiss``: proposals from a flat FAISS index
            (extra ``faiss``), which holds a float32 copy of the features;
            ``approximate``: a graph of FAISS, nearly all neighbors in a small part of the
            time; ``auto``: exact up to 150,000 rows.

    Raises:
        InputError: Features of another shape or not finite, ``k`` below 1, or an engine
            that there is not.
        MissingExtraError: FAISS is needed (``faiss``, ``approximate``, or ``auto`` above 150,000
            rows) and not installed.
    """
    if not isinstance(features, np.ndarray):
        features = as_array(features, "features")
    if features.ndim != 2 or not np.issubdtype(features.dtype, np.floating):
        raise InputError(
            f"features are {features.dtype} {features.shape}, expected floating (n, d)"
        )
    k = as_whole(k, "k", 1)
    if engine not in ("auto", "exact", "approximate", "faiss"):
        raise InputError(f"unknown engine {engine!r}; choose auto, exact, approximate or faiss")
    started = time.perf_counter()
    n = len(features)
    k = min(k, max(n - 1, 0))
    indices: npt.NDArray[np.int32] = np.empty((n, k), dtype=np.int32)
    similarities: npt.NDArray[np.float32] = np.empty((n, k), dtype=np.float32)
    if k == 0:
        return NeighborTable(indices, similarities, time.perf_counter() - started)
    rows = UnitRows(features)
    if _is_approximate(engine, n):
        most = approximate_neighbors(rows, k)
        indices[:], similarities[:] = most.indices, most.similarities
        return NeighborTable(indices, similarities, time.perf_counter() - started, most.recall)
    index = _faiss_index(rows) if engine == "faiss" else None
    count = min(k + SPARE, n - 1)
    # A float32 product of unit rows is off by less than this, whatever the order of the sum.
    error = (rows.d + 8) * float(np.finfo(np.float32).eps)
    for start, stop in blocks(n, QUERIES):
        which = torch.arange(start, stop)
        if index is None:
            quick, where = (part.numpy() for part in nearest_rows(rows, which, count))
        else:
            quick, where = search_index(index, rows, which, count)
        own = rows.exact(slice(start, stop))
        exact = np.empty(where.shape)
        # In pieces: the rows of all proposals at once would be QUERIES * count * d doubles.
        for low, high in blocks(stop - start, 64):
            others = rows.exact(where[low:high].reshape(-1))
            shape = (high - low, count, rows.d)
            exact[low:high] = np.einsum("qd,qcd->qc", own[low:high], others.reshape(shape))
        near, found = _rank(exact, where, k)
        if count < n - 1:
            # What was not proposed is at most as near as the last proposal, plus the error: if that
            # is still farther than the k-th found, nothing nearer can be missing.
            beaten = quick[:, -1].astype(np.float64) + error < near[:, -1]
            doubtful = np.flatnonzero(~beaten)
            for low, high in blocks(len(doubtful), 64):
                again = doubtful[low:high]
                near[again], found[again] = _search_in_float64(rows, start + again, k)
        indices[start:stop] = found
        similarities[start:stop] = near
    return NeighborTable(indices, similarities, time.perf_counter() - started)


def neighbors_among(
    features: Array, which: npt.NDArray[np.int64], among: npt.NDArray[np.int64], k: int
) -> tuple[npt.NDArray[np.int64], Array]:
    """The k nearest of some examples, int64 (q,), among a part of all, int64 (m,), which has them.

    Gives int64 (q, k) indices and float64 (q, k) cosines, nearest first: exact but for the
    rounding of float32. Where the part has fewer others than ``k``, all of them.
    """
    rows = UnitRows(features)
    k = min(k, len(among) - 1)
    indices, similarities = np.empty((len(which), k), dtype=np.int64), np.empty((len(which), k))
    for start, stop in blocks(len(which), QUERIES):
        best, where = nearest_rows(
            rows, torch.from_numpy(which[start:stop]), k, among=torch.from_numpy(among)
        )
        indices[start:stop], similarities[start:stop] = where.numpy(), best.numpy()
    return indices, similarities


def neighbor_table(
    store: FeatureStore,
    k: int = 20,
    *,
    rows: npt.NDArray[np.int64] | None = None,
    keep: bool = True,
) -> NeighborTable:
    """The neighbor table of a feature store, from the store's folder where it is there.

    It lies in ``neighbors-<k>/`` beside ``features.npy``, with a manifest of its own that
    names the features it was made of and the checksums of its arrays. One that does not fit,
    or is not what was written, is made again. Where the store lies on a disk that is only
    read, it lies in the user's cache folder (``$XDG_CACHE_HOME/saln/neighbors``,
    ``~/.cache`` by default) and, where that cannot be written either, only in memory.
    Several processes may ask for it together: the first that is done leaves it for all.

    With ``rows``, int64, it is of these alone, numbered from 0; unless it may be kept, nothing is
    written. InputError as :func:`nearest_neighbors`; DataError where the disk is full or fails, and
    nothing is left behind.
    """
    k = as_whole(k, "k", 1)
    count = len(store) if rows is None else len(rows)
    # Spelled as in the first version: tables that are there stay found.
    name = f"neighbours-{k}"
    if rows is not None:
        digest = hashlib.blake2b(np.asarray(rows, dtype=np.int64).tobytes(), digest_size=6)
        name += f"-{digest.hexdigest()}"
    made_of = hashlib.blake2b(
        json.dumps(store.manifest, sort_keys=True, default=str).encode(), digest_size=16
    ).hexdigest()
    fits = {
        "format_version": FORMAT_VERSION,
        "features": made_of,
        "rows": count,
        "neighbours": min(k, max(count - 1, 0)),
        "search": "approximate" if _is_approximate("auto", count) else "exact",
    }
    beside, cached = store.path / name, _in_cache(f"{made_of}-{name}")
    for place in (beside, cached):
        if place is not None and (kept := _read(place, fits)) is not None:
            return kept
    features = store.features if rows is None else store.features[rows]
    table = nearest_neighbors(features, k)
    if not keep:
        return table
    try:
        _keep(beside, table, fits)
        return table
    except DataError as error:
        if _errno(error) not in _READ_ONLY:
            raise
    reason = "there is no home folder"
    if cached is not None:
        try:
            _keep(cached, table, fits)
            return table
        except DataError as error:
            reason = str(error)
    logger.warning(
        "the neighbors of %s, which lies on a disk that is only read, are kept in memory alone "
        "and searched again next time (%s); XDG_CACHE_HOME names another folder for them",
        store.path,
        reason,
    )
    return table


def _in_cache(name: str) -> Path | None:
    """Where a table lies whose store cannot be written; None for a user without a home."""
    try:
        root = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    except RuntimeError:
        return None
    return root / "saln" / "neighbours" / name


def _errno(error: DataError) -> int | None:
    cause = error.__cause__
    return cause.errno if isinstance(cause, OSError) else None


def _read(path: Path, fits: dict[str, Any]) -> NeighborTable | None:
    """The table in a folder; None where there is none or it is not the one wanted."""
    try:
        manifest = read_json(path / "manifest.json", "")
        if any(manifest.get(key) != value for key, value in fits.items()):
            return None
        for name in _ARRAYS:
            if file_checksum(path / f"{name}.npy") != manifest["checksums"][name]:
                return None
        indices, similarities = (
            np.load(path / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in _ARRAYS
        )
        return NeighborTable(
            indices, similarities, float(manifest["seconds"]), float(manifest["recall"])
        )
    except (DataError, OSError, ValueError, KeyError, TypeError, EOFError):
        return None  # whatever ails it, it is made again from the features


def _keep(path: Path, table: NeighborTable, fits: dict[str, Any]) -> None:
    """Writes a table, unless another process has written one that fits."""

    def write(beside: Path) -> None:
        np.save(beside / "indices.npy", table.indices, allow_pickle=False)
        np.save(beside / "similarities.npy", table.similarities, allow_pickle=False)
        sums = {name: file_checksum(beside / f"{name}.npy") for name in _ARRAYS}
        about = {"seconds": round(table.seconds, 3), "recall": table.recall, "checksums": sums}
        write_json(beside / "manifest.json", {**fits, **about})

    # Until one that fits is there, whoever has written it.
    while _read(path, fits) is None:
        _clear(path)
        try:
            write_folder(path, write)
        except DataError as error:
            if _errno(error) not in _OCCUPIED:
                raise  # else another process has put its own there meanwhile


def _clear(path: Path) -> None:
    """Removes what is at a path; a reader sees all of it or nothing."""
    # Renamed first, in one step: a reader never sees half a table.
    aside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        path.rename(aside)
        remove(aside)
    except FileNotFoundError:
        return  # nothing is there, or another process was quicker
    except OSError as error:
        raise DataError(
            f"the neighbor table {path} does not fit its features and cannot be removed "
            f"({error.strerror}); remove it, or copy the feature store to a folder that can be "
            "written to"
        ) from error
