"""The losses that a selector observes, and a warning where it is given none."""

from __future__ import annotations

import warnings
from typing import Any

from torch import Tensor

from saln.distributed import Rank, gather_uneven
from saln.loading.candidate_fields import as_indices, as_losses
from saln.selection.contract import Selector


class LossObserver:
    """Hands losses to a selector that asks for them, those of all ranks on every rank.

    Args:
        selector: Whose method is called, where it observes losses.
        owner: Whose ``observe`` this serves, for messages.
    """

    def __init__(self, selector: Selector, owner: str) -> None:
        self.selector = selector
        self.owner = owner
        self._has_losses = False  # or has warned that there are none
        self._epoch_without_losses: int | None = None

    def begin_epoch(self, epoch: int) -> None:
        """Called when an epoch begins, before its first choice.

        Warns:
            UserWarning: Once, when a second epoch begins and the selector has observed nothing.
        """
        if not self.selector.observes_losses or self._has_losses:
            return
        silent = self._epoch_without_losses
        if silent is not None and epoch != silent and not self._remembers():
            self._has_losses = True
            warnings.warn(
                f"{type(self.selector).__name__} chooses by the losses of training, but was told "
                f"none in epoch {silent}, so it chooses as at the start; call "
                f"{self.owner}.observe(indices, losses) after every step",
                UserWarning,
                stacklevel=4,
            )
        self._epoch_without_losses = epoch

    def observe(self, indices: Any, losses: Any, rank: Rank) -> None:
        """Hands the losses of all ranks to the selector.

        Args:
            indices: int64, (m,): this rank's.
            losses: floating, (m,): theirs.
            rank: Among whom batches are shared out.

        Raises:
            InputError: Not one loss an index, or ranks that are not connected.
        """
        where = as_indices(indices)
        values = as_losses(losses, len(where))
        # Ranks must remember alike to choose alike, so each hands on what all of them trained.
        if rank.count > 1:
            rank.check_connected()
            device = values.device
            where = gather_uneven(where, rank.count, device)
            values = gather_uneven(values, rank.count, device)
        self._has_losses = True
        self.selector.observe(where, values)

    def _remembers(self) -> bool:
        """Whether it remembers anything: from somebody else's call, or from before a resume."""
        values = self.selector.state_dict().values()
        return any(isinstance(value, Tensor) and value.numel() > 0 for value in values)
