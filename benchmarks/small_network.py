"""A small residual network for images of 32 pixels, as the studies from scratch train it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from saln.randomness import seeded_globally

__all__ = ["SmallResidualNetwork", "small_network"]


class SmallResidualNetwork(nn.Module):
    """One convolution, three blocks of two (the last two halve the image), a linear layer.

    ResNet's basic blocks (arXiv 1512.03385, section 4.2, option B), one a stage.

    Args:
        n_classes: C.
        width: Channels of the first stage; the next have twice and four times as many.
    """

    def __init__(self, n_classes: int, width: int) -> None:
        super().__init__()
        self.stem = _convolution(3, width)
        self.blocks = nn.Sequential(
            _Block(width, width, 1), _Block(width, 2 * width, 2), _Block(2 * width, 4 * width, 2)
        )
        self.head = nn.Linear(4 * width, n_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Float images (b, 3, 32, 32) to logits (b, C)."""
        maps = self.blocks(relu(self.stem(images)))
        logits: Tensor = self.head(maps.mean(dim=(2, 3)))
        return logits


class _Block(nn.Module):
    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.first = _convolution(before, after, stride=stride)
        self.second = _convolution(after, after)
        same = before == after and stride == 1
        self.shortcut = nn.Identity() if same else _convolution(before, after, 1, stride)

    def forward(self, maps: Tensor) -> Tensor:
        return relu(self.second(relu(self.first(maps))) + self.shortcut(maps))


def _convolution(before: int, after: int, size: int = 3, stride: int = 1) -> nn.Sequential:
    layer = nn.Conv2d(before, after, size, stride, padding=size // 2, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(after))


def small_network(n_classes: int, width: int, seed: int) -> nn.Module:
    """The network with weights that the seed alone decides, on the CPU."""
    with seeded_globally(seed, "small-network"):
        network = SmallResidualNetwork(n_classes, width)
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]
