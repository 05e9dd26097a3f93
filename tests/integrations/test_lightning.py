"""Against the real library: the batches of a Trainer, stopped in an epoch and gone on with."""

from __future__ import annotations

import importlib
import sys
import tomllib
from pathlib import Path

import pytest
import torch
from helpers import cell_processes as cells
from helpers.resume_processes import EPOCHS, Own, train
from torch.utils.data import DataLoader, Subset, TensorDataset

from saln.errors import InputError

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*LeafSpec.*is deprecated:FutureWarning",
    "ignore:The dirpath has changed:UserWarning",
    "ignore:.*does not have many workers:UserWarning",
    "ignore:.*multi-threaded, use of fork:DeprecationWarning",
)


@pytest.fixture(scope="module")
def small():
    """Small Trainers, and with them Lightning."""
    return importlib.import_module("helpers.lightning_training")


@pytest.mark.parametrize(("name", "steps"), [("saln", 4), ("infobatch", 8), ("rs2", 6)])
def test_a_checkpoint_goes_on_with_the_batches_that_were_left(small, tmp_path, name, steps):
    whole = train(Own(name, None), range(EPOCHS))
    seen, checkpoint = small.fit(tmp_path / "first", name=name, steps=steps)
    assert seen == whole[:steps]
    rest, _ = small.fit(tmp_path / "second", name=name, checkpoint=checkpoint)
    assert rest == whole[steps:]


def test_what_says_how_to_load_is_passed_on(small):
    options = {
        "num_workers": 2,
        "persistent_workers": True,
        "prefetch_factor": 5,
        "worker_init_fn": print,
        "pin_memory": True,
        "timeout": 7,
        "collate_fn": torch.utils.data.default_collate,
    }
    batches = cells.chosen()
    module = small.SelectedDataModule(cells.Positions(), batches, **options)
    inner = module.train_dataloader()._loader
    for name, value in options.items():
        assert getattr(inner, name) == value, name
    assert inner.generator is batches.generator
    own = torch.Generator().manual_seed(5)
    module = small.SelectedDataModule(cells.Positions(), batches, generator=own)
    assert module.train_dataloader()._loader.generator is own


@pytest.mark.parametrize(
    "options", [{"shuffle": True}, {"batch_size": 3}, {"drop_last": False}, {"sampler": [1]}]
)
def test_what_the_batches_decide_is_refused(small, options):
    with pytest.raises(InputError, match=f"{next(iter(options))} cannot be given"):
        small.SelectedDataModule(cells.Positions(), cells.chosen(), **options)


def test_a_data_set_of_another_length_is_refused(small):
    with pytest.raises(InputError, match="has 20 examples, but 50 are chosen from"):
        small.SelectedDataModule(Subset(cells.Positions(), range(20)), cells.chosen())
    with pytest.raises(InputError, match=r"use saln\.SelectedStream for a stream"):
        small.SelectedDataModule(cells.streamed(), cells.chosen())


def test_overfitting_repeats_the_first_batches(small):
    module = small.Rows()
    small.quiet(overfit_batches=2).fit(
        module, small.SelectedDataModule(cells.Positions(), cells.chosen())
    )
    assert module.seen == [cells.reference()[0][:2]] * cells.EPOCHS


def test_a_second_trainer_begins_anew(small):
    data = small.SelectedDataModule(cells.Positions(), cells.chosen())
    for _ in range(2):
        module = small.Rows()
        small.quiet().fit(module, data)
        assert module.seen == cells.reference()


def test_every_trainer_looks_after_plain_loaders(small):
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    points = project["project"]["entry-points"]["lightning.pytorch.callbacks_factory"]
    module, _, name = points["saln"].partition(":")
    assert getattr(importlib.import_module(module), name) is small.every_trainers_callbacks
    assert [type(callback) for callback in small.every_trainers_callbacks()] == [small.PlainLoaders]


def test_a_trainer_without_saln_loads_nothing_of_it(small, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "saln"]:
        monkeypatch.delitem(sys.modules, name)
    importlib.import_module("saln.integrations.lightning_plain")
    found = {name for name in sys.modules if name.partition(".")[0] == "saln"}
    assert found == {
        "saln", "saln._lazy", "saln.integrations", "saln.integrations.lightning_plain"
    }  # fmt: skip


def test_a_plain_loader_goes_from_epoch_to_epoch(small):
    batches = cells.chosen()
    loader = DataLoader(cells.Positions(), batch_sampler=batches, generator=batches.generator)
    assert small.plain(loader) == cells.reference()


def test_a_stream_in_a_plain_loader_goes_from_epoch_to_epoch(small):
    stream = cells.streamed()
    loader = DataLoader(stream, batch_size=None, generator=stream.generator)
    assert small.plain(loader) == cells.stream_reference()


def test_a_plain_loader_does_not_undo_a_position(small):
    batches = cells.chosen()
    batches.load_state_dict(batches.state_dict() | {"epoch": 1, "step": 4})
    loader = DataLoader(cells.Positions(), batch_sampler=batches, generator=batches.generator)
    with pytest.raises(InputError, match="are to go on in epoch 1, but"):
        small.plain(loader)


def test_other_loaders_are_left_alone(small):
    rows = TensorDataset(torch.arange(40)[:, None])
    loader = DataLoader(
        rows,
        batch_size=4,
        generator=torch.Generator(),
        collate_fn=lambda items: torch.stack([i for (i,) in items]),
    )
    assert small.plain(loader)[0] == torch.arange(40).reshape(10, 4).tolist()
