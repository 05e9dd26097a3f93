"""One pass of a frozen backbone over a data set, kept on disk."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

from saln.data.arguments import as_path
from saln.data.fingerprint import fingerprint
from saln.data.items import MapStyle, check_map_style, read_item
from saln.data.torch_datasets import inference_batch_size
from saln.errors import DataError, InputError
from saln.features.backbones import Network
from saln.features.extraction_job import ExtractedRows, ExtractionJob, joined, ready
from saln.features.extraction_options import ExtractionOptions, ExtractionSettings, rank_among
from saln.features.manifest import Manifest, Skipped
from saln.features.store import FeatureStore
from saln.features.store_writer import POLL_SECONDS, StoreWriter, finished_store
from saln.files import slug
from saln.messages import parameter

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Progress:
    """How far an extraction is."""

    rows_done: int  # Of this process's share, those of earlier runs included
    rows: int  # Of this process's share; with one process, of the store
    rows_computed: int  # By this call
    images_per_second: float  # Of this call; 0 at its beginning

    @property
    def seconds_left(self) -> float | None:
        """At the speed so far; None while there is none."""
        if self.images_per_second == 0:
            return None
        return (self.rows - self.rows_done) / self.images_per_second


class Meter:
    """Says how far an extraction is: of this process's rows, some done by earlier runs."""

    def __init__(self, rows: int, done: int, progress: Callable[[Progress], None] | None) -> None:
        self.rows = rows
        self.done = done
        self.progress = progress
        self.computed = 0
        self.started = time.perf_counter()

    def advance(self, count: int) -> None:
        """Counts rows that were just computed."""
        if self.computed == count == 0:
            self.started = time.perf_counter()  # waiting for others is no part of the speed
        self.computed += count
        if self.progress is not None:
            speed = self.computed / max(time.perf_counter() - self.started, 1e-9)
            self.progress(Progress(self.done + self.computed, self.rows, self.computed, speed))


def _compute(
    job: ExtractionJob, writer: StoreWriter, claimed: list[int], advance: Callable[[int], None]
) -> None:
    """Computes shards; each is written in the background while the next is computed."""
    manifest = writer.manifest
    shards = [manifest.shard(number) for number in claimed]
    queue = iter(zip(claimed, shards, strict=True))
    pending: Future[None] | None = None
    number, shard = next(queue)
    parts: list[ExtractedRows] = []
    started = time.perf_counter()
    with ThreadPoolExecutor(max_workers=1) as background:
        for part in job.batches(shards):
            parts.append(part)
            advance(len(part.labels))
            # Batches end where shards do, so the last one of a shard ends it exactly.
            if part.first + len(part.labels) < shard.stop:
                continue
            # One write at a time: else a slow disk would let rows pile up in memory.
            if pending is not None:
                pending.result()  # a failed write ends the run here
            now = time.perf_counter()
            seconds = (now - started) / job.world_size
            pending = background.submit(writer.write, number, *joined(parts), seconds)
            started, parts = now, []
            number, shard = next(queue, (number, shard))
        if pending is not None:
            pending.result()


def _fill(
    job: ExtractionJob, writer: StoreWriter, rank: int, progress: Callable[[Progress], None] | None
) -> None:
    """Computes this rank's slice, then what no living process has taken, until all is done."""
    manifest = writer.manifest
    shards, ranks = len(manifest.checksums), job.world_size
    # Neighboring shards: their images lie beside each other on the disk.
    own = set(range(shards * rank // ranks, shards * (rank + 1) // ranks))
    rows = sum(len(manifest.shard(number)) for number in own)
    left_of_own = sum(len(manifest.shard(number)) for number in manifest.left if number in own)
    meter = Meter(rows, rows - left_of_own, progress)
    waiting = False
    while left := writer.left():
        mine = [number for number in left if number in own]
        claimed = writer.claim(mine) if mine else []
        if not claimed:
            # What is left is another process's, or was: of one that ended, or never began.
            claimed = writer.claim(left)
            meter.rows += sum(len(manifest.shard(n)) for n in claimed if n not in own)
        if claimed:
            meter.advance(0)
            _compute(job, writer, claimed, meter.advance)
            continue
        if not waiting and ranks == 1:
            logger.warning("waiting for another process, which writes %s", writer.path)
        waiting = True
        time.sleep(POLL_SECONDS)


def _refuse_lookalikes(dataset: Any) -> None:
    """Refuses what has a length and positions and is no data set, with what to give."""
    name = type(dataset).__name__
    cure = ""
    if isinstance(dataset, DataLoader):
        cure = "it shuffles and batches; give its data set, loader.dataset"
    elif isinstance(dataset, str | os.PathLike):
        cure = "give a data set, such as torchvision.datasets.ImageFolder(path)"
    elif isinstance(dataset, Mapping):
        parts = ", ".join(map(repr, list(dataset)[:3]))
        cure = f"it holds {parts or 'nothing'}; give one of its parts"
    elif isinstance(dataset, np.ndarray | torch.Tensor):
        cure = "it holds no labels; give torch.utils.data.TensorDataset(images, labels)"
    elif hasattr(dataset, "iloc"):
        cure = "it is a table; give a data set that opens an image with its label by position"
    if cure:
        raise InputError(f"{name} is not a data set of images: {cure}")


@dataclass(frozen=True)
class Plan:
    """What an extraction will do; the manifest is of its end, with no shard done."""

    job: ExtractionJob
    path: Path
    manifest: Manifest
    rank: int

    def found(self) -> FeatureStore | None:
        """The store, where it is there and whole."""
        # Looked at without a lock: a finished store is never written.
        store = finished_store(self.path, self.manifest.identity)
        if store is not None:
            self.check_skipped(store.skipped)
            if len(store.skipped) == len(store):
                return self.finished()  # raises
        return store

    def check_skipped(self, skipped: Sequence[Skipped]) -> None:
        """Raises DataError for a store without some rows, where that is not asked for."""
        if skipped and not self.job.skip:
            one = skipped[0]
            raise DataError(
                f"the feature store {self.path} lacks {len(skipped):,} examples that could "
                f"not be read, the first {one.file} ({one.reason}); go on without them with "
                f"{parameter('unreadable', 'skip')}, or repair or remove their "
                "files, as saln compare needs it, and run again"
            )

    def run(self, fill: Callable[[StoreWriter], None]) -> FeatureStore:
        """Makes what the store lacks by ``fill``, and opens it; what is finished is kept."""
        with StoreWriter(self.path, self.manifest) as writer:
            self.check_skipped(writer.manifest.skipped)
            try:
                fill(writer)
            except Exception:
                if self.job.world_size == 1:  # else the others may be about to finish a shard
                    writer.discard()
                raise
        return self.finished()

    def finished(self) -> FeatureStore:
        """The store, opened after it was written; DataError where it is damaged or has no row."""
        store = FeatureStore.open(self.path, expected=self.manifest.identity)
        if store.skipped:
            one = store.skipped[0]
            if len(store.skipped) == len(store):
                raise DataError(
                    f"no example of the data set can be read, the first {one.file} "
                    f"({one.reason}); give another data set"
                )
            logger.warning(
                "%d of %d examples could not be read and are left out, the first %s (%s); %s "
                "lists them",
                len(store.skipped), len(store), one.file, one.reason, self.path / "manifest.json",
            )  # fmt: skip
        return store


def plan_extraction(
    dataset: MapStyle,
    backbone: str | Network | nn.Module,
    *,
    cache_dir: str | Path,
    rank: int | None = None,
    world_size: int | None = None,
    **options: Unpack[ExtractionOptions],
) -> Plan:
    """Checks what :func:`extract_features` was called with, and finds out what it means."""
    _refuse_lookalikes(dataset)
    check_map_style(dataset)
    settings = ExtractionSettings(**options)
    place = rank_among(rank, world_size)
    device = settings.device_for(backbone.body if isinstance(backbone, Network) else backbone)
    network = settings.network(backbone)
    precision = settings.precision_on(device)
    skip = settings.unreadable == "skip"
    try:
        read_item(dataset, 0)  # said now, not by a worker process later
    except DataError:
        if not skip:
            raise
    identity = {
        "rows": len(dataset),
        "backbone": network.name,
        "weights": network.identity(),
        "width": network.width,
        "preprocessing": network.preprocessing,
        "precision": "float32" if precision is None else "mixed",
        "dataset_fingerprint": fingerprint(dataset),
    }
    name = settings.name or type(dataset).__name__
    path = _store_path(as_path(cache_dir, "cache_dir"), name, network, identity)
    shards = -(-len(dataset) // settings.shard_rows)
    job = ExtractionJob(
        dataset,
        network,
        device,
        settings.batch_size or inference_batch_size(device, network.image_size),
        settings.workers,
        precision,
        place.count,
        skip,
    )
    manifest = Manifest(name, identity, settings.shard_rows, (None,) * shards)
    return Plan(job, path, manifest, place.index)


def extract_features(
    dataset: MapStyle,
    backbone: str | Network | nn.Module = "resnet50",
    *,
    cache_dir: str | Path = "features/",
    rank: int | None = None,
    world_size: int | None = None,
    progress: Callable[[Progress], None] | None = None,
    **options: Unpack[ExtractionOptions],
) -> FeatureStore:
    """Gives the features of every example, from the cache where they are there.

    Images are resized, center-cropped and normalized as the backbone expects. A run that
    was stopped, by a kill too, goes on where it stopped; a store that is damaged is made
    anew where it is. Several processes may make one store together; each computes its slice
    and returns when the store is whole.

    Args:
        dataset: Any map-style data set that gives ``(image, label)`` or a dict with the
            two, without transforms of its own: one of torchvision, of Hugging Face, a
            part of :func:`saln.data.datasets.load_dataset`. See
            :func:`saln.data.items.read_item`.
        backbone: A name from ``saln list``, or a module that gives (b, width).
        cache_dir: Where stores are kept, each in a folder whose name follows from what
            it is made of. Or the folder of a store itself, which is then refused where
            it holds something else than what is asked for.
        rank: This process's number among ``world_size`` that make the store together;
            of ``torch.distributed`` or ``torchrun`` when not given.
        world_size: See ``rank``.
        progress: Called after every batch, and once before the first.
        options: ``image_size``, ``weights``, ``normalization``, ``name``, ``device``,
            ``batch_size``, ``workers``, ``mixed_precision``, ``shard_rows`` and
            ``unreadable``: see :class:`~saln.features.extraction_options.ExtractionOptions`.

    Returns:
        The store; its rows are in the data set's order.

    Raises:
        InputError: A data set, backbone or setting that cannot work.
        DataError: An example that cannot be read, features that float16 cannot hold, a
            store that is damaged or holds something else, or a disk that cannot be
            written to. Finished shards are kept.
        WeightsError: The published weights cannot be downloaded.
        MissingExtraError: A backbone of a package that is not installed.
    """
    plan = plan_extraction(
        dataset, backbone, cache_dir=cache_dir, rank=rank, world_size=world_size, **options
    )
    if (whole := plan.found()) is not None:
        return whole
    with ready(plan.job.network.body, plan.job.device):
        return plan.run(lambda writer: _fill(plan.job, writer, plan.rank, progress))


def _store_path(cache_dir: Path, name: str, network: Network, identity: dict[str, Any]) -> Path:
    # A store's own folder was given: it must hold this, or is refused.
    if (cache_dir / "manifest.json").exists():
        return cache_dir
    # Whatever changes the rows changes the name, so that stores never take each other's place.
    key = hashlib.blake2b(json.dumps(identity).encode(), digest_size=6).hexdigest()
    backbone = network.name
    if network.own_preprocessing is not None:  # libraries' names hold what folders' may not
        backbone = re.sub(r"[^\w.-]+", "-", backbone)[-60:]
    return cache_dir / f"{slug(name, 40)}-{backbone}-{network.image_size}px-{key}"
