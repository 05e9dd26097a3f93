"""Against the real library: the batches of a Trainer, stopped in an epoch and gone on with."""

from __future__ import annotations

import pytest
import torch
from resume_processes import EPOCHS, Own, Positions, sampler, train
from torch import nn

from saln.integrations.lightning import ObserveLosses, SelectedDataModule, lightning
from saln.randomness import seeded_globally

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*LeafSpec.*is deprecated:FutureWarning",
    "ignore:The dirpath has changed:UserWarning",
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
