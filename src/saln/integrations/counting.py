"""A loader that knows how many batches were trained on, not only how many were asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader

from saln.errors import InputError
from saln.loading.batches import SelectedBatches
from saln.loading.sharding import refuse_double_sharding

__all__ = ["CountingLoader", "chosen_by", "share_among"]


def chosen_by(loader: DataLoader[Any]) -> SelectedBatches:
    """The SelectedBatches of a loader.

    Raises:
        InputError: It has none.
    """
    batches = loader.batch_sampler
    if not isinstance(batches, SelectedBatches):
        raise InputError(
            f"the loader's batch_sampler is a {type(batches).__name__}; "
            "give DataLoader(dataset, batch_sampler=saln.SelectedBatches(...))"
        )
    return batches


def share_among(batches: SelectedBatches, rank: int, world_size: int) -> None:
    """Makes batches give a rank its share, where they were made for one process.

    Raises:
        InputError: Ranks that cannot share a batch, or batches shared out otherwise.
    """
    batches.share_among(rank, world_size)


class CountingLoader:
    """Wraps a loader over SelectedBatches and counts the batches that it has given.

    A loader with worker processes, or one that looks ahead as Accelerate's does, asks for
    batches before they are trained on; what is saved here is what was given.

    Args:
        loader: Gives one batch for each that ``batches`` names.
        batches: Its sampler.

    Raises:
        InputError: The batches are shared out among the ranks twice.
    """

    def __init__(self, loader: DataLoader[Any], batches: SelectedBatches) -> None:
        refuse_double_sharding(loader)
        self.loader = loader
        self.sampler = batches  # Lightning looks for `sampler.set_epoch`
        self._given = 0
        self._epoch = batches.epoch  # that _given belongs to
        self._start = 0

    def set_epoch(self, epoch: int) -> None:
        """Makes the next iteration the given epoch's; a loaded position in it stays."""
        self.sampler.set_epoch(epoch)

    def __len__(self) -> int:
        """The batches of the current epoch, from its beginning."""
        return len(self.sampler)

    def __iter__(self) -> Iterator[Any]:
        """Yields the batches; nothing happens before the first is asked for."""
        epoch = self.sampler.epoch
        self._given = self._start if epoch == self._epoch else 0
        self._epoch, self._start = epoch, 0
        # Accelerate's would put back the epoch that it counts itself.
        if hasattr(self.loader, "set_epoch"):
            self.loader.set_epoch(epoch)
        for batch in self.loader:
            self._given += 1
            yield batch

    def observe(self, indices: Tensor, losses: Tensor) -> None:
        """As :meth:`~saln.loading.batches.SelectedBatches.observe`."""
        self.sampler.observe(indices, losses)

    def state_dict(self) -> dict[str, Any]:
        """Where training is; see :meth:`~saln.loading.batches.SelectedBatches.state_dict`."""
        given = self._given if self.sampler.epoch == self._epoch else 0
        return self.sampler.state_dict(steps=given)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from a saved state: the next iteration gives the batches that were left.

        Raises:
            InputError: The state is of a sampler that would give other batches.
        """
        self.sampler.load_state_dict(state)
        self._given = self._start = int(state["step"])
        self._epoch = self.sampler.epoch
