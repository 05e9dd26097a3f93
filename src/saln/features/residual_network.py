"""A small residual network for small images, such as those of CIFAR-10."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import relu

WIDTH = 32


def small_residual_network(outputs: int, width: int = WIDTH) -> nn.Module:
    """Three blocks, the last two of which halve the image; its last layer is linear.

    The first has ``width`` channels, the next twice and four times as many.
    """
    body = nn.Sequential(
        *(_convolution(3, width), nn.ReLU(inplace=True)),
        ResidualBlock(width, width, 1),
        ResidualBlock(width, 2 * width, 2),
        ResidualBlock(2 * width, 4 * width, 2),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    )
    return nn.Sequential(body, nn.Linear(4 * width, outputs))


class ResidualBlock(nn.Module):
    """ResNet's basic block with a projection where the shape changes (arXiv 1512.03385)."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.first = _convolution(before, after, stride=stride)
        self.second = _convolution(after, after)
        same = before == after and stride == 1
        self.shortcut = nn.Identity() if same else _convolution(before, after, 1, stride)

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (b, before, h, w) to (b, after, h / stride, w / stride)."""
        return relu(self.second(relu(self.first(maps))) + self.shortcut(maps))


def _convolution(before: int, after: int, size: int = 3, stride: int = 1) -> nn.Sequential:
    layer = nn.Conv2d(before, after, size, stride, padding=size // 2, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(after))
