"""Which of how many processes this is, as somebody says or as torch.distributed knows."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

import torch.distributed as dist

from saln.errors import InputError


@dataclass(frozen=True)
class Rank:
    """One of several processes that train together.

    Attributes:
        index: 0 to ``count - 1``.
        count: How many there are.

    Raises:
        InputError: A rank that is not there.
    """

    index: int
    count: int

    def __post_init__(self) -> None:
        for name, value in (("rank", self.index), ("world_size", self.count)):
            if not _whole(value):
                raise InputError(f"{name}={value!r} is not allowed; give a whole number")
        # Plain integers: what is derived from them must not depend on their type.
        object.__setattr__(self, "index", operator.index(self.index))
        object.__setattr__(self, "count", operator.index(self.count))
        if self.count < 1:
            raise InputError(f"world_size={self.count} is not allowed; give at least 1")
        if not 0 <= self.index < self.count:
            raise InputError(
                f"rank={self.index} is not allowed with world_size={self.count}; "
                f"give 0 to {self.count - 1}"
            )

    @classmethod
    def group(cls) -> Rank | None:
        """What torch.distributed says; None while its processes are not connected."""
        if not (dist.is_available() and dist.is_initialized()):
            return None
        return cls(dist.get_rank(), dist.get_world_size())

    @classmethod
    def of(cls, rank: int | None = None, world_size: int | None = None) -> Rank:
        """What somebody says; where nobody says anything, the process group's.

        Args:
            rank: 0 to ``world_size - 1``; None asks the group. Without one there is one process.
            world_size: How many processes train together; both are given, or neither.

        Raises:
            InputError: One without the other, or others than those of a group of several.
        """
        group = cls.group()
        if rank is None and world_size is None:
            return cls(0, 1) if group is None else group
        if rank is None or world_size is None:
            missing = "rank" if rank is None else "world_size"
            raise InputError(
                f"rank={rank} and world_size={world_size}: give {missing} too, or neither, which "
                "takes them from torch.distributed"
            )
        said = cls(rank, world_size)
        if group is not None and group.count > 1 and said != group:
            cure = (
                "every process would train on the same whole batch; leave both out, or, where "
                "something else shares the batches out, let it say so with share_among(0, 1)"
                if said.count == 1
                else "leave both out, which takes them from it"
            )
            raise InputError(
                f"rank={said.index} of world_size={said.count}, but torch.distributed says rank "
                f"{group.index} of {group.count}: {cure}"
            )
        return said


def _whole(value: Any) -> bool:
    try:
        operator.index(value)
    except TypeError:
        return False
    return not isinstance(value, bool)
