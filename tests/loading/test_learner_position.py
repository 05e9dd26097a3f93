"""The choice after loading, stopped in the middle of an epoch and gone on with."""

from __future__ import annotations

import copy

import pytest
import torch
from helpers.rank_processes import examples, network

from saln.errors import DataError, InputError
from saln.loading.learner_selected import LearnerSelected
from saln.loading.selected_batches import SelectedBatches
from saln.selection import Uniform


class Rest:
    """The kept indices of an epoch, stopped and gone on with in fresh objects."""

    def __init__(self, loader):
        self.loader = loader

    def make(self):
        selector = Uniform()
        return LearnerSelected(
            self.loader(), selector=selector, batch_size=4, learner=network(0), indices=2, seed=4
        )

    def given(self, stops=()):
        seen, one = [], self.make()
        one.set_epoch(1)
        for stop in stops:
            for kept in one:
                seen.append(kept.indices.tolist())
                if len(seen) == stop:
                    break
            state = copy.deepcopy(one.state_dict())
            one = self.make()
            one.load_state_dict(state)
            assert one.state_dict()["step"] == stop
            one.set_epoch(1)
        return seen + [kept.indices.tolist() for kept in one]


def over_batches(workers):
    chosen = SelectedBatches(43, selector="uniform", batch_size=8, filter_ratio=0, seed=3)
    return torch.utils.data.DataLoader(
        examples(), batch_sampler=chosen, num_workers=workers, generator=chosen.generator
    )


def stateful():
    from torchdata.stateful_dataloader import StatefulDataLoader

    return StatefulDataLoader(examples(), batch_size=8, drop_last=True, generator=torch.Generator())


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated:UserWarning")
@pytest.mark.parametrize(
    "loader",
    [
        lambda: over_batches(0),
        lambda: over_batches(2),
        stateful,
        lambda: torch.utils.data.DataLoader(
            examples(), batch_size=8, drop_last=True, generator=torch.Generator()
        ),
    ],
)
def test_an_epoch_is_gone_on_with(loader):
    expected = Rest(loader).given()
    assert len(expected) == 5
    assert Rest(loader).given([2, 3]) == expected


def test_a_loader_of_another_order_is_refused_on_resume():
    def shuffled():
        Rest.seed = getattr(Rest, "seed", 0) + 1
        generator = torch.Generator().manual_seed(Rest.seed)
        return torch.utils.data.DataLoader(
            examples(), batch_size=8, shuffle=True, drop_last=True, generator=generator
        )

    with pytest.raises(DataError, match="batch 2 is another than when the state was saved"):
        Rest(shuffled).given([2])


def test_a_position_holds_for_its_own_epoch_alone():
    one = Rest(lambda: over_batches(0)).make()
    state = one.state_dict() | {"step": 2}
    state["batches"]["step"] = 2
    one.load_state_dict(state)
    one.set_epoch(1)
    assert len(list(one)) == 5
    state = one.state_dict()
    one.seed = 5
    with pytest.raises(InputError, match="saved with seed 4, here it is 5"):
        one.load_state_dict(state)
