"""torchdata's StatefulDataLoader on chosen digits: it saves and loads the position itself.

python examples/stateful_dataloader.py
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.data import TensorDataset
from torchdata.stateful_dataloader import StatefulDataLoader

import saln
from saln.data import ArrayImages, load_dataset


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


def loader() -> StatefulDataLoader[list[Tensor]]:
    """Loads the chosen digits in two workers, whose seeds are the batches'."""
    dataset, batches = digits()
    return StatefulDataLoader(
        dataset, batch_sampler=batches, num_workers=2, generator=batches.generator
    )


def main(steps: int = 5) -> list[list[int]]:
    """Stops after some steps of an epoch; another loader gives the labels that were left."""
    first = loader()
    seen = iter(first)
    for _ in range(steps):
        next(seen)
    state = first.state_dict()
    del seen
    again = loader()
    again.load_state_dict(state)
    rest = [labels.tolist() for _, labels in again]
    print(f"{steps} batches, a stop, and the {len(rest)} that were left")
    return rest


if __name__ == "__main__":
    main()
