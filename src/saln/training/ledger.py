"""Where the seconds of a run went."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

__all__ = ["PHASES", "Ledger"]

PHASES = ("load", "score", "select", "train", "evaluate")


class Ledger:
    """Seconds by phase, each second in one phase only.

    A phase entered inside another stops the outer one's clock: choosing a batch inside
    the loader counts as select, not as load.

    Args:
        device: Synchronised at every change of phase when it is a GPU.
        clock: Gives seconds.
    """

    def __init__(
        self,
        device: torch.device | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.seconds = dict.fromkeys(PHASES, 0.0)
        self._clock = clock
        self._synchronise = device is not None and device.type == "cuda"
        self._device = device
        self._open: list[str] = []
        self._since = self._started = clock()

    def _now(self) -> float:
        if self._synchronise:
            torch.cuda.synchronize(self._device)
        return self._clock()

    def _book(self) -> None:
        now = self._now()
        if self._open:
            self.seconds[self._open[-1]] += now - self._since
        self._since = now

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Books the block's seconds, less those of phases inside it, under ``name``."""
        self._book()
        self._open.append(name)
        try:
            yield
        finally:
            self._book()
            self._open.pop()

    def total(self) -> float:
        """Seconds since the ledger was made, whatever they were spent on."""
        return self._now() - self._started

    def take(self) -> dict[str, float]:
        """The seconds by phase since the last call, and starts again from 0."""
        taken, self.seconds = self.seconds, dict.fromkeys(PHASES, 0.0)
        return taken
