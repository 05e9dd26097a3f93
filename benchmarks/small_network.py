"""The library's small residual network, as the studies from scratch train it."""

from __future__ import annotations

import torch
from torch import nn

from saln.features.network_builders import small_residual_network
from saln.randomness import seeded_globally

__all__ = ["small_network"]


def small_network(n_classes: int, width: int, seed: int) -> nn.Module:
    """The network with weights that the seed alone decides, on the CPU."""
    with seeded_globally(seed, "small-network"):
        network = small_residual_network(n_classes, width)
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]
