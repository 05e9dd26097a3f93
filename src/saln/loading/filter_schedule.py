"""How the filter ratio changes from epoch to epoch, known before the first step."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from saln.data.arguments import as_whole
from saln.errors import InputError
from saln.selection.candidates import as_ratio, candidates_needed, exact_ratio


@dataclass(frozen=True)
class FilterSchedule:
    """A filter ratio for every epoch: a ramp, with all data at either end if wanted.

    The batch size stays; what changes is how many candidates it is chosen from, and so
    how many steps an epoch has.

    Args:
        start: The ratio of the first epoch that filters, in [0, 1).
        end: That of the last one, in [0, 1); between them it changes linearly. Equal to
            ``start`` when None.
        epochs: Epochs of the run.
        full_first: How many first epochs drop nothing.
        full_last: How many last ones.
        first_epoch: The number of the first epoch, as given to ``set_epoch``.

    Raises:
        InputError: A ratio outside [0, 1), or more full epochs than there are.
    """

    start: float | Fraction
    end: float | Fraction | None = None
    epochs: int = 1
    full_first: int = 0
    full_last: int = 0
    first_epoch: int = 0

    def __post_init__(self) -> None:
        # Plain numbers, whatever was given: NumPy's make other fractions.
        for name, low in (("epochs", 1), ("full_first", 0), ("full_last", 0)):
            object.__setattr__(self, name, as_whole(getattr(self, name), name, low))
        object.__setattr__(self, "start", as_ratio(self.start))
        if self.end is not None:
            object.__setattr__(self, "end", as_ratio(self.end))
        if self.ramp < 0:
            raise InputError(
                f"full_first={self.full_first} and full_last={self.full_last} do not fit into "
                f"{self.epochs} epochs; lower them"
            )

    @property
    def last(self) -> float | Fraction:
        """The ratio at the end of the ramp."""
        return self.start if self.end is None else self.end

    @property
    def ramp(self) -> int:
        """How many epochs filter."""
        return self.epochs - self.full_first - self.full_last

    @property
    def all_epochs(self) -> range:
        """The numbers of the epochs of the run."""
        return range(self.first_epoch, self.first_epoch + self.epochs)

    def ratio(self, epoch: int) -> Fraction:
        """The ratio of an epoch; before the run that of its first, after it of its last."""
        # Before and after the run: evaluation, and a resume at its end, ask for such epochs.
        place = min(max(epoch - self.first_epoch, 0), self.epochs - 1)
        if not self.full_first <= place < self.full_first + self.ramp:
            return Fraction(0)
        start, end = exact_ratio(self.start), exact_ratio(self.last)
        # In fractions: rounding must not change the number of candidates of an epoch.
        if self.ramp == 1:
            return start
        return start + (end - start) * (place - self.full_first) / (self.ramp - 1)

    def candidates(self, batch_size: int) -> int:
        """The most candidates that any batch of the run is chosen from."""
        ratios = {self.ratio(epoch) for epoch in self.all_epochs}
        return max(candidates_needed(batch_size, ratio) for ratio in ratios)

    def __str__(self) -> str:
        """In words, such as ``0.8 to 0.5, all data in the last 2 epochs``."""
        start, last = float(self.start), float(self.last)
        parts = [f"{start:g}" + (f" to {last:g}" if last != start else "")]
        for where, epochs in (("first", self.full_first), ("last", self.full_last)):
            if epochs:
                parts.append(f"all data in the {where} {epochs} epoch{'s' * (epochs > 1)}")
        return ", ".join(parts)

    def steps(self, examples: int, batch_size: int) -> int:
        """Gradient steps of the whole run."""
        ratios = (self.ratio(epoch) for epoch in self.all_epochs)
        return sum(examples // candidates_needed(batch_size, ratio) for ratio in ratios)


def as_schedule(filter_ratio: float | Fraction | FilterSchedule) -> FilterSchedule:
    """A schedule as it is, or one of a single ratio; raises InputError for a ratio that is none."""
    if isinstance(filter_ratio, FilterSchedule):
        return filter_ratio
    return FilterSchedule(filter_ratio)
