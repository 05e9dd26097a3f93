"""Where chosen batches and streams stand: the epoch, the step in it, who set or loaded them.

The workers of a stream are sent a copy of it, and persistent ones keep it from epoch to epoch. So
what must be known in all of them lies in memory that they share.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch.utils.data import get_worker_info

from saln.randomness import derive_seed

# Later workers share the last place for the epoch at whose end they were.
_MOST_WORKERS = 1024


class BatchPosition:
    """The position of :class:`~saln.loading.selected_batches.SelectedBatches`.

    Attributes:
        epoch: That the next iteration is of.
        step: The step that it begins with: that of a loaded position, until its first batch is
            asked for, else 0.
        steps_given: How many batches of the epoch the latest iteration has given.
        iteration: The number of that iteration; what others give is not the position.
    """

    def __init__(self) -> None:
        self.epoch = 0
        self.step = 0
        self.steps_given = 0
        self.iteration = 0
        self._epoch_set: int | None = None  # since the last load
        self._epoch_overridden: int | None = None  # set before the last load
        self._begun = False  # an iteration, since the epoch was set
        self._has_warned = False

    @property
    def requested_epoch(self) -> int | None:
        """The epoch that was set, whatever was loaded after it; None where none was."""
        return self._epoch_overridden if self._epoch_set is None else self._epoch_set

    def set_epoch(self, epoch: int) -> None:
        """Makes the next iteration the given epoch's; a loaded position in it stays."""
        self._epoch_set, self._epoch_overridden = epoch, None
        self._begun = False
        if epoch != self.epoch:
            self.put(epoch, 0)

    def load(self, epoch: int, step: int) -> None:
        """Takes a saved position; an epoch that was set before gives way to it, and is kept."""
        # Loaders load their state after the user has set the epoch, which is still wanted once
        # the state's is over.
        self._epoch_overridden = self.requested_epoch
        self._epoch_set, self._begun = None, False
        self.put(epoch, step)

    def put(self, epoch: int, step: int) -> None:
        """Moves there."""
        self.epoch, self.step, self.steps_given = epoch, step, step

    def lead(self, step: int) -> int:
        """Makes an iteration that is at a step the one that is followed; gives its number."""
        self.iteration += 1
        self.steps_given = step
        return self.iteration

    def begin(self) -> None:
        """Uses a loaded position up, at the first batch; warns once of a second time."""
        self.step = 0
        if self._begun and not self._has_warned:
            self._has_warned = True
            warnings.warn(
                f"a second iteration of epoch {self.epoch} begins, with the same batches; call "
                "set_epoch(epoch) before every epoch",
                UserWarning,
                stacklevel=5,
            )
        self._begun = True


class _Number:
    """A whole number in the shared memory."""

    def __init__(self, place: int) -> None:
        self.place = place

    def __get__(self, owner: SharedEpoch, kind: Any = None) -> int:
        return int(owner.numbers[self.place])

    def __set__(self, owner: SharedEpoch, value: int) -> None:
        owner.numbers[self.place] = value


class SharedEpoch:
    """The epoch of a stream, and what has happened in it.

    Attributes:
        epoch: That the next iteration is of.
        is_set: 1 where it was set since a position was loaded.
        changes: How often it was set, or a position loaded.
        resumed_workers: The seed of the workers that went on from the position that they were
            made with; 0 while none have.
    """

    epoch = _Number(0)
    is_set = _Number(1)
    changes = _Number(2)
    resumed_workers = _Number(3)
    _begun_after = _Number(4)  # the number of changes before the latest iteration, plus one
    _first_order = _Number(5)  # of the first candidates of an epoch, as a hash
    _first_order_epoch = _Number(6)  # that epoch, plus one
    _warned_of_second = _Number(7)
    _warned_of_order = _Number(8)

    def __init__(self) -> None:
        self.numbers = torch.zeros(9, dtype=torch.int64).share_memory_()
        # Of each worker: the epoch at whose end its loaded position was, plus one.
        self._ended = torch.zeros(_MOST_WORKERS, dtype=torch.int64).share_memory_()

    def clear_ends(self) -> None:
        """No loaded position is at an epoch's end any more."""
        self._ended.zero_()

    def mark_end(self, epoch: int) -> None:
        """The position that this worker has loaded is at the epoch's end."""
        info = get_worker_info()
        self._ended[0 if info is None else min(info.id, _MOST_WORKERS - 1)] = epoch + 1

    def has_ended(self, epoch: int, *, every_worker: bool) -> bool:
        """Whether a loader's state, of which its workers hold parts, was at an epoch's end."""
        info = get_worker_info()
        # Each worker has a part of the source, so all must be at its end; where the steps go round
        # among them, the one that gave the last of them knows.
        ended = self._ended[: 1 if info is None else info.num_workers] == epoch + 1
        return bool(ended.all() if every_worker else ended.any())

    def begin(self, epoch: int) -> None:
        """A user's iteration reads its first sample; warns once of an epoch that was not set."""
        info = get_worker_info()
        if info is not None and info.id != 0:  # the first worker speaks for all
            return
        if self._begun_after == self.changes + 1 and not self._warned_of_second:
            self._warned_of_second = 1
            _warn(
                f"a second iteration of epoch {epoch} begins; call set_epoch(epoch) before "
                "every epoch"
            )
        self._begun_after = self.changes + 1

    def compare_order(self, epoch: int, keys: list[str], selector: str) -> None:
        """Warns once where the first candidates of an epoch are those of another."""
        order = derive_seed(*keys)
        other = self._first_order_epoch not in (0, epoch + 1)
        if other and self._first_order == order and not self._warned_of_order:
            self._warned_of_order = 1
            _warn(
                "the source gives the same order in every epoch and shuffle_buffer is 0, so the "
                f"same candidates meet again and {selector} drops the same examples for ever; "
                "give a shuffle_buffer, or a source that shuffles by epoch"
            )
        self._first_order, self._first_order_epoch = order, epoch + 1


def _warn(text: str) -> None:
    # Above are begin or compare_order, the pass over the stream and its run.
    warnings.warn(text, UserWarning, stacklevel=5)


class StreamPosition:
    """The position of :class:`~saln.loading.selected_stream.SelectedStream`.

    Attributes:
        shared: What a loader's workers know of it, too.
        pending: A loaded state, until it is gone on from.
        overridden_epoch: The epoch that was set before that was loaded; None where none was.
        loaded_in_worker: Whether this worker's loader has loaded it.
    """

    def __init__(self) -> None:
        self.shared = SharedEpoch()
        self.pending: dict[str, Any] | None = None
        self.overridden_epoch: int | None = None
        self.loaded_in_worker = False

    @property
    def epoch(self) -> int:
        """The epoch that the next iteration is of."""
        return self.shared.epoch

    @property
    def step(self) -> int:
        """The step that the next iteration begins with."""
        return 0 if self.pending is None else int(self.pending["step"])

    def set_epoch(self, epoch: int) -> bool:
        """Sets the epoch; a position in it stays. Gives whether the epoch is another."""
        shared = self.shared
        shared.changes += 1
        shared.is_set = 1
        shared.clear_ends()
        self.overridden_epoch = None
        if epoch == shared.epoch:
            return False
        shared.epoch = epoch
        self.pending = None
        return True

    def load(self, state: dict[str, Any]) -> None:
        """Takes a saved state."""
        shared = self.shared
        if shared.is_set:
            self.overridden_epoch = shared.epoch
        # In a worker this is a copy: the epoch that was set in the main process stays.
        self.loaded_in_worker = get_worker_info() is not None
        if not self.loaded_in_worker:
            shared.is_set = shared.resumed_workers = 0
            shared.changes += 1
            shared.clear_ends()
        if not shared.is_set:
            shared.epoch = int(state["epoch"])
        self.pending = state

    def to_resume(self) -> dict[str, Any] | None:
        """The state that an iteration now goes on from, and stays: loaders may ask twice."""
        pending, shared = self.pending, self.shared
        info = get_worker_info()
        if pending is not None and info is not None and not self.loaded_in_worker:
            # It was sent here with the stream, as to the workers of every later iteration, which
            # have another seed: only those that were first go on from it.
            seed = info.seed - info.id
            if shared.resumed_workers == 0:
                shared.resumed_workers = seed
            pending = pending if shared.resumed_workers == seed else None
        # Another epoch was set after the position was loaded: that holds.
        if pending is None or (pending["epoch"] != shared.epoch and self.overridden_epoch is None):
            return None
        return pending

    def use_up(self) -> None:
        """An iteration has begun to go on from it."""
        self.pending = self.overridden_epoch = None
        self.loaded_in_worker = False

    def enter(self, epoch: int) -> None:
        """An iteration goes on to the epoch that was set."""
        if get_worker_info() is None:
            self.shared.epoch, self.shared.is_set = epoch, 1
