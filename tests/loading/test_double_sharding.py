"""Batches that are shared out among the ranks twice are found and named."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from saln.errors import InputError
from saln.loading.double_sharding import refuse_double_sharding, sharded_by
from saln.loading.selected_batches import SelectedBatches
from saln.selection import Uniform

DATA = TensorDataset(torch.arange(40))


def sampler(world_size=1):
    return SelectedBatches(
        40,
        selector=Uniform(),
        batch_size=4,
        filter_ratio=0.5,
        seed=0,
        rank=0,
        world_size=world_size,
    )


def accelerates(batch_sampler, processes):
    from accelerate.data_loader import prepare_data_loader

    loader = DataLoader(DATA, batch_sampler=batch_sampler)
    return prepare_data_loader(loader, num_processes=processes, process_index=0)


def test_what_shares_is_named():
    distributed = DistributedSampler(DATA, num_replicas=2, rank=0)
    assert sharded_by(distributed) == ["DistributedSampler(num_replicas=2)"]
    loader = DataLoader(DATA, batch_size=4, sampler=distributed)
    assert sharded_by(loader) == ["DistributedSampler(num_replicas=2)"]
    assert sharded_by(DataLoader(DATA, batch_sampler=sampler(4))) == [
        "SelectedBatches(world_size=4)"
    ]
    assert sharded_by(accelerates(sampler(), 2)) == ["BatchSamplerShard(num_processes=2)"]


def test_a_single_rank_shares_nothing():
    alone = DistributedSampler(DATA, num_replicas=1, rank=0)
    for loader in (
        DataLoader(DATA, sampler=alone),
        DataLoader(DATA, batch_sampler=sampler()),
        accelerates(sampler(), 1),
        [1, 2],
    ):
        assert sharded_by(loader) == []
        refuse_double_sharding(loader, "LearnerSelected(world_size=2)")


def test_two_that_share_are_refused_by_name():
    with pytest.raises(InputError, match="so nothing else may share it out: use saln"):
        accelerates(sampler(2), 2)
    batches = sampler()
    twice = accelerates(batches, 2)
    batches.share_among(0, 2)
    message = (
        r"2 times, by BatchSamplerShard\(num_processes=2\) and by SelectedBatches\(world_size=2\)"
    )
    with pytest.raises(InputError, match=message):
        refuse_double_sharding(twice)
    refuse_double_sharding(accelerates(sampler(), 2))
    with pytest.raises(InputError, match=r"by LearnerSelected.* and by DistributedSampler"):
        refuse_double_sharding(
            DistributedSampler(DATA, num_replicas=2, rank=0), "LearnerSelected(world_size=2)"
        )
