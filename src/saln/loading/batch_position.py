"""Where chosen batches stand: the epoch, the step in it, and who set them."""

from __future__ import annotations

import warnings


class BatchPosition:
    """The position of :class:`~saln.loading.selected_batches.SelectedBatches`.

    Attributes:
        epoch: That the next iteration is of.
        start: The step that it begins with: that of a loaded position, until its first batch is
            asked for, else 0.
        steps_given: How many batches of the epoch the latest iteration has given.
        iteration: The number of that iteration; what others give is not the position.
    """

    def __init__(self) -> None:
        self.epoch = 0
        self.start = 0
        self.steps_given = 0
        self.iteration = 0
        self._epoch_set: int | None = None  # since the last load
        self._epoch_overridden: int | None = None  # set before the last load
        self._begun = False  # an iteration, since the epoch was set
        self._has_warned = False

    @property
    def requested_epoch(self) -> int | None:
        """The epoch that was set, whatever was loaded after it; None where none was."""
        return self._epoch_overridden if self._epoch_set is None else self._epoch_set

    def set_epoch(self, epoch: int) -> None:
        """Makes the next iteration the given epoch's; a loaded position in it stays."""
        self._epoch_set, self._epoch_overridden = epoch, None
        self._begun = False
        if epoch != self.epoch:
            self.put(epoch, 0)

    def load(self, epoch: int, step: int) -> None:
        """Takes a saved position; an epoch that was set before gives way to it, and is kept."""
        # Loaders load their state after the user has set the epoch, which is still wanted once
        # the state's is over.
        self._epoch_overridden = self.requested_epoch
        self._epoch_set, self._begun = None, False
        self.put(epoch, step)

    def put(self, epoch: int, step: int) -> None:
        """Moves there."""
        self.epoch, self.start, self.steps_given = epoch, step, step

    def lead(self, step: int) -> int:
        """Makes an iteration that is at a step the one that is followed; gives its number."""
        self.iteration += 1
        self.steps_given = step
        return self.iteration

    def begin(self) -> None:
        """Uses a loaded position up, as the first batch of the epoch is asked for.

        Warns:
            UserWarning: Once, where the epoch has begun before and was not set since.
        """
        self.start = 0
        if self._begun and not self._has_warned:
            self._has_warned = True
            warnings.warn(
                f"a second iteration of epoch {self.epoch} begins, with the same batches; call "
                "set_epoch(epoch) before every epoch",
                UserWarning,
                stacklevel=5,
            )
        self._begun = True
