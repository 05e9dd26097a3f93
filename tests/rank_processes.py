"""What each of several real processes does; spawned ones find it by this module's name."""

from __future__ import annotations

import numpy as np
import torch

from saln.loading.batches import SelectedBatches
from saln.selection import SALN, Uniform


def sampler_of(name, rank=0, world_size=1):
    features = np.random.Generator(np.random.PCG64(0)).random((200, 7))
    selector = {"uniform": Uniform, "saln": SALN}[name]()
    return SelectedBatches(
        features,
        selector=selector,
        batch_size=8,
        filter_ratio=0.8,
        seed=3,
        rank=rank,
        world_size=world_size,
    )


def gather_batches(rank, world_size, meeting):
    """The global batches of an epoch, put together from what each rank was given."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{meeting}", rank=rank, world_size=world_size
    )
    try:
        seen = {}
        for name in ("uniform", "saln"):
            batches = []
            for share in sampler_of(name, rank, world_size):
                parts = [torch.empty(len(share), dtype=torch.int64) for _ in range(world_size)]
                torch.distributed.all_gather(parts, torch.tensor(share))
                batches.append(torch.cat(parts).tolist())
            seen[name] = batches
        return seen
    finally:
        torch.distributed.destroy_process_group()
