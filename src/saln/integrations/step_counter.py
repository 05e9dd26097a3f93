"""A loader that knows how many batches were trained on, not only how many were asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from saln.errors import InputError
from saln.loading.double_sharding import refuse_double_sharding
from saln.loading.selected_batches import SelectedBatches, check_length
from saln.loading.selected_stream import SelectedStream


def chosen_by(loader: DataLoader[Any]) -> SelectedBatches | SelectedStream:
    """What chooses the batches of a loader; InputError where their number is no position."""
    stream = loader.dataset
    if isinstance(stream, SelectedStream):
        if not stream.as_batches or loader.batch_size is not None:
            raise InputError(
                f"the stream has as_batches={stream.as_batches} and the loader "
                f"batch_size={loader.batch_size}; leave as_batches at True and give "
                "DataLoader(stream, batch_size=None): the stream makes the batches"
            )
        return stream
    batches = loader.batch_sampler
    if not isinstance(batches, SelectedBatches):
        raise InputError(
            f"the loader's batch_sampler is a {type(batches).__name__}; "
            "give DataLoader(dataset, batch_sampler=saln.SelectedBatches(...)), "
            "or DataLoader(saln.SelectedStream(...), batch_size=None)"
        )
    check_dataset(loader.dataset, batches)
    return batches


def check_dataset(dataset: Any, batches: SelectedBatches) -> None:
    """Raises InputError where a data set has not one example for each that may be chosen."""
    if isinstance(dataset, IterableDataset):
        raise InputError(
            f"the data set is a {type(dataset).__name__}, which is read in its own order, but "
            "SelectedBatches choose by position; use saln.SelectedStream for a stream"
        )
    if hasattr(dataset, "__len__"):
        check_length(dataset, batches.length)


class CountingLoader:
    """Wraps a loader of chosen batches and counts those that it has given.

    A loader with worker processes, or one that looks ahead as Accelerate's does, asks for
    batches before they are trained on; what is saved here is what was given.
    """

    def __init__(self, loader: DataLoader[Any], batches: SelectedBatches | SelectedStream) -> None:
        # Before anything is trained: a share of a share looks like a smaller batch.
        refuse_double_sharding(loader)
        self._loader = loader
        self.batches = batches
        self._batches_given = 0
        self._counted_epoch = batches.epoch  # that those batches are of
        self._loaded_steps = 0

    def set_epoch(self, epoch: int) -> None:
        """Makes the next iteration the given epoch's; a loaded position in it stays."""
        self.batches.set_epoch(epoch)

    def __len__(self) -> int:
        """The batches of the current epoch, from its beginning; a stream does not know them."""
        return len(self.batches)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Any]:
        """Yields the batches; nothing happens before the first is asked for."""
        epoch = self.batches.epoch
        self._batches_given = self._loaded_steps if epoch == self._counted_epoch else 0
        self._counted_epoch, self._loaded_steps = epoch, 0
        # Accelerate's would put back the epoch that it counts itself.
        if hasattr(self._loader, "set_epoch"):
            self._loader.set_epoch(epoch)
        for batch in self._loader:
            # Counted as it is given: the loader itself may be some batches ahead.
            self._batches_given += 1
            yield batch

    def observe(self, indices: Tensor, losses: Tensor) -> None:
        """As :meth:`~saln.loading.selected_batches.SelectedBatches.observe`."""
        self.batches.observe(indices, losses)

    def state_dict(self) -> dict[str, Any]:
        """Where training is; see :meth:`saln.SelectedBatches.state_dict`."""
        steps = self._batches_given if self.batches.epoch == self._counted_epoch else 0
        return self.batches.state_dict(steps=steps)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from a saved state, as that of ``batches`` does."""
        self.batches.load_state_dict(state)
        self._batches_given = self._loaded_steps = int(state["step"])
        self._counted_epoch = self.batches.epoch
