"""What a selector knows when an epoch begins: a number an example, and how far training is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from saln.errors import InputError


class EpochMemory:
    """Numbers by index: what is put during an epoch can be read when the next begins.

    So a choice never depends on how far the training of its own epoch has come. Reading and
    putting touch different tensors: one thread may choose while another trains. ``unknown``
    stands for an index that was never put.
    """

    def __init__(self, unknown: float) -> None:
        self.unknown = unknown
        self.epoch: int | None = None
        self.known = torch.empty(0)
        self._next = torch.empty(0)

    def begin_epoch(self, epoch: int) -> None:
        """Makes what was put known; nothing when the epoch has already begun."""
        if epoch != self.epoch:
            self.epoch = epoch
            # A copy: what is put from now on must not be read before the next epoch.
            self.known = self._next.clone()

    def get(self, indices: Tensor) -> Tensor:
        """What was known of the indices when the epoch began: float32, (m,)."""
        found = torch.full((len(indices),), self.unknown)
        # An index beyond what was ever put is unknown, too.
        inside = indices < len(self.known)
        found[inside] = self.known[indices[inside]]
        return found

    def put(self, indices: Tensor, values: Tensor) -> None:
        """Remembers a value for each index, int64 (m,), from the next epoch on."""
        if len(indices) == 0:
            return
        missing = int(indices.max()) + 1 - len(self._next)
        if missing > 0:  # at least doubled, so that growing costs little in all
            extra = torch.full((max(missing, len(self._next)),), self.unknown)
            self._next = torch.cat([self._next, extra])
        self._next[indices] = values.to(self._next.dtype)

    def state_dict(self) -> dict[str, Any]:
        """Tensors and numbers."""
        epoch = -1 if self.epoch is None else self.epoch
        return {"epoch": epoch, "known": self.known.clone(), "next": self._next.clone()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from a saved state; InputError where it is of another kind."""
        if set(state) != {"epoch", "known", "next"}:
            raise InputError(
                f"the selector's state holds {', '.join(sorted(state)) or 'nothing'}, expected "
                "epoch, known and next; it was saved by another selector"
            )
        self.epoch = None if state["epoch"] < 0 else int(state["epoch"])
        self.known, self._next = state["known"].clone(), state["next"].clone()


class TrainingShare:
    """Which share of the training is done, for selectors that plan over the epochs of a run.

    Args:
        epochs: Of the run, counted from 1; None where nobody knows.
    """

    def __init__(self, epochs: int | None) -> None:
        self.epochs = epochs
        self.epoch: int | None = None

    @property
    def done(self) -> float:
        """In [0, 1], in the middle of the epoch that has begun; one half where that is unknown."""
        if self.epochs is None or self.epoch is None:
            return 0.5
        return min(max((self.epoch - 0.5) / self.epochs, 0.0), 1.0)
