"""From chosen indices to loaded batches, epoch by epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from saln.data.torch_datasets import (
    Batch,
    EvaluationView,
    TrainingView,
    collate,
    inference_batch_size,
    raise_broken,
)
from saln.loading.filter_schedule import FilterSchedule
from saln.loading.learner_selected import LearnerSelected
from saln.loading.selected_batches import SelectedBatches
from saln.selection.uniform import Uniform


class EpochBatches(Protocol):
    """Batches of an epoch, loaded."""

    def set_epoch(self, epoch: int) -> None:
        """Makes the next iteration the given epoch's."""

    def __len__(self) -> int:
        """Batches an epoch; known before the first."""

    def __iter__(self) -> Iterator[Batch]:
        """The batches of the epoch."""

    def observe(self, indices: Tensor, losses: Tensor) -> None:
        """Takes the losses, (m,), of examples that were just trained, before any weights."""


class CandidateBatches:
    """The candidates of every step of an epoch, before anything is chosen.

    Args:
        length: Examples to take them from.
        batch_size: ``k``, what will be kept of each batch of candidates.
        schedule: How many candidates that takes, from epoch to epoch.
        seed: Decides the order, which is that of :class:`SelectedBatches`.
    """

    def __init__(self, length: int, batch_size: int, schedule: FilterSchedule, seed: int) -> None:
        self.sampler = SelectedBatches(
            length, selector=Uniform(), batch_size=batch_size, filter_ratio=schedule, seed=seed
        )
        self.sampler.share_among(0, 1)  # every process has all candidates

    @property
    def generator(self) -> torch.Generator:
        """For the loader; see :class:`~saln.loading.selected_batches.SelectedBatches`."""
        return self.sampler.generator

    def set_epoch(self, epoch: int) -> None:
        """Makes the next iteration the given epoch's."""
        self.sampler.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[list[int]]:
        # The order of SelectedBatches, so that every arm sees the same candidates.
        n = self.sampler.n_candidates
        order = self.sampler.order(self.sampler.epoch)
        for step in range(len(self)):
            yield order[step * n : (step + 1) * n].tolist()


class LoadedBatches:
    """The batches that a sampler names, loaded and augmented.

    Args:
        view: What to read.
        batches: Which of it.
        workers: Loader processes; 0 loads in this one.
        through: What each batch's images are put through; what comes out takes their place.
    """

    def __init__(
        self,
        view: TrainingView,
        batches: SelectedBatches | CandidateBatches,
        workers: int = 0,
        through: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.view = view
        self.batches = batches
        self.through = through
        self.loader: DataLoader[Any] = DataLoader(
            view,
            batch_sampler=batches,
            collate_fn=collate,
            num_workers=workers,
            # Starting workers in every epoch would cost more than a small epoch itself.
            persistent_workers=workers > 0,
            generator=batches.generator,  # else the loader draws from the global one
        )

    def set_epoch(self, epoch: int) -> None:
        """Makes the next iteration the given epoch's."""
        self.view.set_epoch(epoch)
        self.batches.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        """The batches of the epoch; a broken image raises DataError."""
        for batch in raise_broken(self.loader):
            # Here, in the main process: a frozen body may be on a GPU, where no worker may go.
            if self.through is not None:
                batch = batch._replace(images=self.through(batch.images))
            # Weights are the sampler's: loaders hand on what the data set gives, and no more.
            if isinstance(self.batches, SelectedBatches):
                batch = batch._replace(weights=self.batches.weights_of(batch.indices))
            yield batch

    def observe(self, indices: Tensor, losses: Tensor) -> None:
        """Hands the losses to the selector that chose."""
        if isinstance(self.batches, SelectedBatches):
            self.batches.observe(indices, losses)


class ScoredBatches:
    """The batches that the learner's scores leave of loaded candidates.

    Args:
        selected: Around :class:`LoadedBatches`.
    """

    def __init__(self, selected: LearnerSelected) -> None:
        self.selected = selected

    def set_epoch(self, epoch: int) -> None:
        """Makes the next iteration the given epoch's."""
        self.selected.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.selected)

    def __iter__(self) -> Iterator[Batch]:
        """The batches of the epoch, with their loss weights."""
        for kept in self.selected:
            batch: Batch = kept.batch
            yield batch._replace(indices=kept.indices, weights=kept.weights)

    def observe(self, indices: Tensor, losses: Tensor) -> None:
        """Hands the losses to the selector."""
        self.selected.observe(indices, losses)


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
            generator=torch.Generator(),
        )
    )
