"""One iteration of a stream: reads, chooses, decodes, and knows where it is."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from saln.errors import DataError, InputError, SalnError
from saln.loading.saved_state import warn_of_the_middle
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
    """One iteration of a stream: an epoch, or what is left of it after a state.

    ``is_spent`` says that there is nothing to give, as a loader's state was at the epoch's end;
    ``is_users`` whether this is an iteration of the user's, of which an epoch has one.
    """

    def __init__(
        self,
        stream: SelectedStream,
        epoch: int,
        state: dict[str, Any] | None,
        *,
        is_spent: bool,
        is_users: bool,
    ) -> None:
        self.stream = stream
        self.is_spent = is_spent
        self.is_users = is_users
        self.epoch = epoch
        self.is_resumed = state is not None
        # To begin where nothing is left of the state's: a loader loads its state only after the
        # user has set the epoch.
        overridden = stream.position.overridden_epoch
        self.next_epoch = overridden if overridden != epoch else None
        self.state = stream.state_at(epoch) if state is None else dict(state)
        self.reader: SampleReader | None = None
        self._batches: Iterator[Any] | None = None
        self._made_ahead: list[Any] = []
        self._state_before: dict[str, Any] | None = None  # that batch was made ahead

    def state_dict(self) -> dict[str, Any]:
        """Where it is, and what the selector remembers."""
        remembered = {"selector_state": self.stream.selector.state_dict()}
        if self._state_before is not None:
            return self._state_before | remembered
        state = self.state | remembered
        # In the middle of a choice its candidates must be read again: then the reader's position
        # is that from before it, which the state holds already.
        if self.reader is not None and not state["within"]:
            state["reading"] = self.reader.state_dict()
        return state

    def look_ahead(self) -> None:
        """Makes the first batch, so that it is known whether anything of the epoch is left."""
        self._state_before = dict(self.state)
        self._batches = self._rest()
        self._made_ahead = list(islice(self._batches, 1))

    def run(self) -> Iterator[Any]:
        """The batches, or samples, that are left."""
        stream = self.stream
        # Here, not when the iterator is made: loaders make some that they never ask.
        stream.position.use_up()
        if self.is_spent:
            stream.position.shared.clear_ends()  # the next iteration begins the epoch
            return
        if not self.is_resumed or self._batches is None:
            self._batches = self._rest()
        rest = chain(self._made_ahead, self._batches)
        self._made_ahead = []
        for number, batch in enumerate(rest):
            self._state_before = None
            if not number and self.next_epoch is not None:
                # Something is left of the state's epoch, although another was set.
                warn_of_the_middle(self.next_epoch, self.epoch)
            yield batch
        self._state_before = None
        if self.next_epoch is not None and stream.has_ended(self.epoch):
            self._go_to(self.next_epoch)
            yield from self._rest()

    def _go_to(self, epoch: int) -> None:
        """Begins another epoch, after one of which nothing was left."""
        before, self.epoch = self.state, epoch
        self.state = self.stream.state_at(epoch)
        if before["worker"] is not None:
            # Steps go round among the workers from "base" on: step 0 is the worker's whose turn it
            # would have been, had the state's epoch gone on.
            self.state["base"] = before["base"] - before["step"]
            self.state["worker"] = before["worker"]
        self.stream.position.enter(epoch)
        self.reader = None

    def _rest(self) -> Iterator[Any]:
        stream, state, epoch = self.stream, self.state, self.epoch
        shared = stream.position.shared
        info = get_worker_info()
        worker = None if info is None else [info.id, info.num_workers]
        first_step = state["step"]
        if state["ended"]:
            # Loaded at the end: the next iteration, which is the user's, must know of it.
            shared.mark_end(epoch)
            return
        _check_worker(stream, state, worker)
        if state["worker"] is None:  # saved outside workers: the first is next
            state["base"] = state["step"]
        state["worker"] = worker
        part = _part_of(stream, worker)
        self.reader = reader = self._open(part)
        if self.is_users:
            shared.begin(epoch)
        stream.begin_epoch(epoch)
        # Where every worker reads the whole stream, step s is worker (s mod workers)'s.
        lane, lanes = (0, 1) if worker is None or "workers" in stream.split else worker
        n = stream.candidates_of(epoch)
        while True:
            step = state["step"]
            if not stream.as_batches:
                state["reading"] = reader.state_dict()  # a stop may be in the middle
            items = list(islice(reader, n))
            if len(items) < n:  # the last samples, too few for a choice, are left out
                state["ended"] = True
                # A position after the last whole choice is at the end, too.
                if self.is_resumed and step == first_step and not state["within"]:
                    shared.mark_end(epoch)
                return
            if step == 0:
                _compare_order(stream, epoch, items)
            if (step - state["base"]) % lanes != lane:
                state["step"] += 1  # read, as the next step needs, but neither chosen nor decoded
                continue
            indices = torch.tensor([item.row for item in items])
            selection = stream.choose(indices, epoch, step, *part)
            chosen = [items[place] for place in selection.positions.tolist()]
            del items  # undecoded samples may be large: no more are held than must be
            own = list(stream.batch_rank.share(chosen))
            if stream.as_batches:
                state["step"] += 1
                yield self._batch(own, selection)
            else:
                yield from self._singly(own, selection)

    def _open(self, part: list[int | str]) -> SampleReader:
        """The source, at the state's position."""
        stream, state, epoch = self.stream, self.state, self.epoch
        tell_epoch(stream.source, epoch)
        reader = SampleReader(
            stream.source,
            keys=stream.keys,
            rows=len(stream.fields),
            skipped=frozenset(stream.fields.skipped.tolist()),
            skip_unknown=stream.options.get("skip_unknown", False),
            key_field=stream.options.get("key_field", "__key__"),
            size=max(1, stream.shuffle_buffer),
            generator=derive_generator(stream.seed, "shuffle", epoch, *part),
        )
        used = {"given": state["step"] * stream.candidates_of(epoch)}
        reader.load_state_dict(state["reading"] or used)
        return reader

    def _batch(self, own: list[Item], selection: Selection) -> StreamBatch:
        samples: Any = [self._decoded(item) for item in own]
        weights = selection.weights
        if weights is not None:
            places = self.stream.batch_rank.share(range(len(weights)))
            weights = weights.float().cpu()[list(places)]
        collate = self.stream.options.get("collate")
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
        decode = self.stream.options.get("decode")
        if decode is None:
            return item.sample
        try:
            return decode(item.sample)
        except SalnError:
            raise
        except Exception as error:
            raise DataError(
                f"the sample {item.key!r} cannot be decoded ({type(error).__name__}: {error}); "
                "repair it or take it out of the stream"
            ) from error


def _part_of(stream: SelectedStream, worker: list[int] | None) -> list[int | str]:
    """Which part of a source that shares itself out is read here; decides what is drawn."""
    part: list[int | str] = []
    if "ranks" in stream.split:
        part += ["rank", stream.rank]
    if "workers" in stream.split and worker is not None:
        part += ["worker", worker[0]]
    return part


def _check_worker(stream: SelectedStream, state: dict[str, Any], worker: list[int] | None) -> None:
    """Refuses a worker in which the stream cannot be read, or not from the state's position."""
    unknown = stream.already_split is None and not stream.split
    if worker is not None and worker[1] > 1 and unknown and asks_for_worker(stream.source):
        raise InputError(
            f"{type(stream.source).__name__}.__iter__ asks which worker it runs in; if it "
            "shares its samples out among the workers give already_split=('workers',), else "
            "already_split=()"
        )
    if worker is not None and type(stream.selector).state_dict is not Selector.state_dict:
        raise InputError(
            f"{type(stream.selector).__name__} remembers what happened, which a worker's "
            "copy of it would not; give the loader num_workers=0"
        )
    begun = bool(state["step"] or state["within"])
    saved = state["worker"]
    # A position that was saved outside workers, by counting steps, is that of any number of them,
    # unless each reads a part of its own.
    tied = saved is not None or "workers" in stream.split
    if begun and tied and saved != worker:
        raise InputError(
            f"the position is of {_named(saved)}, but is loaded in {_named(worker)}; load "
            "it with as many workers as it was saved with, by torchdata's StatefulDataLoader"
        )


def _compare_order(stream: SelectedStream, epoch: int, items: list[Item]) -> None:
    """Looks whether epochs begin alike, where that matters: something is dropped, by a rule."""
    drops = len(items) > stream.own_batch_size and bool(stream.selector.requires)
    if drops and not stream.shuffle_buffer:
        keys, name = [item.key for item in items], type(stream.selector).__name__
        stream.position.shared.compare_order(epoch, keys, name)


def _named(worker: list[int] | None) -> str:
    if worker is None:
        return "a process without workers"
    return f"worker {worker[0]} of {worker[1]}"
