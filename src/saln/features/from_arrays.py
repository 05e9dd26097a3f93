"""A feature store of features that were computed elsewhere."""

from __future__ import annotations

import hashlib
import itertools
import os
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from saln.data.arguments import as_array, as_labels, as_path, as_whole
from saln.errors import InputError
from saln.features.manifest import Manifest
from saln.features.store import FeatureStore
from saln.features.store_writer import StoreWriter, claimed_shards, finished_store

_HALF = np.finfo(np.float16)
_INFINITY = np.float16(np.inf).view(np.uint16)


def write_store(
    path: str | os.PathLike[str],
    features: Any,
    labels: Any = None,
    *,
    name: str = "arrays",
    shard_rows: int = 65_536,
) -> FeatureStore:
    """Makes a store of features that were computed elsewhere, shard by shard.

    A store of the same arrays that is there already is finished, mended where it is damaged,
    or taken as it is.

    Args:
        path: The folder.
        features: Numbers (n, d) within float16's range: an array, a tensor, a list of rows,
            a data frame; memory-mapped arrays are read in parts.
        labels: One class an example, (n,) or (n, 1): whole numbers from 0, of any type, or
            names, which are numbered in alphabetical order and kept in the manifest.
        name: The data set's, for people.
        shard_rows: Rows that are made durable at a time.

    Raises:
        InputError: Shapes or values are not allowed: features that are not finite or that
            float16 turns into infinity, or all into 0; labels that are no classes. The
            message names the row.
        DataError: The folder holds something else, or cannot be written to.

    Warns:
        UserWarning: Rows that float16 turns into 0, or nearly.
    """
    path = as_path(path, "path")
    shard_rows = as_whole(shard_rows, "shard_rows", 1)
    # What has a shape and is no tensor or data frame is read in parts: it may lie on a disk.
    in_parts = hasattr(features, "ndim") and not hasattr(features, "to_numpy")
    if not in_parts or isinstance(features, torch.Tensor):
        features = as_array(features, "features")
    if features.ndim != 2 or not features.size:
        raise InputError(f"features are {tuple(features.shape)}; give (n, d), and labels (n,)")
    numbers, names = as_labels(labels, features.shape)
    digest = hashlib.blake2b(digest_size=16)
    shards = [slice(first, first + shard_rows) for first in range(0, len(features), shard_rows)]
    losses = _Losses()
    for part in shards:
        rows = losses.halve(features[part], part.start)
        digest.update(rows.data)
        digest.update(np.ascontiguousarray(numbers[part]).data)
    losses.say()
    if names is not None:
        digest.update("\0".join(names).encode(errors="surrogatepass"))
    identity = {
        "rows": len(features),
        "backbone": "given",
        "weights": "given",
        "width": int(features.shape[1]),
        "preprocessing": {},
        "precision": "float16",
        "dataset_fingerprint": digest.hexdigest(),
    }
    # Hashed and checked before: the same arrays are not written twice.
    if (whole := finished_store(path, identity)) is not None:
        return whole
    manifest = Manifest(name, identity, shard_rows, (None,) * len(shards), class_names=names)
    with StoreWriter(path, manifest) as writer:
        for shard in itertools.chain.from_iterable(claimed_shards(writer)):
            place = writer.manifest.shard(shard)  # a store begun has its own shard size
            part = slice(place.start, place.stop)
            # Read again rather than kept: all rows may be larger than memory.
            rows = np.asarray(features[part]).astype(np.float16)
            writer.write(shard, rows, numbers[part], (), 0.0)
    return FeatureStore.open(path)


class _Losses:
    """Turns rows into float16 and keeps account of what that takes from them."""

    def __init__(self) -> None:
        self.largest = 0.0
        self.kept = False
        self.lost: list[int] = []
        self.count = 0

    def halve(self, part: Any, start: int) -> npt.NDArray[np.float16]:
        """Some rows, float16; InputError for what is no number, or beyond float16's range."""
        wide = np.asarray(part)
        if wide.dtype.kind not in "fiub" or wide.ndim != 2:
            raise InputError(f"features are {wide.dtype} {wide.shape}; give numbers, (n, d)")
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):  # said below
            rows: npt.NDArray[np.float16] = np.ascontiguousarray(wide, dtype=np.float16)
        # Without the sign the bits of a half are ordered as sizes are; NumPy's own halves are slow.
        bits = rows.view(np.uint16) & np.uint16(0x7FFF)
        finite = (bits < _INFINITY).all(axis=1)
        if not finite.all():
            raise InputError(
                f"features of example {start + int((~finite).argmax())} are NaN, infinite or "
                f"beyond float16's {_HALF.max:,.0f}; rescale them, or leave that example out"
            )
        some = bits.any(axis=1)
        gone = np.flatnonzero(~some)
        # Rows that were 0 before have lost nothing.
        gone = gone[wide[gone].any(axis=1)]
        self.kept |= bool(some.any())
        self.count += len(gone)
        self.lost += (start + gone[: max(0, 3 - len(self.lost))]).tolist()
        self.largest = max(self.largest, float(bits.max(keepdims=True).view(np.float16)[0, 0]))
        return rows

    def say(self) -> None:
        """Refuses or warns where values were so small that little or nothing is left of them."""
        cure = "multiply all features by one number, so that they lie around 1"
        smallest = f"{_HALF.smallest_subnormal:.0e}"
        if self.count and not self.kept:
            raise InputError(
                f"all features are below {smallest}, the smallest number that a store (float16) "
                f"holds, and would become 0; {cure}"
            )
        if self.count:
            said = ", ".join(map(str, self.lost)) + (" ..." if self.count > len(self.lost) else "")
            warnings.warn(
                f"the features of {self.count} examples ({said}) are all below {smallest}, the "
                f"smallest number that a store (float16) holds, and become 0; {cure}",
                stacklevel=3,
            )
        elif 0 < self.largest < _HALF.smallest_normal:
            warnings.warn(
                f"no feature is above {self.largest:.1e}, and below {_HALF.smallest_normal:.1e} a "
                f"store (float16) holds few digits; {cure}",
                stacklevel=3,
            )
