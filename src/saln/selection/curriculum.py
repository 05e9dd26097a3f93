"""A curriculum that costs nothing: what the features as a teacher find easy comes first."""

from __future__ import annotations

from typing import Annotated, ClassVar, Self

import torch
from torch import Tensor

from saln.selection.candidates import Candidates, Selection
from saln.selection.class_balance import keep_highest, with_balance
from saln.selection.contract import Selector
from saln.selection.epoch_memory import TrainingShare
from saln.selection.hyperparameters import Bounds, check_hyperparameters
from saln.selection.sampling import gumbel_keys


def curriculum_logits(
    difficulty: Tensor, done: float, *, strength: float = 1.0, pace: float = 1.0
) -> Tensor:
    """``strength * (2 t - 1) * difficulty``: easy ones first, hard ones last; float64, (n,).

    Args:
        difficulty: floating, (n,).
        done: The share of the training that is done, in [0, 1]; ``t = min(1, pace * done)``.
        strength: How much the order counts; 0 for not at all.
        pace: At 1 hard ones are as likely as easy ones in the middle of the training; at 2 after
            a quarter.
    """
    t = min(1.0, pace * done)
    return strength * (2 * t - 1) * difficulty.double().cpu()


class Curriculum(Selector):
    """Draws easy candidates first and hard ones last, by what the features as a teacher find.

    Draws without replacement in proportion to ``exp(strength * (2 t - 1) * difficulty)``, where
    ``t`` is the share of the training that is done: from easy to hard, as in curriculum learning
    (Bengio et al., ICML 2009, section 4). How hard an example is comes from a network that is
    frozen, as in arXiv 1904.03626 (section 3, "transfer scoring"), and from the *other* examples'
    labels, so that neither a second network nor a pass over the data is needed. ``t`` is that of
    the middle of an epoch, so that no choice depends on how far its own epoch is.

    Args:
        strength: How much the order counts, from 0.
        pace: How quickly it turns from easy to hard, from 0: at 2 twice as quickly.
        balance: Which share of the kept is parted equally among the believed classes, in [0, 1].
        epochs: Epochs of the run, counted from 1; without it (None) easy and hard are alike.

    Raises:
        InputError: An argument that is not allowed.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"difficulty"})
    summary: ClassVar[str] = (
        "easy examples first, hard ones later, as judged by the features; costs features once"
    )

    def __init__(
        self,
        strength: Annotated[float, Bounds(low=0)] = 1.0,
        *,
        pace: Annotated[float, Bounds(low=0)] = 1.0,
        balance: Annotated[float, Bounds(low=0, high=1)] = 0.0,
        epochs: Annotated[int | None, Bounds(low=1)] = None,
    ) -> None:
        self.strength = strength
        self.pace = pace
        self.balance = balance
        self.epochs = epochs
        check_hyperparameters(self, Curriculum)
        object.__setattr__(self, "requires", with_balance(type(self).requires, self.balance))
        self._training = TrainingShare(epochs)

    @classmethod
    def for_run(cls, *, epochs: int) -> Self:
        """Knows how far the training is."""
        return cls(epochs=epochs)

    @property
    def is_unplanned(self) -> bool:
        """Whether there is an order, but nobody said how long the run is."""
        return self.epochs is None and self.strength > 0

    def begin_epoch(self, epoch: int) -> None:
        """Takes note of how far the training is."""
        # No state to save: every iteration begins with this, in workers and after a resume, too.
        self._training.epoch = epoch

    def choose(self, candidates: Candidates, k: int, generator: torch.Generator) -> Selection:
        """Draws by Gumbel-top-k, inside of each class where classes are balanced."""
        logits = self._logits(candidates)
        keys = gumbel_keys(logits, generator)
        positions = keep_highest(candidates, keys, k, generator, self.balance)
        return Selection(positions, scores=logits)

    def _logits(self, candidates: Candidates) -> Tensor:
        difficulty, done = candidates.need("difficulty"), self._training.done
        return curriculum_logits(difficulty, done, strength=self.strength, pace=self.pace)
