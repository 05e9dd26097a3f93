"""Who gets what, where several processes train one network: arithmetic on plain integers.

A choice is made once, for the global batch, by every rank alike. What a rank trains on
is its equal, contiguous share: the shares in the order of the ranks are the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from saln.distributed import Rank
from saln.errors import InputError

T = TypeVar("T")


def check_ranks(batch_size: int, rank: int, world_size: int) -> int:
    """The size of each rank's share.

    Args:
        batch_size: Of the global batch.
        rank: 0 to ``world_size - 1``.
        world_size: How many processes train together.

    Raises:
        InputError: A rank that is not there, or a batch that cannot be shared equally.
    """
    one = Rank(rank, world_size)
    if batch_size % one.count:
        nearest = max(1, round(batch_size / one.count)) * one.count
        raise InputError(
            f"a batch of {batch_size} cannot be shared equally by {one.count} ranks; "
            f"batch_size is that of all ranks together: give a multiple, such as {nearest}"
        )
    return batch_size // one.count


def rank_share(batch: Sequence[T], rank: int, world_size: int) -> Sequence[T]:
    """The rank's part of a global batch, whose length ``world_size`` divides."""
    share = len(batch) // world_size
    return batch[rank * share : (rank + 1) * share]


class Sharing:
    """Among whom batches are shared out: as somebody says, else as the process group is.

    The group is read whenever it is needed: it may be started after this was made.

    Args:
        batch_size: Of the global batch.
        rank: Which process this is; None takes it from torch.distributed.
        world_size: How many train together; both are given, or neither.

    Raises:
        InputError: As :meth:`saln.distributed.Rank.of`, and for a batch that cannot be shared.
    """

    def __init__(self, batch_size: int, rank: int | None, world_size: int | None) -> None:
        self.batch_size = batch_size
        self._said = (rank, world_size)
        self._among: Rank | None = None
        # One process alone may still be told of others; see `among`.
        one = Rank(0, 1) if self._said == (0, 1) else Rank.of(rank, world_size)
        check_ranks(batch_size, one.index, one.count)

    @property
    def open(self) -> bool:
        """Whether nobody has said anything."""
        return self._among is None and self._said == (None, None)

    @property
    def alone(self) -> bool:
        """Whether one process was asked for, whatever the group is."""
        return self._among is None and self._said == (0, 1)

    def now(self) -> Rank:
        """Which of how many this process is.

        Raises:
            InputError: Somebody said otherwise than the process group, or a batch that it
                cannot share.
        """
        rank = Rank.of(*self._said) if self._among is None else self._among
        if rank.count > 1:
            check_ranks(self.batch_size, rank.index, rank.count)
        return rank

    def among(self, rank: int, world_size: int) -> None:
        """Fixes what this process is; see ``SelectedBatches.share_among``."""
        told = Rank(rank, world_size)
        if self._said not in ((None, None), (0, 1)):
            said = Rank(*self._said)  # type: ignore[arg-type]
            if said != told:
                raise InputError(
                    f"the batches are rank {said.index}'s of {said.count}, but this process is "
                    f"rank {told.index} of {told.count}; leave rank and world_size alone"
                )
        check_ranks(self.batch_size, told.index, told.count)
        self._among = told

    def __getstate__(self) -> dict[str, Any]:
        """A process that loads, and is in no group, is of the same rank."""
        state = dict(self.__dict__)
        if self.open and Rank.of().count > 1:
            state["_among"] = Rank.of()
        return state
