"""What training libraries ask of a batch sampler when it is given to them as it is."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from saln.errors import InputError
from saln.loading.double_sharding import parts_of, shards_of
from saln.loading.filter_schedule import FilterSchedule

if TYPE_CHECKING:
    from saln.loading.selected_batches import SelectedBatches


class EpochSetter:
    """The sampler that training libraries look for in a batch sampler, to tell it the epoch.

    They tell it what they counted themselves. Accelerate's loaders tell the batch sampler first
    and then this, whenever an iteration begins and when their own ``set_epoch`` is called;
    Lightning, and Accelerate's ``skip_first_batches``, tell this alone.
    """

    def __init__(self, batches: SelectedBatches) -> None:
        self.batches = batches
        # What no iteration has used yet: the epoch, and the epoch and step that it replaced.
        self._pending: int | None = None
        self._replaced: tuple[int, int] | None = None

    def note_epoch(self, epoch: int) -> None:
        """The batch sampler is given an epoch."""
        pending = self._pending
        self._replaced = None if pending is None else (pending, self.batches.loaded_step)
        self._pending = epoch

    def note_load(self, epoch: int) -> None:
        """The batch sampler was given a position in an epoch."""
        self._pending, self._replaced = epoch, None

    def note_iteration(self) -> None:
        """An iteration uses what was given."""
        self._pending = self._replaced = None

    def set_epoch(self, epoch: int) -> None:
        """Makes the next iteration the given epoch's.

        Raises InputError where a library's own count would undo what the sampler was given;
        where Accelerate shares out batches that are shared out already; where a library
        that reads the length of epochs once has a FilterSchedule.
        """
        batches = self.batches
        refuse_sharing_by_accelerate(batches)
        loader = begun_by_accelerate(batches)
        # Accelerate has set the batch sampler's just before: then what that replaced counts.
        set_before = self._pending == epoch
        start = batches.loaded_step
        other = self._pending
        if set_before:
            other, start = (None, 0) if self._replaced is None else self._replaced
        begins = not set_before or loader is not None
        if begins and other is not None and other != epoch:
            # As it was: whoever catches this and goes on must not train on the wrong epoch.
            batches.position.put(other, start)
            self.note_load(other)
            raise InputError(
                f"the batches are to go on in epoch {other}, but the library that trains on them "
                f"counts epochs itself and is in epoch {epoch}; give the epoch to what it "
                "prepared, loader.set_epoch(...), not to the batches"
            )
        moves = not set_before and epoch != batches.epoch
        if moves and isinstance(batches.filter_ratio, FilterSchedule):
            raise InputError(
                "a FilterSchedule changes the length of the epochs, which Lightning reads once; "
                "give it saln.integrations.lightning.SelectedDataModule(dataset, batches)"
            )
        batches.set_epoch(epoch)
        self.note_iteration()  # the library's own count replaces nothing that a user asked for
        if loader is not None:
            # Accelerate takes the last batch for the rest of the data set, and
            # gather_for_metrics would cut it; -1 stands for no rest.
            loader.remainder = -1


def begun_by_accelerate(chooser: Any) -> Any | None:
    """Accelerate's loader that is iterating over what chooses, if one is."""
    module = sys.modules.get("accelerate.state")
    loader = None if module is None else module.GradientState().active_dataloader
    return loader if any(part is chooser for part in parts_of(loader)) else None


def refuse_sharing_by_accelerate(chooser: Any) -> None:
    """Raises InputError where Accelerate, iterating, shares out what ``chooser`` shares out."""
    loader = begun_by_accelerate(chooser)
    if loader is None:
        return
    shares = [name for part in parts_of(loader) if part is not chooser for name in shards_of(part)]
    if not shares and type(loader).__name__ == "DataLoaderDispatcher":
        # Of one process. A batch sampler's batches come through; a stream's hold keys, no tensors.
        shares = [] if hasattr(chooser, "sampler") else ["DataLoaderDispatcher"]
    if shares:
        raise InputError(
            f"Accelerator.prepare shares the batches out by {' and by '.join(shares)}, but every "
            "process chooses for all and takes its own share already; use "
            "saln.integrations.accelerate.prepare(accelerator, loader) in its place"
        )
