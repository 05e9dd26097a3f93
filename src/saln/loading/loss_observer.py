"""What a selector is told of training, and what is said when it is told nothing."""

from __future__ import annotations

import warnings
from typing import Any

from torch import Tensor

from saln.distributed import Rank, gather_uneven
from saln.loading.candidate_fields import as_indices, as_losses
from saln.selection.contract import Selector


class Observing:
    """Hands losses to a selector that asks for them, those of all ranks on every rank.

    Args:
        selector: Told, where it observes losses.
        owner: Whose ``observe`` this serves, for messages.
    """

    def __init__(self, selector: Selector, owner: str) -> None:
        self.selector = selector
        self.owner = owner
        self._told = False
        self._begun: int | None = None

    def begin(self, epoch: int) -> None:
        """Called when an epoch begins, before its first choice.

        Warns:
            UserWarning: Once, when a second epoch begins and the selector was told nothing.
        """
        if not self.selector.observes_losses or self._told:
            return
        if self._begun is not None and epoch != self._begun and not self._knows():
            self._told = True  # said once
            warnings.warn(
                f"{type(self.selector).__name__} chooses by the losses of training, but was told "
                f"none in epoch {self._begun}, so it chooses as at the start; call "
                f"{self.owner}.observe(indices, losses) after every step",
                UserWarning,
                stacklevel=4,
            )
        self._begun = epoch

    def tell(self, indices: Any, losses: Any, rank: Rank) -> None:
        """Tells the selector the losses of all ranks.

        Args:
            indices: int64, (m,): this rank's.
            losses: floating, (m,): theirs.
            rank: Among whom batches are shared out.

        Raises:
            InputError: Not one loss an index, or ranks that are not connected.
        """
        if not self.selector.observes_losses:
            return
        where = as_indices(indices)
        values = as_losses(losses, len(where))
        if rank.count > 1:
            rank.check_connected()
            device = values.device
            where = gather_uneven(where, rank.count, device)
            values = gather_uneven(values, rank.count, device)
        self._told = True
        self.selector.observe(where, values)

    def _knows(self) -> bool:
        """Whether it remembers anything: told by somebody else, or before a resume."""
        values = self.selector.state_dict().values()
        return any(isinstance(value, Tensor) and value.numel() > 0 for value in values)
