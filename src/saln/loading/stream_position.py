"""Where a stream stands between its iterations: a loaded position, and the epochs set around it."""

from __future__ import annotations

from typing import Any

from torch.utils.data import get_worker_info

from saln.loading.shared_epoch import SharedEpoch


class StreamPosition:
    """The position of :class:`~saln.loading.selected_stream.SelectedStream`.

    Attributes:
        shared: What a loader's workers know of it, too.
        pending: A loaded state, until it is gone on from.
        overridden_epoch: The epoch that was set before that was loaded; None where none was.
        loaded_in_worker: Whether this worker's loader has loaded it.
    """

    def __init__(self) -> None:
        self.shared = SharedEpoch()
        self.pending: dict[str, Any] | None = None
        self.overridden_epoch: int | None = None
        self.loaded_in_worker = False

    @property
    def step(self) -> int:
        """The step that the next iteration begins with."""
        return 0 if self.pending is None else int(self.pending["step"])

    def set_epoch(self, epoch: int) -> bool:
        """Sets the epoch; a position in it stays. Gives whether the epoch is another."""
        shared = self.shared
        shared.changes += 1
        shared.is_set = 1
        shared.clear_ends()
        self.overridden_epoch = None
        if epoch == shared.epoch:
            return False
        shared.epoch = epoch
        self.pending = None
        return True

    def load(self, state: dict[str, Any]) -> None:
        """Takes a saved state."""
        shared = self.shared
        if shared.is_set:
            self.overridden_epoch = shared.epoch
        # In a worker this is a copy: the epoch that was set in the main process stays.
        self.loaded_in_worker = get_worker_info() is not None
        if not self.loaded_in_worker:
            shared.is_set = shared.resumed_workers = 0
            shared.changes += 1
            shared.clear_ends()
        if not shared.is_set:
            shared.epoch = int(state["epoch"])
        self.pending = state

    def to_resume(self) -> dict[str, Any] | None:
        """The state that an iteration that begins now goes on from; None begins the epoch.

        It stays pending: loaders may ask for an iterator twice.
        """
        pending, shared = self.pending, self.shared
        info = get_worker_info()
        if pending is not None and info is not None and not self.loaded_in_worker:
            # It was sent here with the stream, as to the workers of every later iteration, which
            # have another seed: only those that were first go on from it.
            seed = info.seed - info.id
            if shared.resumed_workers == 0:
                shared.resumed_workers = seed
            pending = pending if shared.resumed_workers == seed else None
        # Another epoch was set after the position was loaded: that holds.
        if pending is None or (pending["epoch"] != shared.epoch and self.overridden_epoch is None):
            return None
        return pending

    def use_up(self) -> None:
        """An iteration has begun to go on from it."""
        self.pending = self.overridden_epoch = None
        self.loaded_in_worker = False

    def enter(self, epoch: int) -> None:
        """An iteration goes on to the epoch that was set."""
        if get_worker_info() is None:
            self.shared.epoch, self.shared.is_set = epoch, 1
