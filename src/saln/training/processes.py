"""Several processes that train one network together, as torchrun starts them.

Every rank trains on its share of every batch; gradients are averaged, so that a step is
that of one process with the whole batch. Without torchrun there is one process, and
nothing here does anything.
"""

from __future__ import annotations

import contextlib
import datetime
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from saln.distributed import gather_rows, wait_before_forks
from saln.errors import InputError
from saln.messages import first_line

T = TypeVar("T")
# Ranks wait for one another while one of them writes a checkpoint or reads a slow disk.
TIMEOUT = datetime.timedelta(hours=2)


@dataclass(frozen=True)
class Processes:
    """Which of how many processes this is."""

    rank: int = 0  # 0 to ``world_size - 1``; the first one writes and reports
    world_size: int = 1  # How many train together
    local_rank: int = 0  # Which on its machine; says which GPU is its own

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Processes:
        """What torchrun says; one process where it says nothing. InputError for contradictions."""
        defaults = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}
        texts = {name: environment.get(name, default) for name, default in defaults.items()}
        try:
            rank, world_size, local_rank = map(int, texts.values())
        except ValueError:
            rank, world_size, local_rank = -1, 0, 0
        if not 0 <= rank < world_size:
            said = ", ".join(f"{name}={text}" for name, text in texts.items())
            raise InputError(
                f"the environment says {said}, which is not allowed; unset them, or start with "
                "torchrun, which sets them"
            )
        return cls(rank, world_size, local_rank)

    @property
    def first(self) -> bool:
        """Whether this is the one that writes and reports."""
        return self.rank == 0

    @contextlib.contextmanager
    def connected(self, device: torch.device) -> Iterator[None]:
        """Connects the processes inside the block: gloo on CPUs, NCCL on GPUs; else InputError."""
        if self.world_size == 1 or dist.is_initialized():
            yield
            return
        wait_before_forks()
        backend = "nccl" if device.type == "cuda" else "gloo"
        try:
            dist.init_process_group(backend, timeout=TIMEOUT)
        except (ValueError, RuntimeError) as error:
            raise InputError(
                f"process {self.rank} of {self.world_size} cannot reach the others "
                f"({first_line(error)}); start all of them with torchrun"
            ) from error
        try:
            yield
        finally:
            dist.destroy_process_group()

    def same(self, value: T, device: torch.device) -> T:
        """The first rank's value, on every rank. It is pickled; the ranks are one program."""
        if self.world_size == 1:
            return value
        # NCCL sends from GPUs alone.
        values: list[T | None] = [value if self.first else None]
        dist.broadcast_object_list(
            values, src=0, device=device if device.type == "cuda" else torch.device("cpu")
        )
        return cast(T, values[0])

    def total(self, values: Tensor) -> Tensor:
        """The sum over the ranks; ``values`` is changed in place."""
        if self.world_size > 1:
            dist.all_reduce(values)
        return values

    def average_gradients(self, network: nn.Module) -> None:
        """Gives every rank the mean over the ranks of each parameter's gradient."""
        if self.world_size == 1:
            return
        # Not DistributedDataParallel: it orders its buckets anew after the first step, so that of
        # three processes a run that goes on differs in the last digit from one that was never
        # stopped; and a step takes as long (resnet18, three processes: 1.26 s and 1.27 s here).
        gradients = [p.grad for p in network.parameters() if p.grad is not None]
        # In one piece: a small message for every parameter would take longer than the sum.
        whole = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(whole)
        whole /= self.world_size
        parts = whole.split([gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view(gradient.shape))

    def joined(self, shares: Tensor, steps: int, device: torch.device) -> Tensor:
        """What all ranks trained on: int64, step by step, in the order of the ranks.

        ``shares`` is this rank's equal part of every step; GPUs send from ``device``.
        """
        if self.world_size == 1:
            return shares
        # Gathered by rank, and wanted by step: each step's shares stand together.
        every = gather_rows(shares, len(shares) * self.world_size, self.world_size, device)
        return every.view(self.world_size, steps, -1).transpose(0, 1).flatten()


ALONE = Processes()
