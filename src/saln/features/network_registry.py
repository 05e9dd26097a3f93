"""Networks by name: what builds each, and its help text.

A network is one function, which builds it::

    @register_network("my-lib:", "a network of my-lib", argument="NAME")
    def my_lib(request: NetworkRequest) -> BuiltNetwork:
        return BuiltNetwork(my_lib.create(request.argument, pretrained=request.pretrained))

Taking its head off, weights from a file, the check of the image size and the hash of the weights
are the same for all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from PIL import Image
from torch import Tensor, nn

from saln.data.name_registry import NameRegistry, RegisteredName
from saln.data.transforms import IMAGENET, Normalization

# Pixels that networks made for ImageNet expect.
DEFAULT_IMAGE_SIZE = 224
# Below this many pixels the last feature map of an ImageNet network is smaller than 3 x 3.
MIN_FEATURE_SIZE = 96


class NetworkRequest(NamedTuple):
    """What a builder is called with."""

    name: str  # The whole name
    argument: str  # What stands behind the prefix
    image_size: int  # Pixels; 0 for its own, asked of those alone that have ``own_size``
    pretrained: bool  # Whether the published weights are wanted
    named: str  # The parameter that a file of weights would be given as, for messages


class Preprocessing(NamedTuple):
    """What a network's own library does to an image before the network sees it."""

    # An RGB image to float32, (3, image_size, image_size); can be pickled.
    transform: Callable[[Image.Image], Tensor]
    facts: Mapping[str, Any]  # What it does, as JSON holds it: rows made by another are kept apart


class BuiltNetwork(NamedTuple):
    """A network with random or published weights.

    Attributes:
        module: Gives (b, outputs) for float images (b, 3, image_size, image_size).
        state: Published weights that are not in it yet; None where there are none, or they are.
        normalization: What it expects of its input.
        head: The dotted name of its last layer; found when it is None: the last linear layer, or
            the last convolution where there is none. Empty where the module gives features.
        width: How many features an image has, where ``head`` is empty; 0: as many as it gives.
        image_size: The pixels that it was built for, where its own were asked for.
        preprocessing: For features, in the place of a resize of the shorter side, a center crop
            and ``normalization``.
        passed_over: Parts of a file of weights that it has no place for, such as a text encoder.
        weights_from: In words, where its weights are from, if they cannot be a file's.
        name: In the place of the one that was asked for, in the names of stores.
    """

    module: nn.Module
    state: dict[str, Tensor] | None = None
    normalization: Normalization = IMAGENET
    head: str | None = None
    width: int = 0
    image_size: int = 0
    preprocessing: Preprocessing | None = None
    passed_over: tuple[str, ...] = ()
    weights_from: str = ""
    name: str = ""


@dataclass(frozen=True)
class NetworkKind(RegisteredName):
    """A registered network, a prefix or a family; see :func:`register_network` for its fields."""

    min_feature_size: int = MIN_FEATURE_SIZE
    published: bool = True
    own_size: bool = False


Builder = Callable[[NetworkRequest], BuiltNetwork]
NETWORKS: NameRegistry[NetworkKind] = NameRegistry(
    "network", "saln.features.network_builders", "saln.networks", NetworkKind
)


def register_network(
    name: str,
    summary: str,
    *,
    argument: str = "",
    needs: str = "",
    members: Callable[[], Iterable[str]] | None = None,
    min_feature_size: int = MIN_FEATURE_SIZE,
    published: bool = True,
    own_size: bool = False,
) -> Callable[[Builder], Builder]:
    """Registers a function as the builder of a network, as a decorator.

    A package that is installed can register one by an entry point of the group
    ``saln.networks`` that leads to the function.

    Args:
        name: What ``--learner``, ``--backbone`` and :func:`saln.extract_features` take; a prefix
            ends in a colon, such as ``timm:``.
        summary: What it is, in a line of ``saln list``.
        argument: What stands behind a prefix, such as ``NAME``.
        needs: What must be there first, e.g. ``extra 'timm'``.
        members: For a family without a prefix: gives the names that are in it.
        min_feature_size: Fewest pixels for features, where none are asked for.
        published: Whether its features mean something without a file of weights.
        own_size: Whether each has its own image size, for features where none is asked for.

    Raises:
        InputError: Another function has the name already, or it is no name.
    """
    return NETWORKS.register(
        name,
        summary,
        argument=argument,
        needs=needs,
        members=members,
        min_feature_size=min_feature_size,
        published=published,
        own_size=own_size,
    )
