"""Who gets what, where several processes train one network: arithmetic on plain integers.

A choice is made once, for the global batch, by every rank alike. What a rank trains on
is its equal, contiguous share: the shares in the order of the ranks are the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from saln.errors import InputError

__all__ = ["check_ranks", "rank_share"]

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
    if world_size < 1:
        raise InputError(f"world_size={world_size} is not allowed; give at least 1")
    if not 0 <= rank < world_size:
        raise InputError(
            f"rank={rank} is not allowed with world_size={world_size}; give 0 to {world_size - 1}"
        )
    if batch_size % world_size:
        nearest = max(1, round(batch_size / world_size)) * world_size
        raise InputError(
            f"a batch of {batch_size} cannot be shared equally by {world_size} ranks; "
            f"batch_size is that of all ranks together: give a multiple, such as {nearest}"
        )
    return batch_size // world_size


def rank_share(batch: Sequence[T], rank: int, world_size: int) -> Sequence[T]:
    """The rank's part of a global batch, whose length ``world_size`` divides."""
    share = len(batch) // world_size
    return batch[rank * share : (rank + 1) * share]
