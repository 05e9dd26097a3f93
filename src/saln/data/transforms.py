"""From an image to the tensor that a network sees.

Training images are augmented as in the paper (section 3.1); images for evaluation
and for features are only resized, cropped and normalized. Every augmentation takes
its randomness from the generator it is given: what happens to an example depends on
(seed, epoch, example) alone, so that all arms of a comparison see the same images.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from saln._torchvision import torchvision
from saln.data.arguments import as_array, as_whole
from saln.errors import InputError

functional = torchvision.transforms.functional
BILINEAR = torchvision.transforms.InterpolationMode.BILINEAR


@dataclass(frozen=True)
class Normalization:
    """Per-channel mean and standard deviation of pixels in [0, 1]."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            given = getattr(self, name)
            values = as_array(given, name)
            good = values.shape == (3,) and values.dtype.kind in "iuf"
            if not good or not np.isfinite(values).all() or (name == "std" and values.min() <= 0):
                raise InputError(
                    f"{name}={given!r} is not allowed; give three numbers, one a color"
                    + (", above 0" if name == "std" else "")
                )
            object.__setattr__(self, name, tuple(map(float, values)))

    def __call__(self, image: Image.Image) -> Tensor:
        """Gives float32, (3, height, width)."""
        # The numbers of torchvision's to_tensor and normalize, in half of their time.
        pixels = np.asarray(image).transpose(2, 0, 1).astype(np.float32, order="C")
        pixels /= np.float32(255)
        pixels -= _planes(self.mean)
        pixels /= _planes(self.std)
        return torch.from_numpy(pixels)


@functools.cache
def _planes(values: tuple[float, ...]) -> npt.NDArray[np.float32]:
    """One number for each of an image's planes."""
    return np.array(values, dtype=np.float32)[:, None, None]


IMAGENET = Normalization(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


class Augmentation(Protocol):
    """A random transform for training."""

    def __call__(self, image: Image.Image, generator: torch.Generator) -> Tensor:
        """Gives float32, (3, size, size), drawing only from ``generator``."""


def _uniform(generator: torch.Generator, low: float, high: float) -> float:
    return low + (high - low) * torch.rand((), generator=generator, dtype=torch.float64).item()


@dataclass(frozen=True)
class _SizedTransform:
    size: int
    normalization: Normalization = IMAGENET

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", as_whole(self.size, "size", 1))  # frozen from here on


@dataclass(frozen=True)
class EvaluationTransform(_SizedTransform):
    """Resize (shorter side), center crop, normalize: for evaluation and features."""

    def __call__(self, image: Image.Image) -> Tensor:
        """Gives float32, (3, size, size)."""
        # One number: the shorter side. Two would squeeze the picture.
        resized = functional.resize(image, [self.size], interpolation=BILINEAR)
        return self.normalization(functional.center_crop(resized, [self.size, self.size]))


@dataclass(frozen=True)
class PhotoAugmentation(_SizedTransform):
    """The paper's augmentation (section 3.1).

    Resize to (size, size), horizontal flip with probability 1/2, rotation within
    ±15 degrees, jitter of brightness, contrast and saturation by up to 20% and of hue
    by up to 0.1 of the color circle in random order, normalization. The resize comes
    first, which costs less and is the same up to interpolation.
    """

    degrees: float = 15.0
    jitter: float = 0.2
    hue: float = 0.1

    def __call__(self, image: Image.Image, generator: torch.Generator) -> Tensor:
        """Gives float32, (3, size, size), drawing only from ``generator``."""
        image = functional.resize(image, [self.size, self.size], interpolation=BILINEAR)
        if _uniform(generator, 0, 1) < 0.5:
            image = functional.hflip(image)
        angle = _uniform(generator, -self.degrees, self.degrees)
        image = functional.rotate(image, angle, interpolation=BILINEAR)
        # All drawn before the order is: how many numbers are drawn must not depend on what they
        # are.
        factors = [_uniform(generator, 1 - self.jitter, 1 + self.jitter) for _ in range(3)]
        hue = _uniform(generator, -self.hue, self.hue)
        adjusted = ("brightness", "contrast", "saturation", "hue")
        steps = list(zip(adjusted, (*factors, hue), strict=True))
        # In random order, as torchvision's ColorJitter: the steps do not commute.
        for number in torch.randperm(4, generator=generator).tolist():
            what, factor = steps[number]
            image = getattr(functional, f"adjust_{what}")(image, factor)
        return self.normalization(image)


@dataclass(frozen=True)
class DigitAugmentation(_SizedTransform):
    """Keeps a digit a digit: rotation within ±10 degrees, shift by up to 1/8, no flip.

    A mirrored 2 is no 2, and a 6 turned by 180 degrees is a 9.
    """

    degrees: float = 10.0
    shift: float = 0.125

    def __call__(self, image: Image.Image, generator: torch.Generator) -> Tensor:
        """Gives float32, (3, size, size), drawing only from ``generator``."""
        image = functional.resize(image, [self.size, self.size], interpolation=BILINEAR)
        angle = _uniform(generator, -self.degrees, self.degrees)
        reach = self.shift * self.size
        shift = [round(_uniform(generator, -reach, reach)) for _ in range(2)]
        image = functional.affine(
            image, angle=angle, translate=shift, scale=1.0, shear=[0.0], interpolation=BILINEAR
        )
        return self.normalization(image)
