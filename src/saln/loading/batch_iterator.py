"""One epoch of chosen batches, from a step on."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from saln.loading.prefetch import Ahead

if TYPE_CHECKING:
    from saln.loading.selected_batches import SelectedBatches


class BatchIterator(Iterator[list[int]]):
    """The batches of one epoch, from a step on; made by ``SelectedBatches``.

    Loaders make iterators that they never ask: nothing happens before the first batch.

    Attributes:
        epoch: Which.
        step: How many batches of the epoch have been given.
    """

    def __init__(self, sampler: SelectedBatches, epoch: int, step: int) -> None:
        self.sampler = sampler
        self.epoch = epoch
        self.step = step
        self._loaded = False
        self._rank = sampler.sharing.current()
        self._batches: Iterator[list[int]] | None = None
        self._leads()

    def _leads(self) -> None:
        """Makes this the iteration whose position the sampler's state is."""
        self.sampler._iteration += 1
        self._number = self.sampler._iteration
        self.sampler._named = self.step

    def __next__(self) -> list[int]:
        sampler = self.sampler
        with sampler.phase("select"):
            if self._batches is None:
                self._batches = self._open()
            batch = next(self._batches, None)
        if batch is None:
            raise StopIteration
        self.step += 1
        if self._number == sampler._iteration and self.epoch == sampler.epoch:
            sampler._named = self.step
        return list(self._rank.share(batch))

    def _open(self) -> Iterator[list[int]]:
        sampler = self.sampler
        if self._number == sampler._iteration and not self._loaded:
            # A loader may make its iterator before the epoch is set, or a position loaded.
            self.epoch, self.step = sampler.epoch, sampler._start
        epoch = self.epoch
        sampler._begin(epoch, loaded=self._loaded)
        order, n = sampler.order(epoch), sampler.candidates_of(epoch)

        def kept(step: int) -> list[int]:
            return sampler._kept(order[step * n : (step + 1) * n], epoch, step)

        steps = range(self.step, sampler.usable // n)
        return Ahead(kept, steps, sampler.ahead) if sampler.ahead else map(kept, steps)

    def state_dict(self) -> dict[str, Any]:
        """As :meth:`SelectedBatches.state_dict`, of this iteration."""
        return self.sampler._state(self.epoch, self.step)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from a saved state; raises as :meth:`SelectedBatches.load_state_dict`.

        A loader loads its state only when it is asked for batches, after the user has set
        the epoch. A state at the end of its epoch gives way to another epoch that was set;
        one in the middle goes on there.

        Warns:
            UserWarning: Another epoch was set than the one in whose middle the state is.
        """
        self.close()
        self._loaded = True
        sampler = self.sampler
        wanted = sampler._epoch_set if sampler._epoch_set is not None else sampler._overridden
        sampler.load_state_dict(state)
        if wanted is not None and wanted != sampler.epoch:
            if sampler._start == len(sampler):
                sampler.set_epoch(wanted)
            else:
                warnings.warn(
                    f"set_epoch({wanted}) was called, but the loaded state is in the middle of "
                    f"epoch {sampler.epoch}: that epoch is finished first; set the epoch that the "
                    "state is of",
                    UserWarning,
                    stacklevel=2,
                )
        self.epoch, self.step = sampler.epoch, sampler._start
        self._leads()

    def close(self) -> None:
        """Ends the background thread, if there is one."""
        if isinstance(self._batches, Ahead):
            self._batches.close()
        self._batches = None
