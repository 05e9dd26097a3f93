"""Accelerate on chosen digits: batches shared among processes once, saved and resumed.

python examples/accelerate_training.py
torchrun --standalone --nproc-per-node 2 examples/accelerate_training.py
"""

from __future__ import annotations

import tempfile

import torch
from accelerate import Accelerator
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

import saln
from saln.data import ArrayImages, load_dataset
from saln.integrations import prepare
from saln.training import seeded_globally


def main(epochs: int = 3) -> float:
    """Trains on half of the candidates; prints and returns the last loss."""
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
    accelerator = Accelerator()
    with seeded_globally(0, "network"):
        network = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    loader = DataLoader(dataset, batch_sampler=batches)
    network, optimizer = accelerator.prepare(
        network, torch.optim.AdamW(network.parameters(), lr=3e-3)
    )
    chosen = prepare(accelerator, loader)  # in place of accelerator.prepare
    loss = torch.tensor(0.0)
    for epoch in range(epochs):
        chosen.set_epoch(epoch)
        for images, labels in chosen:
            loss = cross_entropy(network(images), labels)
            optimizer.zero_grad()
            accelerator.backward(loss)
            optimizer.step()
    with tempfile.TemporaryDirectory() as folder:
        accelerator.save_state(folder)  # holds the network, the optimizer and the position
        accelerator.load_state(folder)
    accelerator.print(f"last loss {loss.item():.3f}")
    return loss.item()


if __name__ == "__main__":
    main()
