"""What can still be learned: the learner's last loss, less what the features lose."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch

from saln.selection.candidates import Candidates, Selection
from saln.selection.class_balance import keep_highest, with_balance
from saln.selection.hyperparameters import Bounds, check_hyperparameters
from saln.selection.remembered_loss import LossMemory, LossRemembering


class Reducible(LossRemembering):
    """Keeps the highest of the learner's last loss less the features' loss on the same label.

    RHO-LOSS (arXiv 2206.07137, equation 3) without its costs: the learner's loss is that of the
    last time that the example was trained, so nothing is scored; the irreducible loss is what the
    features as a teacher lose on the given label, by the *other* examples alone
    (:func:`saln.features_as_teacher`), so no reference model is trained. A wrong label has a high
    loss in both. What was never trained counts as the highest loss that is known.

    Args:
        balance: Which share of the kept is parted equally among the believed classes, in [0, 1].

    Raises:
        InputError: ``balance`` is not in [0, 1].
    """

    requires: ClassVar[frozenset[str]] = frozenset({"teacher_losses"})
    summary: ClassVar[str] = (
        "the last loss minus the features' loss (RHO-LOSS, no second network); costs features once"
    )

    def __init__(self, balance: Annotated[float, Bounds(low=0, high=1)] = 0.0) -> None:
        self.balance = balance
        check_hyperparameters(self)
        object.__setattr__(self, "requires", with_balance(type(self).requires, self.balance))
        self._losses = LossMemory()

    def choose(self, candidates: Candidates, k: int, generator: torch.Generator) -> Selection:
        """Keeps the highest differences; only balanced classes draw, who gives one more."""
        learner = self._losses.get(candidates.indices).double()
        scores = learner - candidates.need("teacher_losses").double().cpu()
        positions = keep_highest(candidates, scores, k, generator, self.balance)
        return Selection(positions, scores=scores)
