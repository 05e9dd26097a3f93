"""A training loop of your own on chosen digits: SelectedBatches is the loader's batch sampler.

python examples/plain_pytorch.py
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

import saln
from saln.data import ArrayImages, load_dataset
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


def main(epochs: int = 3) -> float:
    """Trains, saves the position in the middle of an epoch, goes on; returns the last loss."""
    dataset, batches = digits()
    loader = DataLoader(dataset, batch_sampler=batches, generator=batches.generator)
    with seeded_globally(0, "network"):
        network = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    loss = torch.tensor(0.0)
    for epoch in range(epochs):
        batches.set_epoch(epoch)
        for images, labels in loader:
            loss = cross_entropy(network(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        state = batches.state_dict()  # save it in your checkpoint
        batches.load_state_dict(state)
    print(f"last loss {loss.item():.3f}")
    return loss.item()


if __name__ == "__main__":
    main()
