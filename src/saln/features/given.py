"""A feature store of features that were computed elsewhere."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from saln.errors import InputError
from saln.features.store import FeatureStore, Manifest
from saln.features.writing import StoreWriter

__all__ = ["write_store"]


def write_store(
    path: str | Path,
    features: npt.NDArray[Any],
    labels: npt.NDArray[np.integer[Any]],
    *,
    name: str = "arrays",
    shard_rows: int = 65_536,
) -> FeatureStore:
    """Makes a store of features that were computed elsewhere, shard by shard.

    A store of the same arrays that is there already is finished, or taken as it is.

    Args:
        path: The folder.
        features: Numbers (n, d) within float16's range; memory-mapped ones are read in parts.
        labels: Whole numbers (n,).
        name: The data set's, for people.
        shard_rows: Rows that are made durable at a time.

    Raises:
        InputError: Shapes or values are not allowed.
        DataError: The folder holds something else, or cannot be written to.
    """
    path = Path(path)
    if features.ndim != 2 or labels.shape != features.shape[:1] or not features.size:
        raise InputError(
            f"features are {features.shape} and labels {labels.shape}; give (n, d) and (n,)"
        )
    digest = hashlib.blake2b(digest_size=16)
    shards = [slice(first, first + shard_rows) for first in range(0, len(features), shard_rows)]
    for part in shards:
        with np.errstate(over="ignore"):  # said below
            rows = features[part].astype(np.float16)
        if not np.isfinite(rows).all():
            row = part.start + int((~np.isfinite(rows)).any(axis=1).argmax())
            raise InputError(
                f"features of example {row} are NaN, infinite or beyond float16's 65,504; "
                "rescale them, or leave that example out"
            )
        digest.update(rows.data)
        digest.update(np.ascontiguousarray(labels[part], dtype=np.int64).data)
    identity = {
        "rows": len(features),
        "backbone": "given",
        "weights": "given",
        "width": features.shape[1],
        "preprocessing": {},
        "precision": "float16",
        "dataset_fingerprint": digest.hexdigest(),
    }
    manifest = Manifest(name, identity, shard_rows, (None,) * len(shards))
    with StoreWriter(path, manifest) as writer:
        for shard in writer.claim(writer.left()):
            part = shards[shard]
            rows = features[part].astype(np.float16)
            writer.write(shard, rows, labels[part].astype(np.int64), 0.0)
    return FeatureStore.open(path)
