"""What the main process and the workers of a loader know together of a stream's epoch.

Workers are sent a copy of the stream, and persistent ones keep it from epoch to epoch. So what
must be known in all of them lies in memory that they share.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch.utils.data import get_worker_info

from saln.randomness import derive_seed

# Later workers share the last place for the epoch at whose end they were.
_MOST_WORKERS = 1024


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
        """Whether a loader's state, of which its workers hold parts, was at an epoch's end.

        Where each worker has a part of the source, ``every_worker`` must be at its end; where the
        steps go round among them, the one that gave the last of them knows.
        """
        info = get_worker_info()
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
