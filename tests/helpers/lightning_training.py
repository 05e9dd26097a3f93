"""Small Trainers of Lightning. Importing this takes two seconds: only tests that need it do."""

from __future__ import annotations

import torch
from helpers import cell_processes as cells
from helpers.resume_processes import EPOCHS, Positions, sampler
from torch import nn

from saln.integrations.lightning import ObserveLosses, SelectedDataModule, lightning
from saln.integrations.lightning_plain import PlainLoaders, every_trainers_callbacks
from saln.randomness import seeded_globally


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


def plain(loader, **options):
    """Trains with a plain loader, as every Trainer does where SALN is installed."""
    module, trainer = Rows(), quiet(**options)
    if not any(isinstance(callback, PlainLoaders) for callback in trainer.callbacks):
        trainer.callbacks += every_trainers_callbacks()
    trainer.fit(module, loader)
    return module.seen
