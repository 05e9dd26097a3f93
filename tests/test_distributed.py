"""Which of how many processes this is; groups of one real process stand in for several."""

from __future__ import annotations

import os
import sys
import time

import numpy as np
import pytest

from saln.distributed import Rank, Sharing, wait_before_forks
from saln.errors import InputError
from saln.loading.selected_batches import SelectedBatches
from saln.loading.selected_stream import SelectedStream
from saln.selection import Uniform


@pytest.fixture
def group(monkeypatch):
    """Makes torch.distributed say what it would in a group."""

    def begin(rank, world_size):
        import torch.distributed as dist

        monkeypatch.setattr(dist, "is_initialized", lambda: True)
        monkeypatch.setattr(dist, "get_rank", lambda: rank)
        monkeypatch.setattr(dist, "get_world_size", lambda: world_size)

    return begin


def batches(**changes):
    return SelectedBatches(
        80, selector=Uniform(), batch_size=8, filter_ratio=0.5, seed=0, **changes
    )


def stream(**changes):
    source = [(str(number), number) for number in range(80)]
    return SelectedStream(
        source, selector=Uniform(), batch_size=8, filter_ratio=0.5, seed=0, **changes
    )


def test_nothing_said_is_what_the_group_says(group):
    assert Rank.of() == Rank(0, 1)
    group(1, 2)
    assert Rank.of() == Rank(1, 2)
    assert Rank.of(np.int32(1), np.int64(2)) == Rank(1, 2)
    assert type(Rank.of(np.int32(1), np.int64(2)).index) is int


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ((0, None), "rank=0 and world_size=None: give world_size too"),
        ((None, 2), "rank=None and world_size=2: give rank too"),
        ((2, 2), "rank=2 is not allowed with world_size=2; give 0 to 1"),
        ((0, 0), "world_size=0 is not allowed"),
        ((0.5, 2), "rank=0.5 is not allowed; give a whole number"),
        (("0", "2"), "rank='0' is not allowed"),
    ],
)
def test_what_is_no_rank_is_refused(said, message):
    with pytest.raises(InputError, match=message):
        Rank.of(*said)
    with pytest.raises(InputError, match=message):
        batches(rank=said[0], world_size=said[1])


def test_a_contradiction_to_the_group_is_refused(group):
    group(1, 2)
    for said in ((0, 2), (1, 4)):
        with pytest.raises(InputError, match=r"says rank 1 of 2: leave both out"):
            Rank.of(*said)
    with pytest.raises(InputError, match=r"train on the same whole batch.*share_among\(0, 1\)"):
        Rank.of(0, 1)
    group(0, 1)
    assert Rank.of(3, 4) == Rank(3, 4)  # several told of by hand, as in tests


@pytest.mark.parametrize("make", [batches, stream])
def test_the_group_is_read_when_it_is_needed(make, group):
    one = make()
    assert (one.rank, one.world_size) == (0, 1)
    whole = [list(getattr(batch, "indices", batch)) for batch in one]
    group(1, 2)  # started after the object was made
    assert (one.rank, one.world_size) == (1, 2)
    one.set_epoch(0)
    shares = [list(getattr(batch, "indices", batch)) for batch in one]
    assert shares == [batch[4:] for batch in whole]


@pytest.mark.parametrize("make", [batches, stream])
def test_an_explicit_single_process_in_a_group_needs_somebody_who_shares(make, group):
    one = make(rank=0, world_size=1)
    group(1, 2)
    with pytest.raises(InputError, match="every process would train on the same whole batch"):
        next(iter(one))
    one.share_among(0, 1)  # whole batches, shared out elsewhere
    one.set_epoch(1)
    assert len(getattr(batch := next(iter(one)), "indices", batch)) == 8
    one.share_among(1, 2)
    assert (one.rank, one.world_size) == (1, 2)


@pytest.mark.parametrize("make", [batches, stream])
def test_sharing_that_cannot_be_is_refused(make, group):
    one = make(rank=1, world_size=2)
    with pytest.raises(InputError, match=r"rank 1's of 2, but this process is rank 0 of 2"):
        one.share_among(0, 2)
    with pytest.raises(InputError, match="8 cannot be shared equally by 3 ranks"):
        make().share_among(0, 3)
    group(0, 3)
    with pytest.raises(InputError, match="8 cannot be shared equally by 3 ranks"):
        make()


def test_a_process_without_a_group_keeps_the_rank_it_was_sent_with(group, monkeypatch):
    import pickle

    import torch.distributed as dist

    sent = pickle.dumps(Sharing(8, None, None))
    group(1, 2)
    there = pickle.dumps(Sharing(8, None, None))
    monkeypatch.setattr(dist, "is_initialized", lambda: False)
    assert pickle.loads(there).current() == Rank(1, 2)
    assert pickle.loads(sent).current() == Rank(0, 1)


@pytest.mark.parametrize(("version", "count"), [((3, 11, 9), 1), ((3, 11, 10), 0), ((3, 12, 0), 0)])
def test_only_an_old_python_waits_before_forks_and_registers_that_once(monkeypatch, version, count):
    registered, slept = [], []
    monkeypatch.setattr(os, "register_at_fork", lambda *, before: registered.append(before))
    monkeypatch.setattr(sys, "version_info", version)
    monkeypatch.setattr(time, "sleep", slept.append)
    wait_before_forks.cache_clear()
    for _ in range(2):
        wait_before_forks()
    wait_before_forks.cache_clear()
    for before in registered:
        before()
    assert [seconds > 0 for seconds in slept] == [True] * count
