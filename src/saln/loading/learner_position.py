"""Where the choice after loading stands, and how a loader is brought there again."""

from __future__ import annotations

import copy
import hashlib
import warnings
from collections.abc import Iterable, Mapping
from itertools import chain
from typing import TYPE_CHECKING, Any

from torch import Tensor

from saln.data.arguments import as_whole
from saln.errors import DataError, InputError
from saln.loading.saved_state import described, refuse_other_settings
from saln.loading.selected_batches import SelectedBatches

if TYPE_CHECKING:
    from saln.loading.learner_selected import LearnerSelected


# What a saved state holds of the position.
_NUMBERS = ("epoch", "step", "counted", "last")


def digest(values: Tensor) -> int:
    """A whole number that differs for other values."""
    content = values.detach().cpu().contiguous().flatten().numpy().tobytes()
    return int.from_bytes(hashlib.blake2b(content, digest_size=7).digest(), "big")


class LearnerPosition:
    """How far an epoch has come: ``step`` batches given, and ``counted`` candidates in them."""

    def __init__(self, selected: LearnerSelected) -> None:
        self.selected = selected
        self.epoch = selected.epoch  # that the steps are of
        self.step = 0
        self.counted = 0
        self.last = 0  # a digest of the last candidates
        self._loaded: dict[str, Any] | None = None  # until it is gone on from
        self._begun = False
        self._has_warned = False

    def set_epoch(self) -> None:
        """Called when the epoch is set: a position in another is no more."""
        self._begun = False
        if self.selected.epoch != self.epoch:
            self.epoch = self.selected.epoch
            self.step = self.counted = self.last = 0
            self._loaded = None

    def begin(self) -> Iterable[Any]:
        """The loader's batches that are left; raises DataError where they are not those saved."""
        batches = self.selected.batches
        state, self._loaded = self._loaded, None
        if state is not None:
            self._begun = True
            return self._continued(state)
        # SelectedBatches warn themselves.
        inner = getattr(batches, "batch_sampler", None)
        if self._begun and not self._has_warned and not isinstance(inner, SelectedBatches):
            self._has_warned = True
            warnings.warn(
                f"a second iteration of epoch {self.epoch} begins; call set_epoch(epoch) before "
                "every epoch",
                UserWarning,
                stacklevel=4,
            )
        self._begun = True
        self.step = self.counted = self.last = 0
        return batches

    def _continued(self, state: dict[str, Any]) -> Iterable[Any]:
        batches = self.selected.batches
        if state["batches"] is not None:  # the loader has a position of its own
            self._stateful().load_state_dict(state["batches"])
            return batches
        # Else its batches are read up to there, and the last of them must be what it was.
        iterator, step = iter(batches), state["step"]
        for number in range(step):
            batch = next(iterator, None)
            if batch is None:
                raise DataError(
                    f"the loader gave {number} batches, but {step} had been used when the state "
                    "was saved; give the same loader"
                )
            if number == step - 1 and self._mark(batch) != state["last"]:
                raise DataError(
                    f"the loader's batch {step} is another than when the state was saved; give a "
                    "loader that gives the same order in an epoch, such as one over "
                    "SelectedBatches with filter_ratio=0, or torchdata's StatefulDataLoader"
                )
        return chain(iterator)

    def advance(self, batch: Any, n: int) -> None:
        """Called when a batch of ``n`` candidates has been chosen from."""
        self.step += 1
        self.counted += n
        self.last = self._mark(batch)

    def _mark(self, batch: Any) -> int:
        reader = self.selected.reader
        values = reader.indices_of(batch)
        values = reader.labels_of(batch) if values is None else values
        return 0 if values is None else digest(values)

    def _stateful(self) -> Any:
        """What has a position of its own: the loader, or what names its batches."""
        batches = self.selected.batches
        for part in (batches, getattr(batches, "batch_sampler", None)):
            if hasattr(part, "state_dict") and hasattr(part, "load_state_dict"):
                return part
        return None

    def _settings(self) -> dict[str, Any]:
        selected = self.selected
        return {
            "seed": selected.seed,
            "batch_size": selected.batch_size,
            "selector": described(selected.selector),
        }

    def state_dict(self) -> dict[str, Any]:
        """See ``LearnerSelected.state_dict``."""
        selected, part = self.selected, self._stateful()
        batches = None
        if self._loaded is not None:
            batches = self._loaded["batches"]
        elif part is selected.batches:
            batches = self._stateful().state_dict()
        elif isinstance(part, SelectedBatches):
            # Loaders ask it ahead; what was chosen from is known here.
            batches = part.state_dict(steps=self.step)
        return {
            **{name: getattr(self, name) for name in _NUMBERS},
            **self._settings(),
            "selector_state": selected.selector.state_dict(),
            "batches": copy.deepcopy(batches),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See ``LearnerSelected.load_state_dict``."""
        selected = self.selected
        own: dict[str, Any] = dict.fromkeys((*_NUMBERS, "selector_state", "batches"))
        own |= self._settings()
        refuse_other_settings(state, own, ("seed", "batch_size", "selector"), "LearnerSelected")
        if state["batches"] is not None and self._stateful() is None:
            raise InputError(
                "the state holds a loader's position, but this loader has none; give the kind of "
                "loader that it was saved with"
            )
        numbers = {key: as_whole(state[key], f"the state's {key}") for key in _NUMBERS}
        selected.selector.load_state_dict(state["selector_state"])
        # Sets the position back, so the numbers come after it.
        selected.set_epoch(numbers["epoch"])
        for name, number in numbers.items():
            setattr(self, name, number)
        self._loaded = dict(state) | numbers
