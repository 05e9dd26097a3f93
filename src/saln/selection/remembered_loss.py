"""The loss of an example as it was last trained: no scoring pass, and known before loading."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor

from saln.selection.candidates import Candidates, Selection
from saln.selection.class_balance import keep_highest, with_balance
from saln.selection.contract import Selector
from saln.selection.epoch_memory import EpochMemory
from saln.selection.hyperparameters import Bounds, check_hyperparameters
from saln.selection.sampling import gumbel_keys

_DATES = "dates_"  # What the names of the dates begin with in a state


class LossMemory:
    """The last loss of every example, from the next epoch on; how old it is, where ``dated``."""

    def __init__(self, *, dated: bool = False) -> None:
        # NaN, not 0: what was never trained is not easy.
        self._losses = EpochMemory(unknown=math.nan)
        # The epoch that a loss is of: before all others where there is none.
        self._dates = EpochMemory(unknown=-math.inf) if dated else None
        self._highest = 1.0

    def begin_epoch(self, epoch: int) -> None:
        """Takes over the losses of the epoch before."""
        self._losses.begin_epoch(epoch)
        if self._dates is not None:
            self._dates.begin_epoch(epoch)
        self._find_highest()

    def _find_highest(self) -> None:
        known = self._losses.known[~self._losses.known.isnan()]
        self._highest = float(known.max()) if len(known) else 1.0

    def put(self, indices: Tensor, losses: Tensor) -> None:
        """Remembers losses; those that are not finite count as unknown."""
        losses = losses.detach().float().cpu()
        finite = torch.isfinite(losses)
        self._losses.put(indices.cpu(), losses.where(finite, math.nan))
        if self._dates is not None:
            now = torch.full_like(losses, self._dates.epoch or 0)
            self._dates.put(indices.cpu(), now.where(finite, -math.inf))

    def ages(self, indices: Tensor) -> Tensor:
        """float32, of any shape: epochs since a loss was the last; infinity for none."""
        if self._dates is None:
            raise TypeError("only a dated memory knows how old its losses are")
        dates = self._dates.get(indices.cpu().flatten()).view(indices.shape)
        return ((self._dates.epoch or 0) - 1 - dates).clamp_min(0)

    def get(self, indices: Tensor) -> Tensor:
        """float32, of any shape; what was never trained has the highest that is known, or 1."""
        found = self._losses.get(indices.cpu().flatten()).view(indices.shape)
        return found.where(~found.isnan(), self._highest)

    def state_dict(self) -> dict[str, Any]:
        """The losses, and their dates."""
        dates = {} if self._dates is None else self._dates.state_dict()
        return self._losses.state_dict() | {_DATES + name: dates[name] for name in dates}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes them back."""
        if self._dates is not None:
            dates = [name for name in state if name.startswith(_DATES)]
            self._dates.load_state_dict({name.removeprefix(_DATES): state[name] for name in dates})
            state = {name: state[name] for name in state if name not in dates}
        self._losses.load_state_dict(state)
        self._find_highest()


class LossRemembering(Selector):
    """What selectors share that choose by the losses as last trained; they set ``_losses``."""

    observes_losses: ClassVar[bool] = True
    _losses: LossMemory

    def begin_epoch(self, epoch: int) -> None:
        """Takes over the losses of the epoch before."""
        self._losses.begin_epoch(epoch)

    def observe(self, indices: Tensor, losses: Tensor) -> None:
        """Remembers the losses for the next epoch; those that are not finite count as unknown."""
        self._losses.put(indices, losses)

    def state_dict(self) -> dict[str, Any]:
        """The losses."""
        return self._losses.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes the losses back."""
        self._losses.load_state_dict(state)


class RememberedLoss(LossRemembering):
    """Keeps the candidates whose loss was highest when they were last trained.

    OrderDP (arXiv 2606.08574): a random subset, of which the highest losses are kept; here the
    subset is the candidates of a step, or a share of them. With ``beta`` they are drawn in
    proportion to that power of the loss, the proportional form of loss-based sampling
    (arXiv 1511.06343, arXiv 1803.00942). The losses come out of training itself. What was never
    trained counts as the highest; equal ones are taken at random.

    Args:
        beta: The power of the loss that a chance is in proportion to, above 0; None for the
            highest losses themselves.
        pool: Which share of the candidates is looked at, drawn at random, above 0 to 1; at least
            as many as are kept.
        balance: Which share of the kept is parted equally among the believed classes, in [0, 1].

    Raises:
        InputError: An argument that is not allowed.
    """

    summary: ClassVar[str] = (
        "the highest losses of each example's last training step (OrderDP); costs no extra pass"
    )

    def __init__(
        self,
        beta: Annotated[float | None, Bounds(above=0)] = None,
        *,
        pool: Annotated[float, Bounds(above=0, high=1)] = 1.0,
        balance: Annotated[float, Bounds(low=0, high=1)] = 0.0,
    ) -> None:
        self.beta = beta
        self.pool = pool
        self.balance = balance
        check_hyperparameters(self)
        object.__setattr__(self, "requires", with_balance(type(self).requires, self.balance))
        self._losses = LossMemory()

    def choose(self, candidates: Candidates, k: int, generator: torch.Generator) -> Selection:
        """Keeps the highest of the pool, or draws among it."""
        losses = self._losses.get(candidates.indices).double()
        n = len(losses)
        # One random order decides ties and, by its beginning, who is in the pool.
        shuffled = torch.randperm(n, generator=generator)
        values = losses
        if self.beta is not None:
            logits = self.beta * losses.clamp_min(torch.finfo(torch.float32).tiny).log()
            values = gumbel_keys(logits, generator)
        keys = torch.empty_like(shuffled)
        keys[shuffled[torch.argsort(values[shuffled], stable=True)]] = torch.arange(n)
        # Whoever is beyond the pool comes after all that are in it.
        keys[shuffled[max(k, math.ceil(self.pool * n - 1e-9)) :]] -= n
        positions = keep_highest(candidates, keys, k, generator, self.balance)
        return Selection(positions, scores=losses)
