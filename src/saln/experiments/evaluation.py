"""How good a learner is: on part of the training data, on validation and on test images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from saln.data.datasets import DataSet, Examples, stratified_part
from saln.data.torch_datasets import Batch, EvaluationView
from saln.distributed import share_bounds
from saln.loading.epoch_batches import evaluation_batches
from saln.randomness import derive_seed
from saln.training.learner_networks import FrozenBody
from saln.training.loop import Measure, evaluate
from saln.training.processes import Processes

# Training accuracy is measured on this many examples at most, the same for all arms.
TRAIN_LIMIT = 1000
# A split whose images take no more is read once and kept: every arm measures it every epoch.
KEPT_BYTES = 2**27


@dataclass
class Measuring:
    """Evaluates learners on the same images.

    What a frozen body makes of them is kept: every head is measured on the same. So are the
    images of a small split.
    """

    view: Callable[[Examples], EvaluationView]
    split_seed: int  # decides which training examples are measured
    device: torch.device
    workers: int
    processes: Processes
    autocast: torch.dtype | None = None  # see TrainSettings
    _body: FrozenBody | None = field(default=None, init=False)
    _outputs: dict[str, Tensor] = field(default_factory=dict, init=False)
    _images: dict[str, tuple[Examples, list[Batch]]] = field(default_factory=dict, init=False)

    def splits(self, data: DataSet) -> dict[str, Examples]:
        """What this process measures on; the same examples for every seed's labels."""
        random = np.random.Generator(np.random.PCG64(derive_seed(self.split_seed, "measure")))
        # True labels: noise differs by seed, and the sample must not.
        count = min(TRAIN_LIMIT, len(data.train))
        sample = data.train.part(stratified_part(data.train.true_labels, count, random))
        rank, ranks = self.processes.rank, self.processes.world_size
        return {
            name: part.part(np.arange(*share_bounds(len(part), rank, ranks)))
            for name, part in (
                ("train", sample), ("validation", data.validation), ("test", data.test)
            )
        }  # fmt: skip

    def measure(
        self, learner: nn.Module, splits: Mapping[str, Examples], body: FrozenBody | None
    ) -> dict[str, Measure]:
        """Loss and accuracy by split, of a whole network or of a head on ``body``."""
        how = self.device, self.processes, self.autocast
        return {
            name: evaluate(learner, self._batches(name, part, body), *how)
            for name, part in splits.items()
        }

    def _batches(self, name: str, part: Examples, body: FrozenBody | None) -> Iterable[Batch]:
        if body is None:
            return self._loaded(name, part)
        if body is not self._body:
            self._body, self._outputs = body, {}
        if name not in self._outputs:
            loaded = evaluation_batches(self.view(part), self.device, self.workers)
            outputs = [body(batch.images.to(self.device)) for batch in loaded]
            self._outputs[name] = torch.cat(outputs) if outputs else torch.empty(0)
        labels = torch.from_numpy(part.labels)
        return [Batch(self._outputs[name], labels, torch.arange(len(labels)))] if len(part) else []

    def _loaded(self, name: str, part: Examples) -> Iterator[Batch]:
        """A split's images, from memory where they were kept; its labels are those of now."""
        of, kept = self._images.get(name, (part, []))
        if kept and of.images is part.images and np.array_equal(of.rows, part.rows):
            labels = torch.from_numpy(part.labels)
            yield from (batch._replace(labels=labels[batch.indices]) for batch in kept)
            return
        kept, size = [], 0
        for batch in evaluation_batches(self.view(part), self.device, self.workers):
            size += batch.images.nbytes
            # All or nothing: half a split in memory saves no reading of the other half.
            if size <= KEPT_BYTES:
                kept.append(batch)
            else:
                kept.clear()
            yield batch
        self._images[name] = part, kept
