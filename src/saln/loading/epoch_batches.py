"""From chosen indices to loaded batches, epoch by epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from saln.data.torch_datasets import (
    Batch,
    EvaluationView,
    TrainingView,
    collate,
    inference_batch_size,
    quiet_worker,
    raise_broken,
)
from saln.loading.filter_schedule import FilterSchedule
from saln.loading.learner_selected import LearnerSelected
from saln.loading.selected_batches import SelectedBatches
from saln.selection.uniform import Uniform


class EpochBatches:
    """Batches of an epoch, loaded."""

    batches: SelectedBatches | LearnerSelected

    def set_epoch(self, epoch: int) -> None:
        """Makes the next iteration the given epoch's."""
        self.batches.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.batches)  # of the epoch; known before the first

    def __iter__(self) -> Iterator[Batch]:
        raise NotImplementedError

    def observe(self, indices: Tensor, losses: Tensor) -> None:
        """Takes the losses, (m,), of examples that were just trained, before any weights."""
        self.batches.observe(indices, losses)

    def close(self) -> None:
        """Ends the workers: the garbage collector comes late, and waits 5 s for each."""


def steps_of(batches: EpochBatches, epochs: int) -> list[int]:
    """How many batches each epoch has, from 1: a schedule gives each a number of its own."""
    steps = []
    for epoch in range(1, epochs + 1):
        batches.set_epoch(epoch)
        steps.append(len(batches))
    return steps


class CandidateBatches(SelectedBatches):
    """The candidates of every step of an epoch, ``n`` at a time, before anything is chosen."""

    def __init__(self, length: int, batch_size: int, schedule: FilterSchedule, seed: int) -> None:
        super().__init__(
            length, selector=Uniform(), batch_size=batch_size, filter_ratio=schedule, seed=seed
        )
        self.share_among(0, 1)  # every process has all candidates

    def __iter__(self) -> Iterator[list[int]]:  # type: ignore[override]
        # The order of SelectedBatches, so that every arm sees the same candidates.
        n, order = self.n_candidates, self.order(self.epoch)
        for step in range(len(self)):
            yield order[step * n : (step + 1) * n].tolist()


class LoadedBatches(EpochBatches):
    """The batches that a sampler names, loaded and augmented.

    What comes out of ``through`` takes the place of each batch's images.
    """

    def __init__(
        self,
        view: TrainingView,
        batches: SelectedBatches,
        workers: int = 0,
        through: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.view = view
        self.batches: SelectedBatches = batches
        self.through = through
        self.loader: DataLoader[Any] = DataLoader(
            view,
            batch_sampler=batches,
            collate_fn=collate,
            num_workers=workers,
            worker_init_fn=quiet_worker,
            # Starting workers in every epoch would cost more than a small epoch itself.
            persistent_workers=workers > 0,
            generator=batches.generator,  # else the loader draws from the global one
        )

    def set_epoch(self, epoch: int) -> None:
        """Makes the next iteration the given epoch's."""
        self.view.set_epoch(epoch)
        super().set_epoch(epoch)

    def __iter__(self) -> Iterator[Batch]:
        """The batches of the epoch; a broken image raises DataError."""
        for batch in raise_broken(self.loader):
            # Here, in the main process: a frozen body may be on a GPU, where no worker may go.
            if self.through is not None:
                batch = batch._replace(images=self.through(batch.images))
            # Weights are the sampler's: loaders hand on what the data set gives, and no more.
            yield batch._replace(weights=self.batches.weights_of(batch.indices))

    def close(self) -> None:
        """Ends the workers."""
        self.loader._iterator = None  # which torch keeps, with its workers, for another epoch


class ScoredBatches(EpochBatches):
    """The batches, with loss weights, that the learner's scores leave of :class:`LoadedBatches`."""

    def __init__(self, selected: LearnerSelected) -> None:
        self.selected = self.batches = selected

    def __iter__(self) -> Iterator[Batch]:
        for kept in self.selected:
            batch: Batch = kept.batch
            yield batch._replace(indices=kept.indices, weights=kept.weights)

    def close(self) -> None:
        """Ends the workers of the candidates' loader."""
        if isinstance(self.selected.batches, EpochBatches):
            self.selected.batches.close()


def evaluation_batches(
    view: EvaluationView, device: torch.device, workers: int = 0
) -> Iterator[Batch]:
    """All examples of a view, once, in order, in batches that suit the device."""
    return raise_broken(
        DataLoader(
            view,
            batch_size=inference_batch_size(device),
            collate_fn=collate,
            num_workers=workers,
            worker_init_fn=quiet_worker,
            generator=torch.Generator(),
        )
    )
