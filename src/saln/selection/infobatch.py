"""InfoBatch, arXiv 2303.04947: drop easy examples at random and weigh up those that stay."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self

import torch
from torch import Tensor

from saln.selection.candidates import Candidates, Selection
from saln.selection.contract import Selector
from saln.selection.epoch_memory import EpochMemory
from saln.selection.hyperparameters import Bounds, check_hyperparameters


def inclusion_probabilities(
    n_easy: int, n_hard: int, k: int, prune_ratio: float
) -> tuple[float, float]:
    """How likely an easy and a hard example are kept, so that ``k`` are kept in all.

    As in the paper an easy example stays ``1 - prune_ratio`` times as often as a hard one,
    as long as there are more hard ones than ``k`` leaves room for; else all hard ones stay
    and the easy ones fill the rest. Both are in (0, 1] for a ``prune_ratio`` in [0, 1), and
    ``n_easy * easy + n_hard * hard = k``.
    """
    hard = k / (n_hard + (1 - prune_ratio) * n_easy)
    if hard < 1:
        return (1 - prune_ratio) * hard, hard
    return ((k - n_hard) / n_easy if n_easy else 1.0), 1.0


def infobatch_positions(
    is_easy: Tensor, k: int, prune_ratio: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draws ``k`` positions by :func:`inclusion_probabilities`, with their loss weights.

    The number of easy ones is the expected one, rounded up or down at random so that it is
    right on average; within the easy and within the hard every set is equally likely. Gives
    int64 (k,) positions and float32 (k,) weights ``k / (n p)``, with ``p`` the probability that
    the example is kept. The weighted mean loss of the kept has the mean loss of all ``n`` as
    its expectation, and the weights are 1 on average.
    """
    easy, hard = is_easy.nonzero().flatten(), (~is_easy).nonzero().flatten()
    p_easy, p_hard = inclusion_probabilities(len(easy), len(hard), k, prune_ratio)
    expected = len(hard) * p_hard
    # One draw decides the rounding, so that the expected number is met on average.
    extra = float(torch.rand((), generator=generator, dtype=torch.float64))
    n_hard = math.floor(expected) + (extra < expected % 1)
    n_hard = max(min(n_hard, k, len(hard)), k - len(easy))  # against rounding of `expected`
    # Within a kind every set of this size is equally likely.
    kept_hard = hard[torch.randperm(len(hard), generator=generator)[:n_hard]]
    kept_easy = easy[torch.randperm(len(easy), generator=generator)[: k - n_hard]]
    # An example that is kept with probability p stands for 1 / p of its kind.
    weights = torch.full((k,), k / (len(is_easy) * p_hard))
    weights[n_hard:] = k / (len(is_easy) * p_easy) if len(kept_easy) else 1.0
    return torch.cat([kept_hard, kept_easy]), weights


class InfoBatch(Selector):
    """Prunes at random where the last loss was below the mean, without bias.

    The losses come from training itself, as each example was last trained, and need no
    extra pass. Examples not trained yet count as hard. What differs from the paper: it
    prunes an epoch to whatever size results, here every step keeps exactly ``k`` of ``n``,
    so the probabilities of both kinds are scaled together and the weights are
    ``k / (n p)`` in the place of 1 and ``1 / (1 - prune_ratio)``; their quotient is the
    paper's, the expected gradient is that of all candidates, and the learning rate keeps
    its meaning. For the last epochs the paper goes back to the full data, against the
    variance of the weights; with a constant ``k`` that becomes an equal chance for all,
    at weight 1. A filter ratio of 0 in those epochs gives the full data itself.

    Args:
        prune_ratio: How much rarer an easy example is, in [0, 1); 0.5 as in the paper.
        epochs: Epochs of the run, counted from 1; None prunes to the end.
        full_from: From which share of the epochs on all have an equal chance, in (0, 1];
            0.875 as in the paper.

    Raises:
        InputError: An argument that is not allowed.
    """

    observes_losses: ClassVar[bool] = True
    summary: ClassVar[str] = (
        "drops part of those with a low last loss, weights the rest of them up; costs no extra pass"
    )

    def __init__(
        self,
        prune_ratio: Annotated[float, Bounds(low=0, below=1)] = 0.5,
        *,
        epochs: Annotated[int | None, Bounds(low=1)] = None,
        full_from: Annotated[float, Bounds(above=0, high=1)] = 0.875,
    ) -> None:
        self.prune_ratio = prune_ratio
        self.epochs = epochs
        self.full_from = full_from
        check_hyperparameters(self)
        # NaN, not 0: an example that was never trained is not easy.
        self._losses = EpochMemory(unknown=math.nan)
        self._mean = math.nan

    @classmethod
    def for_run(cls, *, epochs: int) -> Self:
        """Knows when the last epochs come."""
        return cls(epochs=epochs)

    def begin_epoch(self, epoch: int) -> None:
        """Takes over the losses of the epoch before."""
        self._losses.begin_epoch(epoch)
        # The mean of one moment: within an epoch it must not move with what is trained.
        self._mean = float(self._losses.known.double().nanmean())

    def observe(self, indices: Tensor, losses: Tensor) -> None:
        """Remembers the losses for the next epoch; those that are not finite count as unknown."""
        losses = losses.detach().float().cpu()
        losses = losses.where(torch.isfinite(losses), math.nan)
        self._losses.put(indices.cpu(), losses)

    def state_dict(self) -> dict[str, Any]:
        """The losses."""
        return self._losses.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes the losses back."""
        self._losses.load_state_dict(state)
        self._mean = float(self._losses.known.double().nanmean())

    def choose(self, candidates: Candidates, k: int, generator: torch.Generator) -> Selection:
        """Draws by :func:`infobatch_positions`."""
        losses = self._losses.get(candidates.indices.cpu())
        epoch = self._losses.epoch
        is_last = (
            self.epochs is not None and epoch is not None and epoch > self.full_from * self.epochs
        )
        is_easy = losses.double() < self._mean  # false where either is unknown (NaN)
        ratio = 0.0 if is_last else self.prune_ratio
        positions, weights = infobatch_positions(is_easy, k, ratio, generator)
        return Selection(positions, weights=weights)
