"""Ranks: which of how many processes this is, what its share is, and what all of them hold.

A choice is made once, for the global batch, by every rank alike. What a rank trains on is its
equal, contiguous share: the shares in the order of the ranks are the batch.
"""

from __future__ import annotations

import functools
import operator
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from saln.errors import InputError
from saln.messages import not_allowed

T = TypeVar("T")


@dataclass(frozen=True)
class Rank:
    """One of several processes that train together; InputError where ``index`` is not there."""

    index: int
    count: int

    def __post_init__(self) -> None:
        for name, shown in (("index", "rank"), ("count", "world_size")):
            value = getattr(self, name)
            try:
                # Plain integers: what is derived from them must not depend on their type.
                whole = None if isinstance(value, bool) else operator.index(value)
            except TypeError:
                whole = None
            if whole is None:
                raise not_allowed(shown, value, "a whole number")
            object.__setattr__(self, name, whole)
        if self.count < 1:
            raise not_allowed("world_size", self.count, "at least 1")
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
        """What somebody says; where nobody says anything, the process group's, or one process.

        InputError for one without the other, or others than those of a group of several.
        """
        # Not kept: the group may be started, or end, between two calls.
        group = cls.group()
        if rank is None and world_size is None:
            return cls(0, 1) if group is None else group
        if rank is None or world_size is None:
            missing = "rank" if rank is None else "world_size"
            raise InputError(
                f"rank={rank} and world_size={world_size}: give {missing} too, or neither, which "
                "takes them from torch.distributed"
            )
        explicit = cls(rank, world_size)
        # Several ranks in a group of one are taken: that is how tests stand in for others.
        if group is not None and group.count > 1 and explicit != group:
            cure = (
                "every process would train on the same whole batch; leave both out, or, where "
                "something else shares the batches out, let it say so with share_among(0, 1)"
                if explicit.count == 1
                else "leave both out, which takes them from it"
            )
            raise InputError(
                f"rank={explicit.index} of world_size={explicit.count}, but torch.distributed says "
                f"rank {group.index} of {group.count}: {cure}"
            )
        return explicit

    def share_size(self, batch_size: int) -> int:
        """How much of a global batch each rank gets; raises InputError where that is not equal."""
        if batch_size % self.count:
            nearest = max(1, round(batch_size / self.count)) * self.count
            raise InputError(
                f"a batch of {batch_size} cannot be shared equally by {self.count} ranks; "
                f"batch_size is that of all ranks together: give a multiple, such as {nearest}"
            )
        return batch_size // self.count

    def share(self, batch: Sequence[T]) -> Sequence[T]:
        """This rank's part of a global batch, whose length the number of ranks divides."""
        size = len(batch) // self.count
        return batch[self.index * size : (self.index + 1) * size]

    def check_connected(self) -> None:
        """Raises InputError where torch.distributed does not connect these ranks."""
        if self.count == 1:
            return
        group = Rank.group()
        if group != self:
            actual = "the processes are not connected"
            if group is not None:
                actual = f"torch.distributed says rank {group.index} of {group.count}"
            raise InputError(
                f"rank={self.index} of world_size={self.count}, but {actual}; call "
                "torch.distributed.init_process_group first, in every process, and give what it "
                "says, or neither"
            )


class Sharing:
    """Among which ranks batches are shared out: as was asked for, else as the process group is.

    The group is read whenever it is needed: it may be started after this was made. Raises
    InputError as :meth:`Rank.of`, and for a batch that cannot be shared.
    """

    def __init__(self, batch_size: int, rank: int | None, world_size: int | None) -> None:
        self.batch_size = batch_size
        self._requested = (rank, world_size)
        self._assigned: Rank | None = None
        # One process alone is no contradiction yet: a library may assign it a rank later.
        one = Rank(0, 1) if self._requested == (0, 1) else Rank.of(rank, world_size)
        one.share_size(batch_size)

    @property
    def follows_group(self) -> bool:
        """Whether no rank was asked for or assigned."""
        return self._assigned is None and self._requested == (None, None)

    @property
    def single_requested(self) -> bool:
        """Whether one process was asked for, whatever the group is."""
        return self._assigned is None and self._requested == (0, 1)

    def current(self) -> Rank:
        """Which of how many processes this is; raises InputError as at the start."""
        rank = Rank.of(*self._requested) if self._assigned is None else self._assigned
        rank.share_size(self.batch_size)
        return rank

    def assign(self, rank: int, world_size: int) -> None:
        """Fixes which process this is, whatever torch.distributed says; raises InputError."""
        assigned = Rank(rank, world_size)
        if self._requested not in ((None, None), (0, 1)):
            requested = Rank(*self._requested)  # type: ignore[arg-type]
            if requested != assigned:
                raise InputError(
                    f"the batches are rank {requested.index}'s of {requested.count}, but this "
                    f"process is rank {assigned.index} of {assigned.count}; leave rank and "
                    "world_size alone"
                )
        assigned.share_size(self.batch_size)
        self._assigned = assigned

    def __getstate__(self) -> dict[str, Any]:
        """A loader's worker is in no process group: it keeps the rank that it was sent with."""
        state = dict(self.__dict__)
        if self.follows_group and Rank.of().count > 1:
            state["_assigned"] = Rank.of()
        return state


def share_bounds(n: int, rank: int, world_size: int) -> tuple[int, int]:
    """Where a rank's part of ``n`` rows begins and ends; parts differ by at most one row."""
    return n * rank // world_size, n * (rank + 1) // world_size


def gather_rows(rows: Tensor, n: int, world_size: int, device: torch.device) -> Tensor:
    """All ``n`` rows, in the order of the ranks, from each rank's part by :func:`share_bounds`.

    Floating ones become float32, whole ones int64, on the CPU; the same bytes on every rank.
    ``device`` is the learner's: where a backend that knows only GPUs, such as NCCL, sends from.
    """
    # Half precision is unknown to some backends, and indices lose digits in a float.
    rows = rows.detach().to(torch.float32 if rows.is_floating_point() else torch.int64)
    bounds = [share_bounds(n, rank, world_size) for rank in range(world_size)]
    longest = max(end - start for start, end in bounds)
    # gloo sends from the CPU, NCCL from GPUs alone.
    device = torch.device("cpu") if dist.get_backend() == "gloo" else device
    # all_gather takes parts of one size alone: shorter ones are filled up, and cut again below.
    sent = torch.zeros(longest, *rows.shape[1:], dtype=rows.dtype, device=device)
    sent[: len(rows)] = rows.to(device)
    received = [torch.empty_like(sent) for _ in range(world_size)]
    dist.all_gather(received, sent)
    parts = [part[: end - start] for part, (start, end) in zip(received, bounds, strict=True)]
    return torch.cat(parts).cpu()


def gather_uneven(rows: Tensor, world_size: int, device: torch.device) -> Tensor:
    """As :func:`gather_rows`, where each rank may have another number of rows; all must call it."""
    # Losses may lie on the CPU although NCCL connects the ranks.
    if dist.get_backend() == "nccl" and device.type != "cuda":
        device = torch.device("cuda", torch.cuda.current_device())
    # First how many rows each has; then all send as many, of which the padding is cut off.
    counts = gather_rows(torch.tensor([len(rows)]), world_size, world_size, device).tolist()
    longest = max(counts)
    if not longest:  # nothing to send, which all ranks know
        return rows
    padded = rows.new_zeros(longest, *rows.shape[1:])
    padded[: len(rows)] = rows
    everything = gather_rows(padded, longest * world_size, world_size, device)
    parts = everything.split(longest)
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])


def same_on_all_ranks(values: list[int], world_size: int, device: torch.device) -> bool:
    """Whether every rank has the same whole numbers, as many on each; all get the same answer."""
    rows = gather_rows(torch.tensor([values]), world_size, world_size, device)
    return bool((rows == rows[0]).all())


@functools.cache
def wait_before_forks() -> None:
    """Lets the threads of Gloo finish before this process is forked, for a loader's workers.

    In Python before 3.11.10 a child hangs for good if such a thread just joined the interpreter,
    as it does when a sum is done (CPython's issue 112275). That takes it microseconds.
    """
    if sys.version_info < (3, 11, 10) and hasattr(os, "register_at_fork"):
        os.register_at_fork(before=functools.partial(time.sleep, 0.005))
