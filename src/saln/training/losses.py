"""What the loss compares outputs with, and how: one number an example, before any weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

# Given labels, int64 (m,), and positions in the training examples, int64 (m,) -> targets: class
# numbers, int64 (m,), or shares of the classes, floating (m, C).
TargetsOf = Callable[[Tensor, Tensor], Tensor]


def generalized_cross_entropy(outputs: Tensor, targets: Tensor, q: float) -> Tensor:
    """``(1 - p ** q) / q`` of the probability ``p`` of an example's right class: floating, (m,).

    Between cross-entropy (``q`` near 0) and half the absolute error (``q = 1``), which wrong
    labels move less: Zhang and Sabuncu, Generalized Cross Entropy Loss for Training Deep Neural
    Networks with Noisy Labels, 2018, equation 6. ``q`` is in (0, 1], ``outputs`` are logits,
    floating, (m, C); ``targets`` classes, int64, (m,), or shares of them, floating, (m, C), by
    which the losses of the classes are weighed.
    """
    # By expm1, as 1 - p ** q has lost its digits where q is small.
    losses = torch.expm1(q * torch.log_softmax(outputs, dim=1)) / -q
    if not targets.is_floating_point():
        return losses.gather(1, targets[:, None])[:, 0]
    return (losses * targets).sum(dim=1)


@dataclass(frozen=True)
class Objective:
    """The loss of a training step; without arguments cross-entropy of the labels as given.

    Attributes:
        targets: What the outputs are compared with; None: the given labels.
        smoothing: The share of every target that all classes get alike, in [0, 1].
        q: Of :func:`generalized_cross_entropy`; None: cross-entropy.
    """

    targets: TargetsOf | None = None
    smoothing: float = 0.0
    q: float | None = None

    def __call__(self, outputs: Tensor, labels: Tensor, indices: Tensor) -> Tensor:
        """The loss of each example, floating, (m,), of logits, floating, (m, C).

        ``labels`` are int64, (m,), as given; ``indices``, int64, (m,), on any device, say which of
        the training examples they are.
        """
        targets = labels
        if self.targets is not None:
            targets = self.targets(labels, indices).to(outputs.device)
        if self.q is None and not targets.is_floating_point():
            return cross_entropy(outputs, targets, reduction="none", label_smoothing=self.smoothing)
        if self.smoothing:
            classes = outputs.shape[1]
            shares = targets if targets.is_floating_point() else one_hot(targets, classes).float()
            targets = (1 - self.smoothing) * shares + self.smoothing / classes
        if targets.is_floating_point():
            targets = targets.to(outputs.dtype)
        if self.q is None:
            return cross_entropy(outputs, targets, reduction="none")
        return generalized_cross_entropy(outputs, targets, self.q)


# What every arm trains with that names nothing else.
GIVEN_LABELS = Objective()
