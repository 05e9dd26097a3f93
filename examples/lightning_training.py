"""Lightning on chosen digits; its checkpoints contain the position.

python examples/lightning_training.py
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import TensorDataset

import saln
from saln.data import ArrayImages, load_dataset
from saln.integrations import SelectedDataModule
from saln.training import seeded_globally

# After saln's: beside a torch without CUDA, torchvision loads only by saln's help.
# isort: split
import lightning


def digits() -> tuple[TensorDataset, saln.SelectedBatches]:
    """The embedded digits, and batches of those whose label is probably right, by their pixels."""
    train = load_dataset("digits").train
    source = train.images
    if not isinstance(source, ArrayImages):
        raise TypeError("the digits are held in memory")
    pixels = torch.from_numpy(source.pixels[train.rows]).float().flatten(1) / 255
    dataset = TensorDataset(pixels, torch.from_numpy(train.labels))
    batches = saln.SelectedBatches(
        pixels.numpy(), labels=train.labels, selector=saln.Coherence(), batch_size=32,
        filter_ratio=0.5, seed=0,
    )  # fmt: skip
    return dataset, batches


class Classifier(lightning.LightningModule):
    """Two layers."""

    def __init__(self) -> None:
        super().__init__()
        with seeded_globally(0, "network"):
            self.network = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
        self.last_loss = 0.0

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        """One step on a chosen batch."""
        images, labels = batch
        loss = cross_entropy(self.network(images), labels)
        self.last_loss = float(loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW."""
        return torch.optim.AdamW(self.parameters(), lr=3e-3)


def main(epochs: int = 3) -> float:
    """Trains; returns the last loss."""
    dataset, batches = digits()
    module = Classifier()
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, SelectedDataModule(dataset, batches))
    print(f"last loss {module.last_loss:.3f}")
    return module.last_loss


if __name__ == "__main__":
    main()
