"""What each of several real processes does; spawned ones find it by this module's name."""

from __future__ import annotations

import numpy as np
import torch

from saln.errors import SalnError
from saln.loading.batches import SelectedBatches
from saln.loading.learner_selected import LearnerSelected
from saln.randomness import derive_generator, seeded_globally
from saln.selection import SALN, SELECTORS, TopLoss, Uniform


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


class Told(TopLoss):
    """Remembers the losses that it is told."""

    observes_losses = True

    def observe(self, indices, losses):
        self.__dict__.setdefault("told", []).append((indices.tolist(), losses.tolist()))


def network(seed):
    with seeded_globally("network", seed):
        return torch.nn.Sequential(
            torch.nn.Linear(5, 8), torch.nn.BatchNorm1d(8), torch.nn.ReLU(), torch.nn.Linear(8, 3)
        )


def examples():
    random = derive_generator("examples")
    rows = torch.randn(43, 5, generator=random)
    return torch.utils.data.TensorDataset(rows, torch.arange(43) % 3, torch.arange(43))


def learner_selected(selector, rank, world_size, loader=None, learner=None):
    if loader is None:
        # 21 and 22 candidates: no number of ranks divides both.
        loader = torch.utils.data.DataLoader(examples(), batch_size=22, generator=torch.Generator())
    return LearnerSelected(
        loader,
        selector=selector,
        batch_size=8,
        learner=learner or network(0),
        reference=network(1),
        indices=2,
        seed=4,
        rank=rank,
        world_size=world_size,
    )


def kept_globally(rank, world_size):
    """The global batches that each selector keeps."""
    seen = {}
    for name in ("uniform", "jest", "top-loss"):
        batches = []
        for kept in learner_selected(SELECTORS[name](), rank, world_size):
            assert torch.equal(kept.batch[2], kept.indices)
            parts = [kept.indices]
            if world_size > 1:
                parts = [torch.empty_like(kept.indices) for _ in range(world_size)]
                torch.distributed.all_gather(parts, kept.indices)
            batches.append(torch.cat(parts).tolist())
        seen[name] = batches
    return seen


def message_of(make):
    try:
        list(make())
    except SalnError as error:
        return str(error)
    return "no error"


def learn(rank, world_size, meeting):
    """What each rank sees of batches that the learner's scores choose."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{meeting}", rank=rank, world_size=world_size
    )
    try:
        seen = {"kept": kept_globally(rank, world_size)}
        selector = Told()
        batches = learner_selected(selector, rank, world_size)
        for kept in batches:
            batches.observe(kept.indices, kept.indices / 7)
        seen["told"] = selector.told
        order = torch.utils.data.DataLoader(
            examples(), batch_size=22, shuffle=True, generator=torch.Generator().manual_seed(rank)
        )
        seen["shuffled"] = message_of(lambda: learner_selected(Uniform(), rank, world_size, order))
        learner = network(0)
        if rank == world_size - 1:  # one rank alone
            learner[3].bias.data.fill_(torch.nan)
        seen["diverged"] = message_of(
            lambda: learner_selected(SELECTORS["jest"](), rank, world_size, learner=learner)
        )
        sampler = torch.utils.data.DistributedSampler(examples(), world_size, rank)
        sharded = torch.utils.data.DataLoader(examples(), batch_size=10, sampler=sampler)
        seen["sharded"] = message_of(lambda: learner_selected(Uniform(), rank, world_size, sharded))
        other = (rank + 1) % world_size
        seen["rank"] = message_of(lambda: learner_selected(Uniform(), other, world_size))
        return seen
    finally:
        torch.distributed.destroy_process_group()
