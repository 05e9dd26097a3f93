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


def digits(epochs: int) -> tuple[TensorDataset, saln.SelectedBatches]:
    """The embedded digits, and batches of those with right labels, easy ones first, by pixels."""
    train = load_dataset("digits").train
    source = train.images
    if not isinstance(source, ArrayImages):
        raise TypeError("the digits are held in memory")
    pixels = torch.from_numpy(source.pixels[train.rows]).float().flatten(1) / 255
    labels = torch.from_numpy(train.labels)
    dataset = TensorDataset(pixels, labels, torch.arange(len(labels)))
    batches = saln.SelectedBatches(
        pixels.numpy(), labels=train.labels, selector=saln.BalancedCurriculum(epochs=epochs),
        batch_size=32, filter_ratio=0.5, seed=0,
    )  # fmt: skip
    return dataset, batches


def main(epochs: int = 3) -> float:
    """Trains, saves and restores the position after each epoch; returns the last loss."""
    dataset, batches = digits(epochs)
    loader = DataLoader(dataset, batch_sampler=batches, generator=batches.generator)
    with seeded_globally(0, "network"):
        network = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    loss = torch.tensor(0.0)
    for epoch in range(epochs):
        batches.set_epoch(epoch)
        for images, labels, indices in loader:
            targets = batches.targets_of(indices, labels, beliefs=0.3, features=0.3)  # soft
            loss = cross_entropy(network(images), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        state = batches.state_dict()  # save it in your checkpoint
        batches.load_state_dict(state)
    print(f"last loss {loss.item():.3f}")
    return loss.item()


if __name__ == "__main__":
    main()
