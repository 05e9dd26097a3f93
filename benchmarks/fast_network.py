"""A network that learns CIFAR-10 in seconds on one GPU, and how its images and rates change.

In the manner of arXiv 2404.00498 (K. Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU"),
whose numbers these are: a frozen whitening convolution of 2x2 patches (section 3.1), identity
as the first weights (3.2), alternating flip (3.6). How it is trained: ``fast_lanes.py``.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from saln.randomness import derive_generator, seeded_globally

__all__ = ["PIXELS", "FastNetwork", "cut", "flip_and_shift_codes", "triangle", "whitening"]

PIXELS = 2  # Of the shifts
REACH = 2 * PIXELS + 1
WIDTHS = (64, 256, 256)  # At width 64; a network of another width has them in proportion
SCALE = 1 / 9  # Of the head's outputs
FIRST, LAST, PEAK = 0.2, 0.07, 0.23  # Of the learning rate; when it is highest


def whitening(images: Tensor, epsilon: float = 5e-4) -> Tensor:
    """Filters that make 2x2 patches uncorrelated, and their negatives: float32, (24, 3, 2, 2).

    Args:
        images: floating, (n, 3, h, w), as the network sees them.
        epsilon: Added to each variance.
    """
    patches = nn.functional.unfold(images.double(), 2).transpose(1, 2).flatten(0, 1)
    values, vectors = torch.linalg.eigh((patches.T @ patches / len(patches)).cpu())
    filters = (vectors / (values + epsilon).sqrt()).T.reshape(-1, 3, 2, 2)
    return torch.cat([filters, -filters]).float()


class FastNetwork(nn.Sequential):
    """Whitening, three groups of two convolutions, and a linear head; logits, (b, C).

    Args:
        n_classes: C.
        width: 64 is the paper's; 16 has a sixteenth of the products.
        seed: Decides the first weights.
        filters: What :func:`whitening` gave.
    """

    def __init__(self, n_classes: int, width: int, seed: int, filters: Tensor) -> None:
        with seeded_globally(seed, "fast-network"):
            channels = [len(filters), *(width * each // WIDTHS[0] for each in WIDTHS)]
            first = nn.Conv2d(3, len(filters), 2)
            groups = (_group(*pair) for pair in pairwise(channels))
            head = nn.Linear(channels[-1], n_classes, bias=False)
            super().__init__(first, nn.GELU(), *groups, nn.MaxPool2d(3), nn.Flatten(), head)
        with torch.no_grad():
            first.weight.copy_(filters)
            first.bias.zero_()  # type: ignore[union-attr]
        first.weight.requires_grad_(False)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, images: Tensor) -> Tensor:
        """Logits of normalized images, (b, 3, 32, 32)."""
        outputs: Tensor = super().forward(images)  # type: ignore[no-untyped-call]
        return SCALE * outputs


def _group(inside: int, outside: int) -> nn.Sequential:
    first, second = (nn.Conv2d(n, outside, 3, padding=1, bias=False) for n in (inside, outside))
    for layer in (first, second):
        # What comes in goes through, as far as there are channels for it.
        nn.init.dirac_(layer.weight.data[: layer.in_channels])
    norms = [nn.BatchNorm2d(outside, momentum=0.4) for _ in range(2)]
    for norm in norms:
        norm.weight.requires_grad_(False)
    return nn.Sequential(
        first, nn.MaxPool2d(2), norms[0], nn.GELU(), second, norms[1], nn.GELU()
    )  # fmt: skip


def flip_and_shift_codes(n: int, passes: int, seed: int) -> Tensor:
    """How each pass changes each example: int64, (passes, n): ``flip * 25 + down * 5 + right``.

    A random half is flipped in the first pass, the other half in the second, and so on; shifts
    are drawn anew in every pass.
    """
    generator = derive_generator(seed, "fast-augmentation")
    flipped = torch.rand(n, generator=generator) < 0.5
    shifts = torch.randint(REACH**2, (passes, n), generator=generator)
    turn = torch.arange(passes)[:, None] % 2 == 1
    return shifts + REACH**2 * (flipped ^ turn)


def cut(padded: Tensor, rows: Tensor, codes: Tensor) -> Tensor:
    """Flipped and shifted images: uint8, (b, h, w, 3), of padded ones, (n, h + 4, w + 4, 3)."""
    size = padded.shape[1] - 2 * PIXELS
    steps = torch.arange(size, device=padded.device)
    across = torch.where((codes >= REACH**2)[:, None], size - 1 - steps, steps)
    down, right = (codes // REACH % REACH)[:, None] + steps, (codes % REACH)[:, None] + across
    return padded[rows[:, None, None], down[:, :, None], right[:, None]]


def triangle(steps: int) -> Tensor:
    """Learning rates as shares of the highest, (steps,): up for a quarter, then down."""
    done = torch.arange(steps, dtype=torch.float64) / steps
    up = FIRST + (1 - FIRST) * done / PEAK
    down = 1 + (LAST - 1) * (done - PEAK) / (1 - PEAK)
    return torch.where(done < PEAK, up, down).float()
