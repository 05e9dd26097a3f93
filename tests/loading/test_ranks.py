"""The arithmetic of ranks, by literal lists; and real processes that agree without a word."""

from __future__ import annotations

import pytest
from helpers.rank_processes import gather_batches, sampler_of

from saln.distributed import Rank
from saln.errors import InputError
from saln.loading.selected_batches import SelectedBatches
from saln.selection import Uniform


@pytest.mark.parametrize(
    ("world_size", "shares"),
    [
        (1, [[10, 11, 12, 13, 14, 15, 16, 17]]),
        (2, [[10, 11, 12, 13], [14, 15, 16, 17]]),
        (4, [[10, 11], [12, 13], [14, 15], [16, 17]]),
        (8, [[10], [11], [12], [13], [14], [15], [16], [17]]),
    ],
)
def test_shares_are_equal_contiguous_and_in_order(world_size, shares):
    batch = [10, 11, 12, 13, 14, 15, 16, 17]
    ranks = [Rank(index, world_size) for index in range(world_size)]
    assert ranks[0].share_size(8) == len(shares[0])
    assert [rank.share(batch) for rank in ranks] == shares


@pytest.mark.parametrize(
    ("batch_size", "rank", "world_size", "message"),
    [
        (8, 0, 3, r"a batch of 8 cannot be shared equally by 3 ranks.*such as 9"),
        (2, 0, 4, r"cannot be shared equally by 4 ranks.*such as 4"),
        (8, 2, 2, r"rank=2 is not allowed with world_size=2; give 0 to 1"),
        (8, -1, 2, r"rank=-1"),
        (8, 0, 0, r"world_size=0"),
    ],
)
def test_ranks_that_cannot_be_are_refused(batch_size, rank, world_size, message):
    with pytest.raises(InputError, match=message):
        Rank(rank, world_size).share_size(batch_size)
    with pytest.raises(InputError, match=message):
        SelectedBatches(
            50,
            selector=Uniform(),
            batch_size=batch_size,
            filter_ratio=0.5,
            seed=0,
            rank=rank,
            world_size=world_size,
        )


@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_together_train_on_the_batches_of_one_process(world_size, warm, tmp_path):
    meeting = tmp_path / "meeting"
    calls = [(rank, world_size, meeting) for rank in range(world_size)]
    seen = warm.call_together(gather_batches, calls, tmp_path)
    expected = {name: list(sampler_of(name)) for name in ("uniform", "saln")}
    assert len(expected["saln"]) == 5
    assert seen == [expected] * world_size
