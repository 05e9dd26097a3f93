"""What a run cost: seconds by phase, examples, memory."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch

# Of every epoch; a row of a run has each of them.
PHASES = ("load", "score", "select", "train", "evaluate")
# Beside the epochs: the backbone's features, the reference model, the state to resume from.
ONCE = ("features", "reference", "save")


class Counts(NamedTuple):
    """Work done so far."""

    steps: int = 0  # Optimizer steps
    forward: int = 0  # Examples put through the learner to train it or to score them
    backward: int = 0  # Examples that got a gradient


class Peak(NamedTuple):
    """The most memory held at once."""

    # Resident memory of this process, loader processes left out; None where the system does
    # not say
    rss_bytes: int | None
    cuda_bytes: int | None  # What torch had allocated on the GPU; None without one


class Ledger:
    """Seconds by phase, each second in one phase only; examples; peak memory.

    A phase entered inside another stops the outer one's clock: choosing a batch inside
    the loader counts as select, not as load.

    Args:
        device: Synchronized at every change of phase when it is a GPU.
        clock: Gives seconds.
    """

    def __init__(
        self, device: torch.device | None = None, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.seconds = dict.fromkeys((*PHASES, "save"), 0.0)
        self.counts = Counts()
        self._clock = clock
        self._cuda = device if device is not None and device.type == "cuda" else None
        self._open: list[str] = []
        self._peak = Peak(None, None)
        _forget_peak(self._cuda)
        self._since = self._started = clock()

    def _now(self) -> float:
        # Work on a GPU goes on after the call that asks for it: wait, or another phase pays.
        if self._cuda is not None:
            torch.cuda.synchronize(self._cuda)
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

    def count(self, *, steps: int = 0, forward: int = 0, backward: int = 0) -> None:
        """Adds to the counts."""
        done = self.counts
        self.counts = Counts(done.steps + steps, done.forward + forward, done.backward + backward)

    def charge(self, name: str, seconds: float) -> None:
        """Books seconds that were spent before: what is made once counts for all who use it."""
        self.seconds[name] += seconds
        # The total grows with it: the ledger counts as begun that much earlier.
        self._started -= seconds

    def total(self) -> float:
        """Seconds since the ledger was made, whatever they were spent on."""
        return self._now() - self._started

    def peak(self) -> Peak:
        """The most memory held at once since the ledger was made."""
        # Linux counts pages by processor and sums them up late: its peak may even fall.
        pairs = zip(self._peak, _peak(self._cuda), strict=True)
        known = ([value for value in pair if value is not None] for pair in pairs)
        self._peak = Peak(*(max(values, default=None) for values in known))
        return self._peak

    def take(self) -> dict[str, float]:
        """The seconds of :data:`PHASES` since the last call; they start again from 0."""
        taken = {name: self.seconds[name] for name in PHASES}
        self.seconds |= dict.fromkeys(PHASES, 0.0)
        return taken

    def state_dict(self) -> dict[str, Any]:
        """What was spent so far, as plain values."""
        spent = {"total": self.total(), "seconds": dict(self.seconds)}
        return spent | {"counts": list(self.counts), "peak": list(self.peak())}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from what another process spent; the time between does not count."""
        self.seconds = {name: state["seconds"][name] + self.seconds[name] for name in self.seconds}
        self._started -= state["total"]
        self.counts = Counts(*state["counts"])
        self._peak = Peak(*state["peak"])


def _forget_peak(cuda: torch.device | None) -> None:
    """Starts the peaks anew, where that can be done."""
    if cuda is not None:
        torch.cuda.reset_peak_memory_stats(cuda)
    if sys.platform == "linux":
        try:
            Path("/proc/self/clear_refs").write_text("5")  # proc(5): resets VmHWM
        except OSError:  # not allowed here: the peak is then the process's, not the arm's
            return


def _peak(cuda: torch.device | None) -> Peak:
    allocated = None if cuda is None else torch.cuda.max_memory_allocated(cuda)
    if sys.platform == "linux":
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return Peak(1024 * int(line.split()[1]), allocated)
    if sys.platform != "win32":
        import resource

        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return Peak(most if sys.platform == "darwin" else 1024 * most, allocated)
    return Peak(None, allocated)
