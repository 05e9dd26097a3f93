"""Networks by name, without their last layer.

A learner puts a new head on one (`training/learners.py`); a backbone is used as it is,
frozen: its pooled penultimate output is the features.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from saln.data.arguments import as_path
from saln.data.transforms import IMAGENET, EvaluationTransform, Normalization
from saln.errors import InputError
from saln.features.backbone_weights import fit_weights, read_weights
from saln.features.network_registry import (
    DEFAULT_IMAGE_SIZE,
    NETWORKS,
    NetworkRequest,
    Preprocessing,
)
from saln.messages import Placeholder, first_line, parameter
from saln.randomness import seeded_globally


@dataclass(frozen=True)
class Network:
    """A network whose last layer has been taken off."""

    name: str  # As on the command line
    body: nn.Module  # With ``nn.Identity`` in the place of its head
    head: str  # The dotted name of that place; empty when the head goes behind the body
    width: int  # How many features the body gives for an image
    normalization: Normalization  # What the network expects of its input
    image_size: int  # Pixels that it was built and checked for
    # Its library's, for features; None where it is resized, cropped and normalized as all are.
    own_preprocessing: Preprocessing | None = None

    @property
    def transform(self) -> Callable[[Image.Image], Tensor]:
        """Gives float32, (3, image_size, image_size), of an image, for features."""
        if self.own_preprocessing is not None:
            return self.own_preprocessing.transform
        return EvaluationTransform(self.image_size, self.normalization)

    @property
    def preprocessing(self) -> dict[str, Any]:
        """What ``transform`` does, as JSON holds it."""
        facts: dict[str, Any] = {
            "image_size": self.image_size,
            "mean": list(self.normalization.mean),
            "std": list(self.normalization.std),
        }
        if self.own_preprocessing is not None:
            facts["own"] = dict(self.own_preprocessing.facts)
        return facts

    def with_head(self, layer: nn.Module) -> nn.Module:
        """The whole network with ``layer`` as its head."""
        # Networks without a place for a head get one behind.
        if not self.head:
            return nn.Sequential(self.body, layer)
        _set_module(self.body, self.head, layer)
        return self.body

    def identity(self) -> str:
        """A hash of all weights and buffers."""
        return hash_of_weights(self.body, self.name)


def hash_of_weights(module: nn.Module, name: str = "") -> str:
    """A hash of a network's name, weights and buffers."""
    digest = hashlib.blake2b(name.encode(), digest_size=16)
    for key, value in module.state_dict().items():
        # The name too: two layers may have exchanged their weights.
        digest.update(key.encode())
        # As bytes: NumPy knows no bfloat16.
        plain = value.detach().cpu().contiguous().view(-1).view(torch.uint8)
        digest.update(plain.numpy().data)
    return digest.hexdigest()


def _set_module(module: nn.Module, name: str, replacement: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(module.get_submodule(parent), child, replacement)


def _find_head(module: nn.Module) -> str:
    """The last linear layer, or the last convolution where there is none (SqueezeNet)."""
    for kind in (nn.Linear, nn.Conv2d):
        names: list[str] = [n for n, layer in module.named_modules() if isinstance(layer, kind)]
        if names:
            return names[-1]
    raise InputError(f"{type(module).__name__} has no linear layer to replace by a new head")


def build_network(
    name: str,
    *,
    image_size: int | None,
    pretrained: bool,
    weights: Path | None = None,
    seed: int = 0,
    named: str = "weights",
) -> Network:
    """Builds a network by a name of ``saln list`` and takes its head off.

    The image size is checked by a forward pass of one black image; None stands for the network's
    own, which is 224 where it has none. ``weights`` is a state dict on disk, in the place of the
    published ones, which ``pretrained`` loads; messages call it ``named``. The seed decides the
    weights that are not loaded.

    Raises:
        InputError: Unknown name, weights that do not fit, or an image size that the
            network cannot take.
        WeightsError: The published weights cannot be downloaded.
        MissingExtraError: A network of a package that is not installed.
    """
    kind, argument = NETWORKS.find(name)
    pixels = image_size or (0 if kind.own_size else DEFAULT_IMAGE_SIZE)
    # A file takes the place of a download: then nothing is fetched.
    published = pretrained and weights is None
    with seeded_globally(seed, "network"):
        built = kind.make(NetworkRequest(name, argument, pixels, published, named))
    module, head = built.module, _find_head(built.module) if built.head is None else built.head
    if weights is not None:
        if built.weights_from or not module.state_dict():
            reason = built.weights_from and f"takes its weights from {built.weights_from}"
            raise InputError(f"{name} {reason or 'has no weights'}; leave {parameter(named)} out")
        file = as_path(weights, "weights")
        ignored = (head, *built.passed_over)
        fit_weights(module, ignored, read_weights(file), f"weights file {file}")
    elif built.state is not None:
        fit_weights(module, (head,), built.state, f"the published weights of {name}")
    width = built.width
    if head:
        # Of a linear layer (outputs, inputs), of a convolution (outputs, inputs, 1, 1).
        width = module.get_parameter(f"{head}.weight").shape[1]
        _set_module(module, head, nn.Identity())
    # Channels beside one another: the same numbers, up to 1.5 times as fast on a CPU.
    module.to(memory_format=torch.channels_last)
    network = Network(
        built.name or name, module, head, width, built.normalization, pixels or built.image_size,
        built.preprocessing,
    )  # fmt: skip
    size = network.image_size
    shape = tuple(_rows_of_black(module, size, network.name, ", e.g. 224").shape)
    if len(shape) != 2 or shape != (1, width or shape[1]):
        raise InputError(
            f"{network.name} gives features of shape {shape} for one image of {size} pixels, "
            f"expected (1, {width or 'width'}); give another {parameter('image_size')}, e.g. 224"
        )
    return dataclasses.replace(network, width=int(shape[1]))


def _rows_of_black(body: nn.Module, size: int, named: str, hint: str = "") -> Any:
    """What a network gives for a black image, made where its weights are: they are not moved."""
    try:
        # In eval mode: batch normalization refuses one image in training.
        with inference_mode_of(body):
            return body(torch.zeros(1, 3, size, size, device=device_of(body)))
    except Exception as error:  # networks refuse a size in many ways; all mean the same here
        raise InputError(
            f"{named} cannot take images of {size} pixels ({first_line(error)}); give another "
            f"{parameter('image_size')}{hint}"
        ) from error


def device_of(module: nn.Module) -> torch.device | None:
    """Where a network's weights are; None where it has none."""
    weights = next(module.parameters(), None)
    return None if weights is None else weights.device


def build_backbone(
    name: str, *, image_size: int | None = None, weights: Path | None = None
) -> Network:
    """Builds a frozen network with published or given weights, in eval mode.

    The image size is its own, or 224, when not given.

    Raises:
        InputError: As :func:`build_network`; or the network has no published weights
            and none are given.
        WeightsError: The published weights cannot be downloaded.
        MissingExtraError: A network of a package that is not installed.
    """
    if weights is None and not NETWORKS.find(name)[0].published:
        raise InputError(
            f"{name} has no pretrained weights, so its features mean nothing; "
            f"give {parameter('backbone_weights', Placeholder('FILE'))} or another "
            f"{parameter('backbone')}"
        )
    network = build_network(
        name, image_size=image_size, pretrained=True, weights=weights, named="backbone_weights"
    )
    network.body.eval().requires_grad_(False)
    return network


def wrap_backbone(
    module: nn.Module, *, image_size: int, normalization: Normalization = IMAGENET
) -> Network:
    """Takes a network of the caller's own as a backbone.

    It gives (b, width) for float images (b, 3, image_size, image_size), in eval mode; else
    InputError. Its weights, its layers' modes and its device stay as they are.
    """
    output = _rows_of_black(module, image_size, f"the backbone {type(module).__name__}")
    if not isinstance(output, Tensor) or output.ndim != 2 or len(output) != 1:
        shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise InputError(
            f"the backbone {type(module).__name__} gives {shape} for one image, expected one row "
            "(1, width); take its head off and flatten what is left"
        )
    # The layers too: two networks without weights may still differ.
    layers = "" if " at 0x" in repr(module) else repr(module)
    key = hashlib.blake2b(layers.encode(), digest_size=4).hexdigest()
    name = f"{type(module).__name__}-{key}"
    return Network(name, module, "", output.shape[1], normalization, image_size)


@contextlib.contextmanager
def inference_mode_of(module: nn.Module) -> Iterator[None]:
    """Runs the block without gradients and in eval mode; puts each layer's mode back."""
    training = [layer for layer in module.modules() if layer.training]
    module.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        for layer in training:
            layer.training = True


def feature_size(name: str, image_size: int) -> int | None:
    """The image size for features, where none is asked for.

    The learner's image size; for networks made for ImageNet at least 96 pixels; None for those
    that bring their own.
    """
    kind = NETWORKS.find(name)[0]
    return None if kind.own_size else max(image_size, kind.min_feature_size)
