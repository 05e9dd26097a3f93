"""Kernel herding: the kept together have the mean features of all candidates."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from saln.selection.candidates import Candidates, Selection
from saln.selection.class_balance import class_quotas, with_balance
from saln.selection.contract import Selector
from saln.selection.hyperparameters import check_hyperparameters
from saln.selection.sampling import around_one


def herding_positions(
    features: Tensor,
    k: int,
    *,
    classes: Tensor | None = None,
    quotas: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Greedily keeps the mean of the kept close to the mean of all: unit rows, Euclidean.

    In turn the one that brings the mean of the kept closest to the target. Equal ones go to the
    lower position, up to the rounding of float64.

    Args:
        features: floating, (n, d), finite.
        k: How many to keep, 1 to n.
        classes: int64, (n,): numbers below the length of ``quotas``.
        quotas: int64, (C,): how many of each class to keep, ``k`` together. The target is then
            the mean of the classes' means, weighted by these.

    Returns:
        int64 (k,) positions in the order of the choice, and float64 (n,) how much each row agrees
        with the target; both on the CPU.
    """
    wide = normalize(around_one(features)[0], dim=1)
    cosines = (wide @ wide.T).double().cpu().numpy()
    n = len(cosines)
    weights = np.full(n, 1 / n)
    member = np.zeros(n, dtype=np.int64) if classes is None else classes.cpu().numpy()
    left = np.array([k]) if quotas is None else quotas.cpu().numpy().copy()
    if quotas is not None:
        weights = (left / np.bincount(member, minlength=len(left)).clip(1))[member] / k
    target = cosines @ weights
    # What is kept, and whose class is full, is no longer asked.
    barred = np.where(left[member] > 0, 0.0, -np.inf)
    kept, sums = np.empty(k, dtype=np.int64), np.zeros(n)
    # A zero row brings nothing: of others the squared length counts against them.
    lengths = np.diagonal(cosines) / 2
    for step in range(k):
        gains = (step + 1) * target - sums - lengths + barred
        best = int(gains.round(12).argmax())
        kept[step] = best
        sums += cosines[best]
        barred[best] = -np.inf
        left[member[best]] -= 1
        if left[member[best]] == 0:
            barred[member == member[best]] = -np.inf
    return torch.from_numpy(kept), torch.from_numpy(target)


class Herding(Selector):
    """Keeps candidates whose mean features are those of all candidates.

    Kernel herding (Welling, ICML 2009; arXiv 1203.3472), without replacement as in iCaRL
    (arXiv 1611.10307, algorithm 4): unit rows, in turn the one that brings the mean of the kept
    closest to the candidates' mean. Where gradients are close to linear in the features, that
    lowers the variance of the kept batch's gradient.

    Args:
        balance: Whether the believed classes are parted equally; the target is then the mean of
            the classes' means.

    Raises:
        InputError: ``balance`` is no truth value.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"features"})
    is_joint: ClassVar[bool] = True
    summary: ClassVar[str] = (
        "kernel herding: the kept examples' mean is close to that of all; costs cached features"
    )

    def __init__(self, balance: bool = False) -> None:
        self.balance = balance
        check_hyperparameters(self)
        object.__setattr__(self, "requires", with_balance(type(self).requires, self.balance))

    def choose(self, candidates: Candidates, k: int, generator: torch.Generator) -> Selection:
        """Keeps the greedy set; only balanced classes draw, who gives one more."""
        features = candidates.need("features")
        if not self.balance:
            positions, agreement = herding_positions(features, k)
            return Selection(positions, scores=agreement)
        classes, quotas = class_quotas(candidates.need("believed"), k, generator)
        positions, agreement = herding_positions(features, k, classes=classes, quotas=quotas)
        return Selection(positions, scores=agreement)
