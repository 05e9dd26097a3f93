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
from typing import Any, Literal

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

from saln.data.arguments import as_path, as_whole
from saln.data.fingerprint import fingerprint
from saln.data.items import MapStyle, check_map_style, read_item
from saln.data.torch_datasets import inference_batch_size
from saln.data.transforms import IMAGENET, Normalization
from saln.errors import DataError, InputError
from saln.features.backbones import Network, build_backbone, wrap_backbone
from saln.features.extraction_job import ExtractedRows, ExtractionJob, joined, ready
from saln.features.manifest import Manifest, Skipped
from saln.features.store import FeatureStore
from saln.features.store_writer import StoreWriter, finished_store
from saln.messages import parameter

logger = logging.getLogger(__name__)

# Pixels, for networks made for ImageNet.
DEFAULT_IMAGE_SIZE = 224
# A multiple of every batch size in use. A kill costs at most so many rows, or two times.
SHARD_ROWS = 1024
# How long to wait before looking again what another process has finished.
_POLL_SECONDS = 0.05
_RANKS = (("RANK", "0"), ("WORLD_SIZE", "1"))


@dataclass(frozen=True)
class Progress:
    """How far an extraction is.

    Attributes:
        rows_done: Rows of this process's share that are done, those of earlier runs
            included.
        rows: Rows of this process's share; with one process, of the store.
        rows_computed: Rows that this call has computed.
        images_per_second: Of this call; 0 at its beginning.
    """

    rows_done: int
    rows: int
    rows_computed: int
    images_per_second: float

    @property
    def seconds_left(self) -> float | None:
        """At the speed so far; None while there is none."""
        if self.images_per_second == 0:
            return None
        return (self.rows - self.rows_done) / self.images_per_second


def _find_device(device: torch.device | str | None, backbone: str | nn.Module) -> torch.device:
    if device is None and isinstance(backbone, nn.Module):
        parameter = next(backbone.parameters(), None)
        if parameter is not None:
            return parameter.device
    if device is None and torch.cuda.is_available():
        local_rank = int(os.environ.get("LOCAL_RANK", torch.cuda.current_device()))
        return torch.device("cuda", local_rank % torch.cuda.device_count())
    try:
        found = torch.device(device or "cpu")
    except (RuntimeError, TypeError) as error:
        raise InputError(f"device {device!r} is not known; give 'cpu' or 'cuda'") from error
    if found.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device {found} is not allowed: torch sees no GPU here; give 'cpu'")
    return found


def _find_ranks(rank: int | None, world_size: int | None) -> tuple[int, int]:
    if rank is None and world_size is None:
        distributed = torch.distributed
        if distributed.is_available() and distributed.is_initialized():
            return distributed.get_rank(), distributed.get_world_size()
        # As torchrun sets them. Nothing is sent between ranks, so no group is needed.
        rank, world_size = (int(os.environ.get(name, default)) for name, default in _RANKS)
    rank = None if rank is None else as_whole(rank, "rank", 0)
    world_size = None if world_size is None else as_whole(world_size, "world_size", 1)
    if rank is None or world_size is None or not 0 <= rank < world_size:
        raise InputError(
            f"rank={rank} of world_size={world_size} is not allowed; give both, with rank from 0 "
            "to world_size - 1, or neither"
        )
    return rank, world_size


def _find_backbone(
    backbone: str | Network | nn.Module,
    weights: str | Path | None,
    image_size: int | None,
    normalization: Normalization | None,
) -> Network:
    if isinstance(backbone, str):
        if normalization is not None:
            raise InputError(f"{backbone} has its own normalization; leave normalization out")
        if image_size is None and backbone in ("pixels", "small-cnn"):
            raise InputError(f"{backbone} has no usual image size; give image_size, e.g. 32")
        size = image_size or DEFAULT_IMAGE_SIZE
        file = None if weights is None else as_path(weights, "weights")
        return build_backbone(backbone, image_size=size, weights=file)
    if weights is not None:
        raise InputError("weights are for a backbone that is a name; load the module's before")
    if isinstance(backbone, Network):
        if image_size not in (None, backbone.image_size) or normalization is not None:
            raise InputError(
                f"the network {backbone.name} was built for {backbone.image_size} pixels and has "
                "its own normalization; leave image_size and normalization out"
            )
        return backbone
    if not isinstance(backbone, nn.Module):
        raise InputError(
            f"backbone={backbone!r} is not allowed; give a name ('saln list' names all) or a "
            "torch.nn.Module"
        )
    if image_size is None:
        raise InputError("a backbone that is a module needs image_size; give the pixels it expects")
    return wrap_backbone(backbone, image_size=image_size, normalization=normalization or IMAGENET)


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
            if part.first + len(part.labels) < shard.stop:
                continue
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
    own = set(range(shards * rank // ranks, shards * (rank + 1) // ranks))
    rows = sum(len(manifest.shard(number)) for number in own)
    done = rows - sum(len(manifest.shard(number)) for number in manifest.left if number in own)
    computed, started, told = 0, time.perf_counter(), False

    def advance(count: int) -> None:
        nonlocal computed
        computed += count
        if progress is not None:
            speed = computed / max(time.perf_counter() - started, 1e-9)
            progress(Progress(done + computed, rows, computed, speed))

    while left := writer.left():
        mine = [number for number in left if number in own]
        claimed = writer.claim(mine) if mine else []
        if not claimed:
            # What is left is another process's, or was: of one that ended, or never began.
            claimed = writer.claim(left)
            rows += sum(len(manifest.shard(number)) for number in claimed if number not in own)
        if claimed:
            if computed == 0:
                started = time.perf_counter()
            advance(0)
            _compute(job, writer, claimed, advance)
            continue
        if not told and ranks == 1:
            logger.warning("waiting for another process, which writes %s", writer.path)
        told = True
        time.sleep(_POLL_SECONDS)


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
    """What an extraction will do.

    Attributes:
        job: What is computed.
        path: The store's folder.
        manifest: What will be in it, with no shard done.
        rank: This process's number.
    """

    job: ExtractionJob
    path: Path
    manifest: Manifest
    rank: int

    def found(self) -> FeatureStore | None:
        """The store, where it is there and whole."""
        store = finished_store(self.path, self.manifest.identity)
        if store is not None:
            self.check_skipped(store.skipped)
            if len(store.skipped) == len(store):
                return self.finished()  # raises
        return store

    def check_skipped(self, skipped: Sequence[Skipped]) -> None:
        """Refuses a store without rows for some examples, where that is not asked for.

        Raises:
            DataError: The message names the first example and the cure.
        """
        if skipped and not self.job.skip:
            one = skipped[0]
            raise DataError(
                f"the feature store {self.path} lacks {len(skipped):,} examples that could "
                f"not be read, the first {one.file} ({one.reason}); go on without them with "
                f"{parameter('unreadable', 'skip')}, or repair or remove their "
                "files, as saln compare needs it, and run again"
            )

    def finished(self) -> FeatureStore:
        """The store, opened after it was written.

        Raises:
            DataError: It is damaged, or holds no row that could be read.
        """
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
    weights: str | Path | None = None,
    image_size: int | None = None,
    normalization: Normalization | None = None,
    name: str | None = None,
    device: torch.device | str | None = None,
    batch_size: int | None = None,
    workers: int = 0,
    mixed_precision: bool | None = None,
    rank: int | None = None,
    world_size: int | None = None,
    shard_rows: int = SHARD_ROWS,
    unreadable: Literal["raise", "skip"] = "raise",
) -> Plan:
    """Checks what :func:`extract_features` was given, and finds out what it means."""
    _refuse_lookalikes(dataset)
    check_map_style(dataset)
    if unreadable not in ("raise", "skip"):
        raise InputError(f"unreadable={unreadable!r} is not allowed; give 'raise' or 'skip'")
    shard_rows = as_whole(shard_rows, "shard_rows", 1)
    workers = as_whole(workers, "workers", 0)
    batch_size = None if batch_size is None else as_whole(batch_size, "batch_size", 1)
    image_size = None if image_size is None else as_whole(image_size, "image_size", 1)
    if name is not None and not isinstance(name, str):
        raise InputError(f"name={name!r} is not allowed; give text")
    if normalization is not None and not isinstance(normalization, Normalization):
        raise InputError(
            f"normalization={normalization!r} is not allowed; give "
            "saln.data.transforms.Normalization(mean, std)"
        )
    rank, world_size = _find_ranks(rank, world_size)
    device = _find_device(device, backbone.body if isinstance(backbone, Network) else backbone)
    network = _find_backbone(backbone, weights, image_size, normalization)
    mixed = device.type == "cuda" if mixed_precision is None else mixed_precision
    precision = None
    if mixed:
        brain = device.type != "cuda" or torch.cuda.is_bf16_supported()
        precision = torch.bfloat16 if brain else torch.float16
    try:
        read_item(dataset, 0)  # said now, not by a worker process later
    except DataError:
        if unreadable == "raise":
            raise
    identity = {
        "rows": len(dataset),
        "backbone": network.name,
        "weights": network.identity(),
        "width": network.width,
        "preprocessing": {
            "image_size": network.image_size,
            "mean": list(network.normalization.mean),
            "std": list(network.normalization.std),
        },
        "precision": "mixed" if mixed else "float32",
        "dataset_fingerprint": fingerprint(dataset),
    }
    name = name or type(dataset).__name__
    path = _store_path(as_path(cache_dir, "cache_dir"), name, network, identity)
    shards = -(-len(dataset) // shard_rows)
    job = ExtractionJob(
        dataset,
        network,
        device,
        batch_size or inference_batch_size(device),
        workers,
        precision,
        world_size,
        unreadable == "skip",
    )
    return Plan(job, path, Manifest(name, identity, shard_rows, (None,) * shards), rank)


def extract_features(
    dataset: MapStyle,
    backbone: str | Network | nn.Module = "resnet50",
    *,
    cache_dir: str | Path = "features/",
    weights: str | Path | None = None,
    image_size: int | None = None,
    normalization: Normalization | None = None,
    name: str | None = None,
    device: torch.device | str | None = None,
    batch_size: int | None = None,
    workers: int = 0,
    mixed_precision: bool | None = None,
    rank: int | None = None,
    world_size: int | None = None,
    shard_rows: int = SHARD_ROWS,
    unreadable: Literal["raise", "skip"] = "raise",
    progress: Callable[[Progress], None] | None = None,
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
        weights: A state dict on disk, in the place of the published weights.
        image_size: Pixels; 224 when not given, which networks made for ImageNet expect.
        normalization: For a module: what it expects of its input; ImageNet's when not
            given.
        name: The data set's name, for the folder's; its class's when not given.
        device: Where the backbone runs; when not given a GPU where there is one, and for
            a module where it is.
        batch_size: Images a forward pass; what suits the device when not given.
        workers: Processes that load images.
        mixed_precision: Run the backbone under autocast; when not given, on a GPU.
        rank: This process's number among ``world_size`` that make the store together;
            of ``torch.distributed`` or ``torchrun`` when not given.
        world_size: See ``rank``.
        shard_rows: How many rows are made durable at once.
        unreadable: What to do about examples that cannot be read: ``"raise"`` ends at the
            first, and finished shards are kept; ``"skip"`` lists them in the store's
            ``skipped`` and manifest, by file and reason. Their rows are NaN and their labels
            -1, and neither ``SelectedBatches`` nor ``select`` chooses them.
        progress: Told after every batch, and once before the first.

    Returns:
        The store; its rows are in the data set's order.

    Raises:
        InputError: A data set, backbone or setting that cannot work.
        DataError: An example that cannot be read, features that float16 cannot hold, a
            store that is damaged or holds something else, or a disk that cannot be
            written to. Finished shards are kept.
        WeightsError: The published weights cannot be downloaded.
        MissingExtraError: ``efficientnet-lite0`` without the extra ``offline``.
    """
    plan = plan_extraction(
        dataset,
        backbone,
        cache_dir=cache_dir,
        weights=weights,
        image_size=image_size,
        normalization=normalization,
        name=name,
        device=device,
        batch_size=batch_size,
        workers=workers,
        mixed_precision=mixed_precision,
        rank=rank,
        world_size=world_size,
        shard_rows=shard_rows,
        unreadable=unreadable,
    )
    if (whole := plan.found()) is not None:
        return whole
    job = plan.job
    with StoreWriter(plan.path, plan.manifest) as writer:
        plan.check_skipped(writer.manifest.skipped)
        try:
            with ready(job.network.body, job.device):
                _fill(job, writer, plan.rank, progress)
        except Exception:
            if job.world_size == 1:  # else the others may be about to finish a shard
                writer.discard()
            raise
    return plan.finished()


def _store_path(cache_dir: Path, name: str, network: Network, identity: dict[str, Any]) -> Path:
    if (cache_dir / "manifest.json").exists():
        return cache_dir
    key = hashlib.blake2b(json.dumps(identity).encode(), digest_size=6).hexdigest()
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[-40:]
    return cache_dir / f"{slug}-{network.name}-{network.image_size}px-{key}"
