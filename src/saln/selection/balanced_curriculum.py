"""One rule for clean and for wrong labels: balanced classes, right labels, easy ones first."""

from __future__ import annotations

from typing import Annotated, ClassVar

from torch import Tensor

from saln.selection.candidates import Candidates
from saln.selection.coherence import log_confidence
from saln.selection.curriculum import Curriculum
from saln.selection.hyperparameters import Bounds, check_hyperparameters


class BalancedCurriculum(Curriculum):
    """Keeps as many of each believed class, those whose labels are right, easy ones first.

    Of the candidates' believed classes each gives as many as the candidates allow; inside of a
    class they are drawn without replacement in proportion to

        ``confidence ** power * exp(strength * (2 t - 1) * difficulty)``.

    A rare class gives all that there is of it, wrongly labeled ones, too: the loss should then
    be against beliefs, as ``targets`` of the teacher makes them. Beliefs and difficulty are those
    of :func:`saln.features_as_teacher`: no forward pass, no second network. Ours; the parts are
    :class:`saln.Curriculum`, :class:`saln.Coherence` and quotas by class, which lower the
    gradient's variance as stratified sampling does (arXiv 1405.3080).

    Args:
        strength: How much the order from easy to hard counts, from 0.
        pace: How quickly it turns, from 0.
        balance: Which share of the kept is parted equally among the believed classes, in [0, 1].
        power: Of the confidence in the label, from 0: above 1 sure labels are trusted more.
        epochs: Epochs of the run, counted from 1; without it (None) easy and hard are alike.

    Raises:
        InputError: An argument that is not allowed.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"believed", "difficulty", "label_confidence"})
    is_joint: ClassVar[bool] = True
    summary: ClassVar[str] = (
        "balanced classes, labels that look right, easy examples first (ours); costs features once"
    )

    def __init__(
        self,
        strength: Annotated[float, Bounds(low=0)] = 1.0,
        *,
        pace: Annotated[float, Bounds(low=0)] = 1.0,
        balance: Annotated[float, Bounds(low=0, high=1)] = 1.0,
        power: Annotated[float, Bounds(low=0)] = 4.0,
        epochs: Annotated[int | None, Bounds(low=1)] = None,
    ) -> None:
        super().__init__(strength, pace=pace, balance=balance, epochs=epochs)
        self.power = power
        check_hyperparameters(self, BalancedCurriculum)

    def _logits(self, candidates: Candidates) -> Tensor:
        return self.power * log_confidence(candidates).cpu() + super()._logits(candidates)
