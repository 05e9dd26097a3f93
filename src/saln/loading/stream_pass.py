"""One iteration of a stream: reads, chooses, decodes, and knows where it is."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from saln.distributed import Rank
from saln.errors import DataError, InputError, SalnError
from saln.loading.stream_reader import Item, SampleReader, asks_for_worker, tell_epoch
from saln.randomness import derive_generator
from saln.selection.candidates import Selection
from saln.selection.contract import Selector

if TYPE_CHECKING:
    from saln.loading.selected_stream import SelectedStream


class StreamBatch(NamedTuple):
    """The kept samples of one step: with several ranks, this rank's share of them.

    Attributes:
        samples: Decoded, in a list; or what ``collate`` made of that.
        keys: Their names.
        indices: int64, (m,): their rows of the features; without features their positions
            in the source.
        weights: float32, (m,): loss weights, or None for equal ones.
    """

    samples: Any
    keys: list[str]
    indices: Tensor
    weights: Tensor | None = None


class StreamPass:
    """One iteration of a stream: an epoch, or what is left of it.

    Args:
        stream: Whose.
        epoch: Which.
        state: Where it goes on from; None begins.
        wanted: The epoch to begin where nothing is left of the state's: a loader loads its
            state after the user has set the epoch.
        spent: There is nothing to give, as a loader's state was at the epoch's end.
        counts: Whether this is an iteration of the user's, of which an epoch has one.
    """

    def __init__(
        self,
        stream: SelectedStream,
        epoch: int,
        state: dict[str, Any] | None,
        wanted: int | None = None,
        *,
        spent: bool = False,
        counts: bool = True,
    ) -> None:
        self.stream = stream
        self.spent = spent
        self.counts = counts
        self.epoch = epoch
        self.loaded = state is not None
        self.wanted = wanted if wanted != epoch else None
        self.state = stream._state(epoch) if state is None else dict(state)
        self.reader: SampleReader | None = None
        self._given: Iterator[Any] | None = None
        self._first: list[Any] = []
        self._before: dict[str, Any] | None = None  # the state, before `_first`

    def state_dict(self) -> dict[str, Any]:
        """Where it is, and what the selector remembers."""
        remembered = {"selector_state": self.stream.selector.state_dict()}
        if self._before is not None:
            return self._before | remembered
        state = self.state | remembered
        if self.reader is not None and not state["within"]:
            state["reading"] = self.reader.state_dict()
        return state

    def look_ahead(self) -> None:
        """Makes the first batch, so that it is known whether anything of the epoch is left."""
        self._before = dict(self.state)
        self._given = self._rest()
        self._first = list(islice(self._given, 1))

    def run(self) -> Iterator[Any]:
        """The batches, or samples, that are left."""
        stream = self.stream
        stream._pending = stream._wanted = None
        stream._loaded_here = False
        if self.spent:
            stream._ends.zero_()  # once
            return
        if not self.loaded or self._given is None:
            self._given = self._rest()
        rest = chain(self._first, self._given)
        self._first = []
        for number, given in enumerate(rest):
            self._before = None
            if not number and self.wanted is not None:
                self._warn_of_the_middle()
            yield given
        self._before = None
        if self.wanted is not None and stream._nothing_left(self.epoch):
            self._go_to(self.wanted)
            yield from self._rest()

    def _warn_of_the_middle(self) -> None:
        warnings.warn(
            f"set_epoch({self.wanted}) was called, but the loaded state is in the middle of epoch "
            f"{self.epoch}: that epoch is finished first; set the epoch that the state is of",
            UserWarning,
            stacklevel=3,
        )

    def _go_to(self, epoch: int) -> None:
        """Begins another epoch, after one of which nothing was left.

        The loader asks that worker first whose turn it would have been.
        """
        before, self.epoch = self.state, epoch
        self.state = self.stream._state(epoch)
        if before["worker"] is not None:
            self.state["base"] = before["base"] - before["step"]
            self.state["worker"] = before["worker"]
        self.stream._go_on_in(epoch)
        self.reader = None

    def _rest(self) -> Iterator[Any]:
        stream, state, epoch = self.stream, self.state, self.epoch
        info = get_worker_info()
        worker = None if info is None else [info.id, info.num_workers]
        started = state["step"]
        if state["ended"]:
            stream._at_end(epoch)
            return
        self._check_worker(worker)
        lane, lanes = (0, 1) if worker is None or "workers" in stream.split else worker
        part: list[int | str] = []
        if "ranks" in stream.split:
            part += ["rank", stream.rank]
        if "workers" in stream.split and worker is not None:
            part += ["worker", worker[0]]
        if state["worker"] is None:  # saved outside workers: the first is next
            state["base"] = state["step"]
        state["worker"] = worker
        tell_epoch(stream.source, epoch)
        n = stream.candidates_of(epoch)
        reader = SampleReader(
            stream.source,
            keys=stream.keys,
            rows=stream.rows,
            skip_unknown=stream.skip_unknown,
            key_field=stream.key_field,
            shuffle_buffer=stream.shuffle_buffer,
            generator=derive_generator(stream.seed, "shuffle", epoch, *part),
        )
        reader.load_state_dict(state["reading"] or {"given": state["step"] * n})
        self.reader = reader
        stream._begin(epoch, counts=self.counts)
        watched = not stream.shuffle_buffer and bool(stream.selector.requires)
        while True:
            step = state["step"]
            if not stream.as_batches:
                state["reading"] = reader.state_dict()  # a stop may be in the middle
            items = list(islice(reader, n))
            if len(items) < n:
                state["ended"] = True
                if self.loaded and step == started and not state["within"]:
                    stream._at_end(epoch)
                return
            if watched and step == 0 and n > stream.own_batch_size:
                stream._look_at_order(epoch, [item.key for item in items])
            mine = (step - state["base"]) % lanes == lane
            if not mine:
                state["step"] += 1
                continue
            indices = torch.tensor([item.row for item in items])
            selection = stream.choose(indices, epoch, step, *part)
            chosen = [items[place] for place in selection.positions.tolist()]
            del items
            rank = Rank(0, 1) if "ranks" in stream.split else stream.sharing.current()
            own = list(rank.share(chosen))
            if stream.as_batches:
                state["step"] += 1
                yield self._batch(own, selection, rank)
            else:
                yield from self._singly(own, selection)

    def _batch(self, own: list[Item], selection: Selection, rank: Rank) -> StreamBatch:
        samples: Any = [self._decoded(item) for item in own]
        weights = selection.weights
        if weights is not None:
            places = rank.share(range(len(weights)))
            weights = weights.float().cpu()[list(places)]
        collate = self.stream.collate
        return StreamBatch(
            samples if collate is None else collate(samples),
            [item.key for item in own],
            torch.tensor([item.row for item in own]),
            weights,
        )

    def _singly(self, own: list[Item], selection: Selection) -> Iterator[Any]:
        if selection.weights is not None:
            raise InputError(
                f"{type(self.stream.selector).__name__} gives loss weights, which single samples "
                "cannot carry; leave as_batches at True"
            )
        state = self.state
        for place in range(state["within"], len(own)):
            decoded = self._decoded(own[place])
            state["within"] = (place + 1) % len(own)
            if not state["within"]:
                state["step"] += 1
            yield decoded

    def _decoded(self, item: Item) -> Any:
        if self.stream.decode is None:
            return item.sample
        try:
            return self.stream.decode(item.sample)
        except SalnError:
            raise
        except Exception as error:
            raise DataError(
                f"the sample {item.key!r} cannot be decoded ({type(error).__name__}: {error}); "
                "repair it or take it out of the stream"
            ) from error

    def _check_worker(self, worker: list[int] | None) -> None:
        stream, state = self.stream, self.state
        if worker is not None and worker[1] > 1:
            source = type(stream.source).__name__
            if stream._said is None and not stream.split and asks_for_worker(stream.source):
                raise InputError(
                    f"{source}.__iter__ asks which worker it runs in; if it shares its samples "
                    "out among the workers give already_split=('workers',), else already_split=()"
                )
        if worker is not None and type(stream.selector).state_dict is not Selector.state_dict:
            raise InputError(
                f"{type(stream.selector).__name__} remembers what happened, which a worker's "
                "copy of it would not; give the loader num_workers=0"
            )
        begun = bool(state["step"] or state["within"])
        saved = state["worker"]
        tied = saved is not None or "workers" in stream.split
        if begun and tied and saved != worker:
            raise InputError(
                f"the position is of {_of(saved)}, but is loaded in {_of(worker)}; load "
                "it with as many workers as it was saved with, by torchdata's StatefulDataLoader"
            )


def _of(worker: list[int] | None) -> str:
    if worker is None:
        return "a process without workers"
    return f"worker {worker[0]} of {worker[1]}"
