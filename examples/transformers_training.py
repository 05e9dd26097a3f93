"""Hugging Face's Trainer on chosen digits; its checkpoints contain the position.

python examples/transformers_training.py
"""

from __future__ import annotations

import tempfile

import torch
import transformers
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import TensorDataset

import saln
from saln.data import ArrayImages, load_dataset
from saln.integrations import SelectedTrainerMixin
from saln.training import seeded_globally


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


class SelectedTrainer(SelectedTrainerMixin, transformers.Trainer):  # type: ignore[misc]
    """A Trainer whose training batches are chosen."""


class Classifier(nn.Module):
    """Two layers; gives the loss as the Trainer expects it."""

    def __init__(self) -> None:
        super().__init__()
        with seeded_globally(0, "network"):
            self.network = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
        self.last_loss = 0.0

    def forward(self, pixels: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The loss of a batch, and its logits."""
        logits = self.network(pixels)
        loss = cross_entropy(logits, labels)
        self.last_loss = float(loss)
        return {"loss": loss, "logits": logits}


def collate(items: list[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    """A batch by name."""
    pixels, labels = zip(*items, strict=True)
    return {"pixels": torch.stack(pixels), "labels": torch.stack(labels)}


def main(epochs: int = 5) -> float:
    """Trains; returns the last loss."""
    dataset, batches = digits()
    model = Classifier()
    with tempfile.TemporaryDirectory() as folder:
        arguments = transformers.TrainingArguments(
            folder,
            num_train_epochs=epochs,
            learning_rate=3e-3,
            use_cpu=True,
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
        )
        trainer = SelectedTrainer(
            model,
            arguments,
            train_dataset=dataset,
            data_collator=collate,
            selected_batches=batches,
        )
        trainer.train()
    print(f"last loss {model.last_loss:.3f}")
    return model.last_loss


if __name__ == "__main__":
    main()
