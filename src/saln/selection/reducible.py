"""What can still be learned: the learner's last loss, less what the features lose."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor

from saln.selection.candidates import Candidates, Selection
from saln.selection.class_balance import keep_highest, with_balance
from saln.selection.hyperparameters import Bounds, check_hyperparameters
from saln.selection.remembered_loss import LossMemory, LossRemembering


def smoothed_losses(
    losses: Tensor, ages: Tensor, near_losses: Tensor, near_ages: Tensor, smoothing: float
) -> Tensor:
    """Losses that were known some time ago, brought up to date by those of nearest neighbors.

    A loss that is ``a`` epochs old keeps ``(1 - smoothing) ** a`` of itself. The rest is the mean
    of the neighbors' fresher losses, each weighted by the same power of its own age. Where no
    neighbor is fresher, a loss stays as it is.

    Args:
        losses: floating, (n,).
        ages: floating, (n,): epochs, at least 0; infinity for what was never known.
        near_losses: floating, (n, m): the neighbors'.
        near_ages: floating, (n, m).
        smoothing: Above 0, at most 1.

    Returns:
        float64, (n,).
    """
    losses, keep = losses.double(), 1 - smoothing
    if near_ages.shape[1] == 0:
        return losses
    # Counted from the freshest, so that no power of an old age is rounded to 0.
    older = near_ages.double() - near_ages.amin(dim=1, keepdim=True)
    weights = (keep**older).where(near_ages < ages[:, None], 0.0)
    total = weights.sum(dim=1)
    own = keep ** ages.double()
    mixed = own * losses + (1 - own) * (weights * near_losses.double()).sum(dim=1) / total
    return mixed.where(total > 0, losses)


class Reducible(LossRemembering):
    """Keeps the highest of the learner's last loss less the features' loss on the same label.

    RHO-LOSS (arXiv 2206.07137, equation 3) without its costs: the learner's loss is that of the
    last time that the example was trained, so nothing is scored; the irreducible loss is what the
    features as a teacher lose on the given label, by the *other* examples alone
    (:func:`saln.features_as_teacher`), so no reference model is trained. A wrong label has a high
    loss in both. What was never trained counts as the highest loss that is known. Ours is to bring
    old losses up to date by those of the nearest neighbors (:func:`smoothed_losses`): then what was
    never trained has the neighbors' loss, so that fewer wrong labels are tried.

    Args:
        balance: Which share of the kept is parted equally among the believed classes, in [0, 1].
        smoothing: Which share of a loss each epoch hands over to the neighbors', in [0, 1].

    Raises:
        InputError: An argument that is not in [0, 1].
    """

    requires: ClassVar[frozenset[str]] = frozenset({"teacher_losses"})
    summary: ClassVar[str] = (
        "the last loss minus the features' loss (RHO-LOSS, no second network); costs features once"
    )

    _added: ClassVar[Mapping[str, Any]] = {"smoothing": 0.0}

    def __init__(
        self,
        balance: Annotated[float, Bounds(low=0, high=1)] = 0.0,
        *,
        smoothing: Annotated[float, Bounds(low=0, high=1)] = 0.0,
    ) -> None:
        self.balance = balance
        self.smoothing = smoothing
        check_hyperparameters(self)
        near = {"neighbors"} if self.smoothing else set()
        requires = with_balance(type(self).requires | near, self.balance)
        object.__setattr__(self, "requires", requires)
        self._losses = LossMemory(dated=bool(self.smoothing))

    def choose(self, candidates: Candidates, k: int, generator: torch.Generator) -> Selection:
        """Keeps the highest differences; only balanced classes draw, who gives one more."""
        memory, indices = self._losses, candidates.indices
        learner = memory.get(indices).double()
        if self.smoothing:
            near = candidates.need("neighbors").cpu()
            known = memory.ages(indices), memory.get(near), memory.ages(near)
            learner = smoothed_losses(learner, *known, self.smoothing)
        scores = learner - candidates.need("teacher_losses").double().cpu()
        positions = keep_highest(candidates, scores, k, generator, self.balance)
        return Selection(positions, scores=scores)
