"""Networks to train: a body by name with a new head (section 3.2 of the paper)."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from saln.data.torch_datasets import inference_batch_size
from saln.data.transforms import Normalization
from saln.errors import InputError
from saln.features.backbones import Network, build_network
from saln.messages import first_line, parameter
from saln.randomness import seeded_globally


def build_learner(
    name: str,
    n_classes: int,
    *,
    image_size: int,
    pretrained: bool,
    weights: Path | None = None,
    seed: int = 0,
) -> tuple[nn.Module, Normalization]:
    """Builds a network with one output a class.

    Args:
        name: One that ``saln list`` names; ``pixels`` gives
            multinomial logistic regression on the pixels.
        n_classes: Outputs of the new head.
        image_size: Pixels.
        pretrained: Start from the published weights where there are any.
        weights: Start from this state dict, all but its last layer; see
            :func:`saln.features.backbone_weights.read_weights`.
        seed: Decides all weights that are not loaded, the head's among them.

    Returns:
        The network, (b, 3, image_size, image_size) to (b, n_classes), and the
        normalization that its input needs.

    Raises:
        InputError: Unknown name, weights or image size that do not fit.
        WeightsError: The published weights cannot be downloaded.
        MissingExtraError: ``efficientnet-lite0`` without the extra ``offline``.
    """
    network = build_network(
        name, image_size=image_size, pretrained=pretrained, weights=weights, seed=seed
    )
    return network.with_head(_new_head(network, n_classes, seed)), network.normalization


def _new_head(network: Network, n_classes: int, seed: int) -> nn.Module:
    with seeded_globally(seed, "head"):
        head: nn.Module = nn.Linear(network.width, n_classes)
        if _acts_on_map(network.name):
            # A 1 x 1 convolution is a linear layer at every place of the map.
            head = nn.Conv2d(network.width, n_classes, kernel_size=1)
    return head


def _acts_on_map(name: str) -> bool:
    """Whether the head comes before the pooling."""
    return name.startswith("squeezenet")


def build_head(
    name: str,
    n_classes: int,
    *,
    image_size: int,
    pretrained: bool,
    weights: Path | None = None,
    seed: int = 0,
) -> tuple[nn.Module, FrozenBody]:
    """Builds the same network as :func:`build_learner` in two parts: to train the head alone.

    The arguments and what is raised are those of :func:`build_learner`; a network whose last
    layer is not a linear one after the pooling is refused with InputError.

    Returns:
        The head, (b, width) to (b, n_classes), and what gives it its input.
    """
    if _acts_on_map(name):
        raise InputError(
            f"the head of {name} comes before its pooling and cannot be trained alone; "
            f"leave {parameter('head_only')} out, or give another {parameter('learner')}, e.g. "
            "resnet18"
        )
    network = build_network(
        name, image_size=image_size, pretrained=pretrained, weights=weights, seed=seed
    )
    return _new_head(network, n_classes, seed), FrozenBody(network)


# Of torch.compile; another one in tests, which writes no code.
BACKEND = "inductor"


def compile_learner(learner: nn.Module) -> nn.Module:
    """Has torch.compile make the passes of a network, in place: the names of weights stay.

    A copy of the network is not compiled, but once it is, it takes the code that is there.
    """
    call: Callable[..., Tensor] = learner._call_impl

    # As nn.Module.compile, but in a frame of ours: torch.compile looks into none of torch's own,
    # such as nn.Sequential's, and would make code for each part by itself.
    def passes(images: Tensor) -> Tensor:
        return call(images)

    compiled: Any = torch.compile(passes, backend=BACKEND)
    learner._compiled_call_impl = compiled
    return learner


def check_compiler(device: torch.device) -> None:
    """Tries torch.compile on next to nothing; raises InputError where that fails."""
    try:
        torch.compile(lambda values: 2 * values + 1, backend=BACKEND)(torch.ones(2, device=device))
    except Exception as error:  # torch has no one class for all that may lack
        compiler = "a C++ compiler, such as g++" if device.type == "cpu" else "Triton"
        raise InputError(
            f"{parameter('compile')}: torch.compile does not work here ({first_line(error)}); "
            f"install {compiler}, or leave {parameter('compile')} out"
        ) from error


class FrozenBody:
    """A network below its head, in eval mode and without gradients; it is changed in place."""

    def __init__(self, network: Network) -> None:
        self.network = network
        network.body.eval().requires_grad_(False)

    def to(self, device: torch.device) -> FrozenBody:
        """Moves the weights."""
        self.network.body.to(device)
        return self

    def __call__(self, images: Tensor) -> Tensor:
        """Float images (b, 3, image_size, image_size) to what the head sees, (b, width)."""
        with torch.no_grad():
            # In parts: without gradients, memory need not hold more than a few images' maps.
            parts = images.split(inference_batch_size(images.device))
            return torch.cat([self.network.body(part) for part in parts])

    def with_head(self, head: nn.Module) -> nn.Module:
        """A copy of the whole network with a copy of a head."""
        return copy.deepcopy(self.network).with_head(copy.deepcopy(head))
