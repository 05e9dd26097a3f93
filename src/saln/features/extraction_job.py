"""What an extraction computes: rows of a frozen backbone, batch after batch."""

from __future__ import annotations

import contextlib
import functools
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from saln.data.file_names import name_of
from saln.data.items import MapStyle
from saln.data.torch_datasets import Batch, EvaluationView, collate, quiet_worker
from saln.errors import DataError, InputError, SalnError
from saln.features.backbones import Network, device_of, inference_mode_of
from saln.features.manifest import Skipped
from saln.messages import parameter

logger = logging.getLogger(__name__)


class ExtractedRows(NamedTuple):
    """What a batch gave."""

    features: npt.NDArray[np.float16]  # float16, (b, d); NaN where an example is skipped
    labels: npt.NDArray[np.int64]  # int64, (b,); -1 there
    first: int  # The first one's position in the data set; the others follow it
    skipped: tuple[Skipped, ...]  # Those that could not be read


def joined(
    parts: Sequence[ExtractedRows],
) -> tuple[npt.NDArray[np.float16], npt.NDArray[np.int64], tuple[Skipped, ...]]:
    """A shard of its batches: features, labels and what is skipped."""
    return (
        np.concatenate([part.features for part in parts]),
        np.concatenate([part.labels for part in parts]),
        tuple(entry for part in parts for entry in part.skipped),
    )


def _to_float16(
    rows: Tensor, first: int, backbone: str, dataset: MapStyle
) -> npt.NDArray[np.float16]:
    """Gives float16, (b, d), on the CPU; the DataError names a row that it cannot hold."""
    # Checked after the conversion: what float16 cannot hold has become infinite there.
    small = rows.to(torch.float16).cpu()
    finite = torch.isfinite(small).all(dim=1)
    if not bool(finite.all()):
        row = int((~finite).nonzero()[0])
        values = rows[row].float()
        if bool(torch.isfinite(values).all()):
            problem = f"reach {float(values.abs().max()):.4g}, more than float16 holds (65504)"
            cure = "scale them down, for example with a LayerNorm behind the backbone"
        else:
            problem = "hold NaN or infinity"
            cure = "check that example and the backbone's weights"
        name = name_of(dataset, first + row)
        which = f"example {first + row}" + (f" ({name})" if name else "")
        raise DataError(f"the features of {which} by {backbone} {problem}; {cure}")
    array: npt.NDArray[np.float16] = small.numpy()
    return array


class _View(Dataset[Any]):
    """Examples as a backbone sees them; in the place of one that cannot be read, why."""

    def __init__(
        self, dataset: MapStyle, transform: Callable[[Image.Image], Tensor], skip: bool
    ) -> None:
        self.view = EvaluationView(dataset, transform)
        self.skip = skip

    def __len__(self) -> int:
        return len(self.view)

    def __getitem__(self, index: int) -> tuple[Tensor, int, int] | Skipped | SalnError:
        item = self.view[index]
        if not isinstance(item, DataError):
            return item
        if not self.skip:
            return DataError(
                f"{item}; or list it and keep the others with {parameter('unreadable', 'skip')}"
            )
        # The decoder's own words say more than ours about it.
        cause = item.__cause__
        reason = str(item) if cause is None else f"{type(cause).__name__}: {cause}"
        # An object's address is another one in every process.
        reason = re.sub(r" at 0x[0-9a-f]+", "", " ".join(reason.split()))
        return Skipped(index, name_of(self.view.examples, index) or f"example {index}", reason)


def _collate(
    image_size: int, items: Sequence[tuple[Tensor, int, int] | Skipped | SalnError]
) -> tuple[Batch | SalnError, tuple[Skipped, ...]]:
    """Makes a batch, with a black image in the place of each that is skipped."""
    skipped = tuple(item for item in items if isinstance(item, Skipped))
    black = torch.zeros(3, image_size, image_size)
    shown = [(black, -1, item.row) if isinstance(item, Skipped) else item for item in items]
    return collate(shown), skipped


@dataclass(frozen=True)
class ExtractionJob:
    """What one call computes by, and on; see :func:`extract_features` for the fields.

    ``world_size`` processes compute at once; ``precision`` is autocast's, None for none;
    ``skip``: examples that cannot be read are listed and no error.
    """

    dataset: MapStyle
    network: Network
    device: torch.device
    batch_size: int
    workers: int
    precision: torch.dtype | None
    world_size: int
    skip: bool = False

    def batches(self, shards: list[range]) -> Iterator[ExtractedRows]:
        """Gives the rows of ``shards`` in order; a batch ends where a shard does."""
        network, size = self.network, self.batch_size
        on_gpu = self.device.type == "cuda"
        # They end where shards do, so that a resumed run forms the same ones.
        batches: list[Any] = [
            shard[start : start + size] for shard in shards for start in range(0, len(shard), size)
        ]
        loader = DataLoader(
            _View(self.dataset, network.transform, self.skip),
            batch_sampler=batches,
            collate_fn=functools.partial(_collate, network.image_size),
            num_workers=self.workers,
            worker_init_fn=quiet_worker,
            pin_memory=on_gpu,
            generator=torch.Generator(),  # else the loader draws from the global one
        )
        warned = False
        for batch, skipped in loader:
            if isinstance(batch, SalnError):
                raise batch
            images = batch.images.to(self.device, non_blocking=on_gpu)
            first = int(batch.indices[0])
            with torch.autocast(
                self.device.type, self.precision, enabled=self.precision is not None
            ):
                rows = network.body(images)
            if rows.shape != (len(images), network.width):
                raise InputError(
                    f"{network.name} gives {tuple(rows.shape)} for {len(images)} images, "
                    f"expected ({len(images)}, {network.width}); one row an image"
                )
            lost = [entry.row - first for entry in skipped]
            if lost:  # whatever a black image gives
                rows = rows.index_fill(0, torch.tensor(lost, device=rows.device), 0.0)
            features = _to_float16(rows, first, network.name, self.dataset)
            lost_to_zero = (rows != 0).any(dim=1).cpu().numpy() & ~features.any(axis=1)
            if not warned and lost_to_zero.any():
                warned = True
                logger.warning(
                    "the features of example %d by %s are all below what float16 holds (6e-08) "
                    "and become 0; scale them up, for example with a LayerNorm behind the backbone",
                    first + int(lost_to_zero.argmax()), network.name,
                )  # fmt: skip
            features[lost] = np.nan
            yield ExtractedRows(features, batch.labels.numpy(), first, skipped)


@contextlib.contextmanager
def ready(body: nn.Module, device: torch.device) -> Iterator[None]:
    """Has a network on a device, in eval mode and without gradients; then as it was."""
    # A module of the caller's goes back to where it was.
    home = device_of(body) or device
    body.to(device)  # not in inference mode, where the weights could never be trained again
    try:
        with inference_mode_of(body):
            yield
    finally:
        body.to(home)
