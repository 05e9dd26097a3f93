"""One pass of a frozen backbone over examples, kept on disk."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from saln.data.augmentation import EvaluationTransform
from saln.data.datasets import Examples
from saln.data.views import EvaluationView, collate, inference_batch_size, raise_broken
from saln.errors import DataError
from saln.features.backbones import Network
from saln.features.store import FeatureStore

__all__ = ["extract"]


def extract(
    examples: Examples,
    backbone: Network,
    *,
    dataset: str,
    fingerprint: str,
    cache_dir: Path,
    device: torch.device | None = None,
    batch_size: int | None = None,
    workers: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> FeatureStore:
    """Gives the features of the examples, from the cache where they are there.

    Images are resized, centre-cropped and normalised as the backbone was built for.

    Args:
        examples: What to extract; one row of the store each, in order.
        backbone: From :func:`saln.features.backbones.build_backbone`.
        dataset: The data set's name, for the folder's name.
        fingerprint: The data set's fingerprint; features of another one are not reused.
        cache_dir: Where stores are kept.
        device: Where the backbone runs; the CPU when None.
        batch_size: Images a forward pass; what suits the device when None.
        workers: Loader processes.
        progress: Called with (rows done, rows in all).

    Raises:
        DataError: A broken image, features that are not finite in float16, a damaged
            store in the cache, or a disk that cannot be written to.
    """
    description: dict[str, Any] = {
        "dataset": dataset,
        "dataset_fingerprint": fingerprint,
        "rows": len(examples),
        "rows_hash": hashlib.blake2b(examples.rows.data, digest_size=16).hexdigest(),
        "backbone": backbone.name,
        "weights": backbone.identity(),
        "preprocessing": {
            "image_size": backbone.image_size,
            "mean": backbone.normalisation.mean,
            "std": backbone.normalisation.std,
        },
    }
    key = hashlib.blake2b(json.dumps(description).encode(), digest_size=6).hexdigest()
    slug = re.sub(r"[^a-z0-9]+", "-", dataset.lower()).strip("-")[-40:]
    path = cache_dir / f"{slug}-{backbone.name}-{backbone.image_size}px-{key}"
    if path.exists():
        return FeatureStore.open(path)

    device = device or torch.device("cpu")
    view = EvaluationView(
        examples, EvaluationTransform(backbone.image_size, backbone.normalisation)
    )
    loader = DataLoader(
        view,
        batch_size=batch_size or inference_batch_size(device),
        collate_fn=collate,
        num_workers=workers,
        generator=torch.Generator(),  # else the loader draws from the global one
    )
    body = backbone.body.to(device)
    features = np.empty((len(examples), backbone.width), dtype=np.float16)
    started = time.perf_counter()
    done = 0
    with torch.inference_mode():
        for batch in raise_broken(loader):
            rows = body(batch.images.to(device)).to(torch.float16).cpu()
            finite = torch.isfinite(rows).all(dim=1)
            if not bool(finite.all()):
                row = done + int((~finite).nonzero()[0])
                raise DataError(
                    f"{backbone.name} gives features that float16 cannot hold for example {row} "
                    f"of {dataset}; check that image, or use another backbone"
                )
            features[done : done + len(rows)] = rows.numpy()
            done += len(rows)
            progress(done, len(examples))
    seconds = round(time.perf_counter() - started, 3)
    return FeatureStore.write(path, features, examples.labels, description | {"seconds": seconds})
