"""Rows that several processes hold, brought together on each of them."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from saln.errors import InputError


def check_group(rank: int, world_size: int) -> None:
    """Raises where torch.distributed does not connect these ranks.

    Raises:
        InputError: Several ranks without a process group, or another rank or size in it.
    """
    if world_size == 1:
        return
    if not (dist.is_available() and dist.is_initialized()):
        raise InputError(
            f"world_size={world_size}, but the processes are not connected; call "
            "torch.distributed.init_process_group first, in every process"
        )
    actual = (dist.get_rank(), dist.get_world_size())
    if actual != (rank, world_size):
        raise InputError(
            f"rank={rank} of world_size={world_size}, but torch.distributed says rank "
            f"{actual[0]} of {actual[1]}; give torch.distributed.get_rank() and "
            "get_world_size()"
        )


def share_bounds(n: int, rank: int, world_size: int) -> tuple[int, int]:
    """Where a rank's part of ``n`` rows begins and ends; parts differ by at most one row."""
    return n * rank // world_size, n * (rank + 1) // world_size


def gather_rows(rows: Tensor, n: int, world_size: int, device: torch.device) -> Tensor:
    """All ``n`` rows, in the order of the ranks, from each rank's part.

    Args:
        rows: (m, ...): the rows of :func:`share_bounds`. Floating ones travel as float32,
            whole ones as int64: indices lose digits in a float.
        n: Rows of all ranks.
        world_size: How many ranks there are.
        device: The learner's: where a backend that knows only GPUs, such as NCCL, sends from.

    Returns:
        float32 or int64, (n, ...), on the CPU; the same bytes on every rank.
    """
    rows = rows.detach().to(torch.float32 if rows.is_floating_point() else torch.int64)
    bounds = [share_bounds(n, rank, world_size) for rank in range(world_size)]
    longest = max(end - start for start, end in bounds)
    device = torch.device("cpu") if dist.get_backend() == "gloo" else device
    sent = torch.zeros(longest, *rows.shape[1:], dtype=rows.dtype, device=device)
    sent[: len(rows)] = rows.to(device)
    received = [torch.empty_like(sent) for _ in range(world_size)]
    dist.all_gather(received, sent)
    parts = [part[: end - start] for part, (start, end) in zip(received, bounds, strict=True)]
    return torch.cat(parts).cpu()


def gather_any(rows: Tensor, world_size: int, device: torch.device) -> Tensor:
    """All ranks' rows, in the order of the ranks, where each may have another number of them.

    Args:
        rows: (m, ...), as in :func:`gather_rows`.
        world_size: How many ranks there are; every one must call this.
        device: As in :func:`gather_rows`.
    """
    if dist.get_backend() == "nccl" and device.type != "cuda":
        device = torch.device("cuda", torch.cuda.current_device())
    counts = gather_rows(torch.tensor([len(rows)]), world_size, world_size, device).tolist()
    longest = max(counts)
    if not longest:
        return rows
    padded = rows.new_zeros(longest, *rows.shape[1:])
    padded[: len(rows)] = rows
    everything = gather_rows(padded, longest * world_size, world_size, device)
    parts = everything.split(longest)
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])


def all_alike(values: list[int], world_size: int, device: torch.device) -> bool:
    """Whether every rank has the same whole numbers; the answer is the same on each.

    Args:
        values: As many on every rank.
        world_size: How many ranks there are.
        device: As in :func:`gather_rows`.
    """
    rows = gather_rows(torch.tensor([values]), world_size, world_size, device)
    return bool((rows == rows[0]).all())
