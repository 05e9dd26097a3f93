"""torch data sets over examples: what a loader reads.

A broken image must reach the user as one clear line, also out of a loader's worker
process. So a view returns the error in the image's place, and :func:`collate` hands it
on as the batch; :func:`raise_broken` raises it where the batch is used.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from saln.data.datasets import Examples
from saln.data.items import MapStyle, read_item
from saln.data.transforms import Augmentation
from saln.errors import DataError, SalnError
from saln.randomness import derive_generator


def inference_batch_size(device: torch.device, image_size: int = 96) -> int:
    """How many images to put through a network at once when no gradient is needed.

    On a CPU few: activations of over 32 MiB go back to the system after every layer and
    are paged in anew, which took half the time of EfficientNet-Lite0 at 96 pixels with more than
    16 images, and at 224 pixels with more than 4.
    """
    if device.type != "cpu":
        return 256
    return max(4, min(16, 16 * 96**2 // image_size**2))


class Batch(NamedTuple):
    """Examples that travel together."""

    images: Tensor  # float32, (b, 3, size, size)
    labels: Tensor  # int64, (b,)
    indices: Tensor  # int64, (b,): positions in the examples that the view is over
    weights: Tensor | None = None  # float32, (b,): loss weights, or None for equal ones


Item = tuple[Tensor, int, int] | SalnError


class EvaluationView(Dataset[Item]):
    """Examples of any map-style data set as evaluation and feature extraction see them."""

    def __init__(self, examples: MapStyle, transform: Callable[[Image.Image], Tensor]) -> None:
        self.examples = examples
        self.transform = transform

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Item:
        try:
            image, label = read_item(self.examples, index)
            return self.transform(image), label, index
        # Raised in a worker it would come wrapped in the worker's whole trace.
        except SalnError as error:
            return error


class TrainingView(Dataset[Item]):
    """Examples augmented for training.

    What is done to an example depends on (seed, epoch, example) alone: not on the arm,
    on the order in which examples are read or on the number of workers.
    """

    def __init__(self, examples: Examples, augmentation: Augmentation, seed: int) -> None:
        self.examples = examples
        self.augmentation = augmentation
        self.seed = seed
        # In shared memory, so that persistent workers see a new epoch too.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        """Makes the next images those of the given epoch."""
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Item:
        # The row, not the position: it stays when the reference part is taken out.
        row = int(self.examples.rows[index])
        generator = derive_generator(self.seed, "augmentation", int(self._epoch), row)
        try:
            image = self.examples.images.load(row)
            return self.augmentation(image, generator), int(self.examples.labels[index]), index
        except DataError as error:
            return error


def collate(items: Sequence[Item]) -> Batch | SalnError:
    """Makes a batch of what a view gave, or the first error among it."""
    good: list[tuple[Tensor, int, int]] = []
    for item in items:
        if isinstance(item, SalnError):
            return item
        good.append(item)
    images, labels, indices = zip(*good, strict=True)
    return Batch(
        torch.stack(images),
        torch.tensor(labels, dtype=torch.int64),
        torch.tensor(indices, dtype=torch.int64),
    )


def quiet_worker(worker: int) -> None:
    """For ``worker_init_fn``: a worker whose reader is gone, as after Ctrl-C, says nothing."""
    shown = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, at: TracebackType | None) -> None:
        # Python's thread that hands out tensors calls it when nobody takes them any more.
        if not isinstance(error, ConnectionError | EOFError):
            shown(kind, error, at)

    sys.excepthook = hook


def raise_broken(batches: Iterable[Batch | SalnError]) -> Iterator[Batch]:
    """Passes batches on and raises the error of a broken one."""
    for batch in batches:
        if isinstance(batch, SalnError):
            raise batch
        yield batch
