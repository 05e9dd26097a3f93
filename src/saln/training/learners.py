"""Networks to train: a body by name with a new head (section 3.2 of the paper)."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from saln.data.augmentation import Normalisation
from saln.features.backbones import build_network
from saln.randomness import seeded_globally

__all__ = ["build_learner"]


def build_learner(
    name: str,
    n_classes: int,
    *,
    image_size: int,
    pretrained: bool,
    weights: Path | None = None,
    seed: int = 0,
) -> tuple[nn.Module, Normalisation]:
    """Builds a network with one output a class.

    Args:
        name: See :func:`saln.features.backbones.network_names`; ``pixels`` gives
            multinomial logistic regression on the pixels.
        n_classes: Outputs of the new head.
        image_size: Pixels.
        pretrained: Start from the published weights where there are any.
        weights: Start from this state dict.
        seed: Decides all weights that are not loaded, the head's among them.

    Returns:
        The network, (b, 3, image_size, image_size) to (b, n_classes), and the
        normalisation that its input needs.

    Raises:
        InputError: Unknown name, weights or image size that do not fit.
        WeightsError: The published weights cannot be downloaded.
        MissingExtraError: ``efficientnet-lite0`` without the extra ``offline``.
    """
    network = build_network(
        name, image_size=image_size, pretrained=pretrained, weights=weights, seed=seed
    )
    with seeded_globally(seed, "head"):
        head: nn.Module = nn.Linear(network.width, n_classes)
        if name.startswith("squeezenet"):  # its head acts on a map, before the pooling
            head = nn.Conv2d(network.width, n_classes, kernel_size=1)
    return network.with_head(head), network.normalisation
