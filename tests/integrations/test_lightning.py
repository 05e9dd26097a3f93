"""Against the real library: the batches of a Trainer, stopped in an epoch and gone on with."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch
from helpers import cell_processes as cells
from helpers.resume_processes import EPOCHS, Own, Positions, sampler, train
from torch import nn
from torch.utils.data import DataLoader, Subset, TensorDataset

from saln.errors import InputError
from saln.integrations.lightning import (
    ObserveLosses,
    SelectedDataModule,
    lightning,
)
from saln.integrations.lightning_plain import PlainLoaders, every_trainers_callbacks
from saln.randomness import seeded_globally

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*LeafSpec.*is deprecated:FutureWarning",
    "ignore:The dirpath has changed:UserWarning",
    "ignore:.*does not have many workers:UserWarning",
    "ignore:.*multi-threaded, use of fork:DeprecationWarning",
)


class Module(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        with seeded_globally("module"):
            self.network = nn.Linear(1, 1)
        self.seen = []

    def training_step(self, batch, batch_idx):
        self.seen.append(batch.tolist())
        losses = self.network(batch.float()[:, None])[:, 0] ** 2
        told = (batch * (self.current_epoch + 2)) % 11 / 7
        return {"loss": losses.mean(), "losses": told, "indices": batch}

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1e-6)


def fit(folder, *, name, steps=-1, checkpoint=None):
    module = Module()
    saver = lightning.pytorch.callbacks.ModelCheckpoint(
        folder, every_n_train_steps=1, save_top_k=-1
    )
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=EPOCHS,
        max_steps=steps,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[ObserveLosses(), saver],
    )
    trainer.fit(module, SelectedDataModule(Positions(), sampler(name)), ckpt_path=checkpoint)
    return module.seen, saver.best_model_path


@pytest.mark.parametrize(("name", "steps"), [("saln", 4), ("infobatch", 8), ("rs2", 6)])
def test_a_checkpoint_goes_on_with_the_batches_that_were_left(tmp_path, name, steps):
    whole = train(Own(name, None), range(EPOCHS))
    seen, checkpoint = fit(tmp_path / "first", name=name, steps=steps)
    assert seen == whole[:steps]
    rest, _ = fit(tmp_path / "second", name=name, checkpoint=checkpoint)
    assert rest == whole[steps:]


def quiet(**options):
    return lightning.Trainer(
        **{
            "accelerator": "cpu",
            "max_epochs": cells.EPOCHS,
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
        }
        | options
    )


class Rows(Module):
    """Keeps the positions of each epoch's batches."""

    def training_step(self, batch, batch_idx):
        rows = batch.samples if hasattr(batch, "samples") else batch
        if len(self.seen) == self.current_epoch:
            self.seen.append([])
        self.seen[-1].append(rows[:, 0].tolist())
        return self.network(rows[:, :1].float()).square().mean()


def test_what_says_how_to_load_is_passed_on():
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
    module = SelectedDataModule(cells.Positions(), batches, **options)
    inner = module.train_dataloader()._loader
    for name, value in options.items():
        assert getattr(inner, name) == value, name
    assert inner.generator is batches.generator
    own = torch.Generator().manual_seed(5)
    module = SelectedDataModule(cells.Positions(), batches, generator=own)
    assert module.train_dataloader()._loader.generator is own


@pytest.mark.parametrize(
    "options", [{"shuffle": True}, {"batch_size": 3}, {"drop_last": False}, {"sampler": [1]}]
)
def test_what_the_batches_decide_is_refused(options):
    with pytest.raises(InputError, match=f"{next(iter(options))} cannot be given"):
        SelectedDataModule(cells.Positions(), cells.chosen(), **options)


def test_a_data_set_of_another_length_is_refused():
    with pytest.raises(InputError, match="has 20 examples, but 50 are chosen from"):
        SelectedDataModule(Subset(cells.Positions(), range(20)), cells.chosen())
    with pytest.raises(InputError, match=r"use saln\.SelectedStream for a stream"):
        SelectedDataModule(cells.streamed(), cells.chosen())


def test_overfitting_repeats_the_first_batches():
    module = Rows()
    quiet(overfit_batches=2).fit(module, SelectedDataModule(cells.Positions(), cells.chosen()))
    assert module.seen == [cells.reference()[0][:2]] * cells.EPOCHS


def test_a_second_trainer_begins_anew():
    data = SelectedDataModule(cells.Positions(), cells.chosen())
    for _ in range(2):
        module = Rows()
        quiet().fit(module, data)
        assert module.seen == cells.reference()


def test_every_trainer_looks_after_plain_loaders():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    points = project["project"]["entry-points"]["lightning.pytorch.callbacks_factory"]
    module, _, name = points["saln"].partition(":")
    assert getattr(importlib.import_module(module), name) is every_trainers_callbacks
    assert [type(callback) for callback in every_trainers_callbacks()] == [PlainLoaders]


def test_a_trainer_without_saln_loads_nothing_of_it():
    code = (
        "import sys; import saln._torchvision, lightning; before = set(sys.modules);"
        "from saln.integrations.lightning_plain import every_trainers_callbacks as c;"
        "print([m for m in set(sys.modules) - before if m.startswith('saln')])"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout
    assert sorted(ast.literal_eval(found)) == [
        "saln.integrations",
        "saln.integrations.lightning_plain",
    ]


def plain(loader, **options):
    """Trains with a plain loader, as every Trainer does where SALN is installed."""
    module, trainer = Rows(), quiet(**options)
    if not any(isinstance(callback, PlainLoaders) for callback in trainer.callbacks):
        trainer.callbacks += every_trainers_callbacks()
    trainer.fit(module, loader)
    return module.seen


def test_a_plain_loader_goes_from_epoch_to_epoch():
    batches = cells.chosen()
    loader = DataLoader(cells.Positions(), batch_sampler=batches, generator=batches.generator)
    assert plain(loader) == cells.reference()


def test_a_stream_in_a_plain_loader_goes_from_epoch_to_epoch():
    stream = cells.streamed()
    loader = DataLoader(stream, batch_size=None, generator=stream.generator)
    assert plain(loader) == cells.stream_reference()


def test_a_plain_loader_does_not_undo_a_position():
    batches = cells.chosen()
    batches.load_state_dict(batches.state_dict() | {"epoch": 1, "step": 4})
    loader = DataLoader(cells.Positions(), batch_sampler=batches, generator=batches.generator)
    with pytest.raises(InputError, match="are to go on in epoch 1, but"):
        plain(loader)


def test_other_loaders_are_left_alone():
    rows = TensorDataset(torch.arange(40)[:, None])
    loader = DataLoader(
        rows,
        batch_size=4,
        generator=torch.Generator(),
        collate_fn=lambda items: torch.stack([i for (i,) in items]),
    )
    assert plain(loader)[0] == torch.arange(40).reshape(10, 4).tolist()
