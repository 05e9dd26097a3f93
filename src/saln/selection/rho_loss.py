"""Reducible hold-out loss (RHO-LOSS), arXiv 2206.07137."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch

from saln.selection.candidates import Candidates, Selection
from saln.selection.contract import Selector
from saln.selection.hyperparameters import check_hyperparameters
from saln.selection.sampling import top_k


@dataclass(frozen=True)
class RHOLoss(Selector):
    """Keeps the ``k`` highest of learner's loss minus reference's loss (equation 3).

    What training on an example could still take off the hold-out loss: high where the learner is
    wrong and a model that never saw the example is not. Noise has a high loss with both, what is
    learned has a low one with both.

    Args:
        reference: Whose loss is taken off: a model's that was trained apart, or ``"features"``:
            that of the features as a teacher (:func:`saln.features_as_teacher`), for which no
            model is trained and no example is set aside.

    Raises:
        InputError: Another reference.
    """

    reference: Literal["model", "features"] = "model"

    requires: ClassVar[frozenset[str]] = frozenset({"learner_losses", "reference_losses"})
    summary: ClassVar[str] = (
        "learner's loss minus reference's, the highest; costs a forward pass of all "
        "candidates and a reference model"
    )
    _added: ClassVar[Mapping[str, Any]] = {"reference": "model"}

    def __post_init__(self) -> None:
        check_hyperparameters(self)
        if self.reference == "features":
            requires = frozenset({"learner_losses", "teacher_losses"})
            object.__setattr__(self, "requires", requires)

    def choose(self, candidates: Candidates, k: int, generator: torch.Generator) -> Selection:
        """Keeps the highest; nothing is random, equal ones go to the lower position."""
        losses = candidates.need("learner_losses")
        # The difference of two half-precision losses would lose most of its digits.
        wide = torch.promote_types(torch.float32, losses.dtype)
        whose = "reference" if self.reference == "model" else "teacher"
        scores = losses.to(wide) - candidates.need(f"{whose}_losses").to(losses.device, wide)
        return Selection(top_k(scores, k), scores=scores.cpu())
