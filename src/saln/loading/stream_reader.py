"""Reading a stream of keyed samples: who shares it out, and where it stands."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from types import CodeType
from typing import Any, NamedTuple

import torch

from saln.errors import DataError, InputError

# WebDataset's stages that share samples out, and among whom.
_SPLITTERS = {
    "split_by_worker": {"workers"},
    "split_by_node": {"ranks"},
    "ResampledShards": {"ranks", "workers"},
}


class Item(NamedTuple):
    """One sample of a stream, as its source gave it."""

    row: int  # of the features; without features its position in the source
    key: str
    sample: Any  # undecoded


def key_of(sample: Any, field: str) -> tuple[str, Any]:
    """A key, in a dict at ``field``, and what is to be decoded; InputError where there is none."""
    if isinstance(sample, Mapping):
        if field not in sample:
            raise InputError(
                f"a sample of the stream has no {field!r}, only {', '.join(map(repr, sample))}; "
                "say which field is its key with key_field=NAME"
            )
        return str(sample[field]), sample
    if isinstance(sample, tuple | list) and len(sample) == 2 and isinstance(sample[0], str):
        return sample[0], sample[1]
    raise InputError(
        f"a sample of the stream is a {type(sample).__name__}; "
        f"give pairs (key, raw sample) with a str for a key, or dicts with {field!r}"
    )


def known_split(source: Any) -> frozenset[str] | None:
    """Among whom WebDataset's and Hugging Face's streams are shared out; None for others."""
    # By the names of their modules: neither need be installed, or imported.
    modules = {kind.__module__.split(".")[0] for kind in type(source).__mro__}
    if "webdataset" in modules:
        split: set[str] = set()
        for stage in getattr(source, "pipeline", ()):
            name = getattr(stage, "__name__", type(stage).__name__)
            split |= _SPLITTERS.get(name, set())
            if hasattr(stage, "pipeline"):  # a pipeline inside a pipeline
                split |= known_split(stage) or set()
        return frozenset(split)
    if "datasets" in modules:
        ranks = {"ranks"} if getattr(source, "_distributed", None) is not None else set()
        return frozenset({"workers"} | ranks)
    return None


def asks_for_worker(source: Any) -> bool:
    """Whether the source's ``__iter__`` asks torch which worker it runs in."""
    code = getattr(getattr(type(source), "__iter__", None), "__code__", None)
    return isinstance(code, CodeType) and "get_worker_info" in code.co_names


def tell_epoch(source: Any, epoch: int) -> None:
    """Tells a source the epoch, where it asks for it; workers may do so at the same time."""
    shared = getattr(source, "_epoch", None)
    if isinstance(shared, torch.Tensor):
        # Hugging Face's set_epoch adds the difference to a number that workers share: two at once
        # would both add it, and each then read other shards.
        shared.fill_(epoch)
    elif hasattr(source, "set_epoch"):
        source.set_epoch(epoch)


@dataclass(eq=False)
class SampleReader(Iterator[Item]):
    """Goes once through a source, shuffles in a bounded buffer, and knows where it is.

    The source gives the same samples in the same order whenever it starts anew. One that can be
    put back is, unless it would lose what it holds in a buffer.
    """

    source: Iterable[Any]
    keys: Mapping[str, int] | None  # key -> row; None gives positions
    rows: int
    skipped: frozenset[int]  # rows that could not be read; their samples are left out
    skip_unknown: bool
    key_field: str
    size: int  # how many samples a draw is from; 1 keeps the order
    generator: torch.Generator
    _samples: Iterator[Any] | None = None
    _samples_read: int = 0  # samples taken from the source, with those that are left out
    _samples_given: int = 0
    _last_key: str | None = None
    _known_samples: int = 0
    _ended: bool = False
    _buffer: list[Item] = field(default_factory=list)

    def __next__(self) -> Item:
        # Full again before each draw: every sample waits in a buffer of the same size.
        while len(self._buffer) < self.size and (item := self._next_known()) is not None:
            self._buffer.append(item)
        if not self._buffer:
            raise StopIteration
        if self.size > 1:
            place = int(torch.randint(len(self._buffer), (), generator=self.generator))
            # The drawn one goes last, where taking it out moves no other.
            self._buffer[place], self._buffer[-1] = self._buffer[-1], self._buffer[place]
        item = self._buffer.pop()
        self._samples_given += 1
        self._last_key = item.key
        return item

    def _next_known(self) -> Item | None:
        if self._ended:
            return None
        if self._samples is None:
            self._samples = iter(self.source)
        for sample in self._samples:
            position = self._samples_read
            self._samples_read += 1
            key, raw = key_of(sample, self.key_field)
            if self.keys is None:
                return Item(position, key, raw)
            row = self.keys.get(key)
            if row is not None:
                self._known_samples += 1
                if row in self.skipped:  # known, but nothing is known of it
                    continue
                if not 0 <= row < self.rows:
                    raise InputError(
                        f"keys name row {row} for the sample {key!r}, but there are {self.rows} "
                        "rows; give the keys of these features"
                    )
                return Item(row, key, raw)
            if not self.skip_unknown:
                raise InputError(
                    f"the sample {key!r} has no features: it is not among the {len(self.keys)} "
                    f"keys, such as {', '.join(map(repr, islice(self.keys, 2)))}; "
                    "make features of it too, or leave such samples out with skip_unknown=True"
                )
        self._ended = True
        if self._samples_read and self.keys is not None and not self._known_samples:
            raise InputError(
                f"none of the {self._samples_read} samples of the stream has features, so all were "
                "left out; give the keys as the stream names its samples"
            )
        return None

    def state_dict(self) -> dict[str, Any]:
        """Where it is. The buffer is in it only where the source can be put back itself."""
        state: dict[str, Any] = {
            "given": self._samples_given,
            "read": self._samples_read,
            "last": self._last_key,
        }
        own = _own_state(self.source)
        if own is not None and self._samples_read:
            state |= {
                "known": self._known_samples,
                "ended": self._ended,  # the source may stand at its beginning again
                "source": copy.deepcopy(own()),
                "buffer": [tuple(item) for item in self._buffer],
                "random": self.generator.get_state(),
            }
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes there, and decodes nothing; raises DataError where the stream is another."""
        if state.get("source") is not None:  # put back, by the source's own state
            self._ended = state["ended"]
            if not self._ended:
                self.source.load_state_dict(state["source"])  # type: ignore[attr-defined]
            self._samples_read, self._samples_given = state["read"], state["given"]
            self._last_key, self._known_samples = state["last"], state["known"]
            self._buffer = [Item(*item) for item in state["buffer"]]
            self.generator.set_state(state["random"])
            return
        # Else read up to there. Its draws are made again too: the buffer is then what it was.
        for _ in range(state["given"]):
            if next(self, None) is None:
                raise DataError(
                    f"the stream ended after {self._samples_given} samples, but {state['given']} "
                    "of it had been used when the state was saved; give the same stream"
                )
        for name, now in (("read", self._samples_read), ("last", self._last_key)):
            if name in state and state[name] != now:
                raise DataError(
                    f"the stream is not where it was: after {state['given']} samples the last "
                    f"was {state['last']!r} (number {state['read']}), now it is {self._last_key!r} "
                    f"(number {self._samples_read}); give a stream that gives the same order in an "
                    "epoch: seed its own shuffling"
                )


def _own_state(source: Any) -> Callable[[], Any] | None:
    has_own = hasattr(source, "state_dict") and hasattr(source, "load_state_dict")
    # Its own state would lose the samples that wait in a buffer of its own.
    loses = _loses_buffer(getattr(source, "_ex_iterable", None))
    return source.state_dict if has_own and not loses else None


def _loses_buffer(iterable: Any) -> bool:
    """Whether a Hugging Face stream shuffles in a buffer, which its state leaves out."""
    if any(kind.__name__ == "BufferShuffledExamplesIterable" for kind in type(iterable).__mro__):
        return True
    inside = vars(iterable) if hasattr(iterable, "__dict__") else {}
    parts = [inside.get("ex_iterable"), *(inside.get("ex_iterables") or ())]
    return any(_loses_buffer(part) for part in parts if part is not None)


def rows_by_key(
    keys: Mapping[str, int] | Sequence[str] | None, rows: int
) -> Mapping[str, int] | None:
    """Key -> row; None without rows. InputError without keys, not one a row, or a key twice."""
    if not rows:
        return None
    if keys is None:
        raise InputError(
            "features without keys; give the samples' keys in the order of the rows, or a "
            "mapping from key to row, with keys=..."
        )
    if isinstance(keys, Mapping):
        return keys
    if len(keys) != rows:
        raise InputError(f"{rows} rows of features but {len(keys)} keys; give one a row")
    by_key = {key: row for row, key in enumerate(keys)}
    if len(by_key) != rows:
        twice = next(key for row, key in enumerate(keys) if by_key[key] != row)
        raise InputError(f"the key {twice!r} names more than one row; give every sample its own")
    return by_key
