"""Choosing from a stream: samples that are dropped are read, but never decoded."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from saln.data.arguments import as_whole
from saln.distributed import Rank, Sharing
from saln.errors import InputError
from saln.features.store import FeatureStore
from saln.loading.candidate_fields import (
    as_number,
    as_ratio,
    as_selector,
    check_before_loading,
    known_before_loading,
)
from saln.loading.epoch_setter import refuse_sharing_by_accelerate
from saln.loading.filter_schedule import FilterSchedule
from saln.loading.loss_observer import Observing
from saln.loading.saved_state import described, refuse_other_settings
from saln.loading.stream_pass import StreamPass
from saln.loading.stream_reader import found_split, rows_by_key
from saln.randomness import derive_generator, derive_seed, seed_workers
from saln.selection.candidates import Candidates, Selection, candidates_needed
from saln.selection.contract import Selector

# So many choices' candidates are in the shuffle buffer, where nobody says how many.
BUFFERED_CHOICES = 4
_SPLITS = frozenset({"ranks", "workers"})
# Where in the memory that workers share: the epoch; whether it was set since a position was
# loaded; how often it was set; how often then when an iteration last began, plus one; the order
# of the first candidates, as a number, and their epoch, plus one; the seed of the workers that
# went on from the position that they were made with; what was warned of.
_EPOCH, _SET, _TIMES, _BEGUN, _ORDER, _ORDER_OF, _USED_BY, _SAID_TWICE, _SAID_ORDER = range(9)
# So many workers tell one another that they were at the end of an epoch.
_MOST_WORKERS = 1024
# What must be the same for a saved position to lead to the same batches.
_SETTINGS = ("seed", "batch_size", "candidates", "selector", "shuffle_buffer")


class SelectedStream(IterableDataset[Any]):
    """Takes ``n`` samples of a stream at a time, keeps ``k`` of them and decodes only those.

    What is chosen by is looked up by each sample's key. A choice depends on (seed, epoch,
    step) and the candidates, as in :class:`~saln.SelectedBatches`; the last
    samples of an epoch, too few for ``n`` candidates, are left out. At most
    ``n + shuffle_buffer`` undecoded samples are held at once.

    Give it to a DataLoader with ``batch_size=None``, and call :meth:`set_epoch` before every
    epoch; a source with a ``set_epoch`` of its own is told too.

    **Workers and ranks.** A source that gives everything to everyone is shared out here:
    every worker reads the stream, chooses for and decodes its own steps alone (step ``s`` is
    worker ``s mod workers``'s), so the loader gives the batches that it would without
    workers; every rank makes the same choice for the global batch and decodes its equal
    share. A source that shares itself out among the workers, as WebDataset does with its
    shards, is not shared out again: each worker chooses from what it gets. One that shares
    itself out among the ranks gives each rank other candidates, of which it keeps
    ``batch_size / world_size``; then ranks may differ in their number of batches.

    **Resume.** The source must give the same order whenever an epoch starts anew. On resume
    it is read up to the position, undecoded, or put there by its own ``state_dict`` and
    ``load_state_dict`` where it has them; then the samples in the shuffle buffer are saved
    with the state. With workers use torchdata's StatefulDataLoader, which keeps every
    worker's state, or, where the source is shared out here, ``state_dict(steps=...)``.

    Args:
        source: Any iterable of pairs (key, raw sample), or of dicts that hold their key, as
            WebDataset gives them before ``decode``. One that is an iterator lasts one epoch.
        features: A feature store or (N, d) numbers, as SelectedBatches takes them; None for a
            selector that needs none.
        keys: The samples' keys in the order of the rows, or any mapping from key to row.
        selector: Any selector that chooses before loading. One that remembers from epoch to
            epoch works without workers alone.
        batch_size: ``k``, of all ranks together.
        filter_ratio: ``f``, the share of candidates to drop, in [0, 1), or a schedule of it.
        seed: Decides every choice, and the shuffling.
        labels: (N,); by default the store's.
        label_confidence: floating, (N,); by default what the neighbors say.
        decode: Called with the raw sample, or the whole dict, of each kept sample.
        collate: Called with the list of a batch's decoded samples.
        as_batches: Give :class:`StreamBatch`; else one decoded sample after the other.
        shuffle_buffer: Draw each candidate from so many samples, by default four times as many
            as one choice looks at. 0 keeps the source's order: one that is the same in every
            epoch brings the same candidates together, and a selector without chance then
            drops the same examples for ever.
        skip_unknown: Leave samples without features out; else they are an error.
        key_field: Where in a dict its key is.
        already_split: Among whom the source shares itself out: of ``"workers"`` and
            ``"ranks"``; ``()`` for none. By default found out for WebDataset's and Hugging
            Face's streams, and taken as none for others.
        rank: Which process this is; by default torch.distributed's, read when it is needed.
        world_size: How many processes train together; both are given, or neither.

    Raises:
        InputError: A selector that needs the learner; features, labels and keys that do not
            fit together, or are not finite; a batch that the ranks cannot share. While
            iterating: a key without features; an iterator that is used up; a source that asks
            which worker it is in while nothing is said about it.
        DataError: While iterating: a sample that cannot be decoded; a stream that is not the
            one that a loaded position is of.
    """

    def __init__(
        self,
        source: Iterable[Any],
        *,
        selector: Selector | type[Selector] | str,
        batch_size: int,
        filter_ratio: float | FilterSchedule,
        seed: int,
        features: Any = None,
        keys: Mapping[str, int] | Sequence[str] | None = None,
        labels: Any = None,
        label_confidence: Any = None,
        decode: Callable[[Any], Any] | None = None,
        collate: Callable[[list[Any]], Any] | None = None,
        as_batches: bool = True,
        shuffle_buffer: int | None = None,
        skip_unknown: bool = False,
        key_field: str = "__key__",
        already_split: Sequence[str] | None = None,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        if already_split is not None and not set(already_split) <= _SPLITS:
            raise InputError(
                f"already_split={already_split!r} is not allowed; give those of 'workers' and "
                "'ranks' among whom the source shares itself out"
            )
        self.source = source
        self.selector = as_selector(selector)
        check_before_loading(self.selector)
        self.batch_size = as_whole(batch_size, "batch_size", 1)
        self.filter_ratio = as_ratio(filter_ratio)
        self.seed = as_number(seed, "seed")
        self.sharing = Sharing(self.batch_size, rank, world_size)
        self.decode = decode
        self.collate = collate
        self.as_batches = as_batches
        self.skip_unknown = skip_unknown
        self.key_field = key_field
        self._said = None if already_split is None else frozenset(already_split)
        # Shared, so that workers that outlive an epoch see the next one's number.
        self._shared = torch.zeros(9, dtype=torch.int64).share_memory_()
        # Of each worker: the epoch at whose end its loaded position was, plus one.
        self._ends = torch.zeros(_MOST_WORKERS, dtype=torch.int64).share_memory_()
        self._generator = torch.Generator()
        self._pending: dict[str, Any] | None = None  # a loaded position, until it is gone on from
        self._loaded_here = False  # in this worker, by its loader
        self._wanted: int | None = None  # the epoch that was set before that was loaded
        self._pass: StreamPass | None = None
        self._used_up = False
        self._observing = Observing(self.selector, "stream")

        store = features if isinstance(features, FeatureStore) else None
        self.fields, self.rows = known_before_loading(
            self.selector, features, labels, label_confidence, owner="SelectedStream"
        )
        if self.rows and keys is None:
            raise InputError(
                "features without keys; give the samples' keys in the order of the rows, or a "
                "mapping from key to row, with keys=..."
            )
        self.keys = rows_by_key(keys, self.rows) if keys is not None and self.rows else None
        if self.keys is not None and store is not None and store.skipped:
            # What could not be read when the features were made has none.
            gone = {entry.row for entry in store.skipped}
            self.keys = {key: row for key, row in self.keys.items() if row not in gone}
        if shuffle_buffer is None:
            shuffle_buffer = BUFFERED_CHOICES * self._most_candidates()
        self.shuffle_buffer = as_whole(shuffle_buffer, "shuffle_buffer", 0)
        self.candidates_of(0)  # raises for itself

    @property
    def epoch(self) -> int:
        """The epoch that the next iteration is of."""
        return int(self._shared[_EPOCH])

    @property
    def rank(self) -> int:
        """Which process this is: as given, as :meth:`share_among` said, or the group's."""
        return self.sharing.current().index

    @property
    def world_size(self) -> int:
        """Among how many processes each batch is shared out."""
        return self.sharing.current().count

    def share_among(self, rank: int, world_size: int) -> None:
        """Says which of how many processes this is, whatever torch.distributed says.

        Raises:
            InputError: Another rank than was given at the start, or a batch that so many
                processes cannot share.
        """
        self.sharing.assign(rank, world_size)

    @property
    def generator(self) -> torch.Generator:
        """Give it to the DataLoader; see :attr:`SelectedBatches.generator`."""
        self._seed_workers()
        return self._generator

    def _seed_workers(self) -> None:
        step = 0 if self._pending is None else int(self._pending["step"])
        seed_workers(self._generator, self.seed, self.epoch, step, self.rank)

    @property
    def split(self) -> frozenset[str]:
        """Among whom the source shares itself out: of ``"ranks"`` and ``"workers"``."""
        if self._said is not None:
            return self._said
        return found_split(self.source) or frozenset()

    @property
    def own_batch_size(self) -> int:
        """How many samples one choice here keeps: ``k``, or a rank's part of it."""
        return self.batch_size // (self.world_size if "ranks" in self.split else 1)

    def candidates_of(self, epoch: int) -> int:
        """``n``, how many candidates each choice of an epoch is made from."""
        ratio: float | Fraction | FilterSchedule = self.filter_ratio
        ratio = ratio.ratio(epoch) if isinstance(ratio, FilterSchedule) else ratio
        return candidates_needed(self.own_batch_size, ratio)

    def _most_candidates(self) -> int:
        ratio = self.filter_ratio
        if isinstance(ratio, FilterSchedule):
            return ratio.candidates(self.batch_size)
        return candidates_needed(self.batch_size, ratio)

    @property
    def n_candidates(self) -> int:
        """``n`` in the current epoch."""
        return self.candidates_of(self.epoch)

    def set_epoch(self, epoch: int) -> None:
        """Makes the next iteration the given epoch's.

        A position that was loaded stays, where the epoch is the one that it lies in.

        Raises:
            InputError: Accelerate's own ``prepare`` is about to share the stream out.
        """
        refuse_sharing_by_accelerate(self)
        epoch = as_number(epoch, "epoch")
        self._shared[_TIMES] += 1
        self._shared[_SET] = 1
        self._ends.zero_()
        self._wanted = None
        if epoch != self.epoch:
            self._shared[_EPOCH] = epoch
            self._pending = self._pass = None
        self._seed_workers()

    def __iter__(self) -> Iterator[Any]:
        """Goes on from a position that was loaded, else begins the epoch."""
        if hasattr(self.source, "__next__") and iter(self.source) is self.source:
            if self._used_up:
                raise InputError(
                    f"the source is a {type(self.source).__name__}, which was used up by the "
                    "first epoch; give an object whose __iter__ starts anew"
                )
            self._used_up = True
        # Loaders may ask for an iterator twice: the position lasts until a sample is asked for.
        pending, wanted = self._pending, self._wanted
        info = get_worker_info()
        if pending is not None and info is not None and not self._loaded_here:
            # Made with it, as were the workers of every later iteration.
            workers = info.seed - info.id
            if self._shared[_USED_BY] == 0:
                self._shared[_USED_BY] = workers
            pending = pending if self._shared[_USED_BY] == workers else None
        if pending is not None and pending["epoch"] != self.epoch and wanted is None:
            pending = None
        spent = pending is None and self._nothing_left(self.epoch)
        if spent:
            pending = self._state(self.epoch) | {"ended": True}
        epoch = self.epoch if pending is None else int(pending["epoch"])
        own = pending is not None and not self._loaded_here and wanted is None
        self._pass = StreamPass(
            self, epoch, pending, wanted, spent=spent, counts=pending is None or own
        )
        if self._loaded_here and pending is not None and not spent:
            # Before any worker is asked for a batch, so that all know of it.
            self._pass.look_ahead()
        return self._pass.run()

    def _nothing_left(self, epoch: int) -> bool:
        """Whether a loader's state, of which its workers hold parts, was at an epoch's end.

        Where the steps go round among the workers, the one that gave the last of them knows;
        where each has a part of the source, all must be at its end.
        """
        info = get_worker_info()
        ends = self._ends[: 1 if info is None else info.num_workers] == epoch + 1
        return bool(ends.all() if "workers" in self.split else ends.any())

    def _at_end(self, epoch: int) -> None:
        """Called by an iteration whose loaded position is at the epoch's end."""
        info = get_worker_info()
        self._ends[0 if info is None else min(info.id, _MOST_WORKERS - 1)] = epoch + 1

    def _go_on_in(self, epoch: int) -> None:
        """Called by an iteration that goes on to the epoch that was set."""
        if get_worker_info() is None:
            self._shared[_EPOCH], self._shared[_SET] = epoch, 1

    def _begin(self, epoch: int, *, counts: bool) -> None:
        """Called by an iteration that reads its first sample.

        One that a loader begins to go on from its state does not count: at the end of the
        state's epoch the loader then begins another.
        """
        info = get_worker_info()
        if counts and (info is None or info.id == 0):
            times = int(self._shared[_TIMES]) + 1
            if self._shared[_BEGUN] == times:
                self._say_once(
                    _SAID_TWICE,
                    f"a second iteration of epoch {epoch} begins; call set_epoch(epoch) before "
                    "every epoch",
                )
            self._shared[_BEGUN] = times
        self._observing.begin(epoch)
        self.selector.begin_epoch(epoch)

    def _look_at_order(self, epoch: int, keys: list[str]) -> None:
        """Called with an epoch's first candidates, where they come as the source gives them."""
        order = derive_seed(*keys)
        before = int(self._shared[_ORDER_OF])
        if before not in (0, epoch + 1) and int(self._shared[_ORDER]) == order:
            self._say_once(
                _SAID_ORDER,
                "the source gives the same order in every epoch and shuffle_buffer is 0, so the "
                f"same candidates meet again and {type(self.selector).__name__} drops the same "
                "examples for ever; give a shuffle_buffer, or a source that shuffles by epoch",
            )
        self._shared[_ORDER], self._shared[_ORDER_OF] = order, epoch + 1

    def _say_once(self, what: int, text: str) -> None:
        if not self._shared[what]:
            self._shared[what] = 1
            warnings.warn(text, UserWarning, stacklevel=5)

    def choose(self, indices: Tensor, epoch: int, step: int, *stream: int | str) -> Selection:
        """Chooses from candidates, as the step of an epoch does.

        Args:
            indices: int64, (n,).
            epoch: As given to :meth:`set_epoch`.
            step: From 0.
            *stream: Which of the parts of a source that shares itself out.
        """
        k = self.own_batch_size
        if len(indices) == k:  # nothing to drop
            return Selection(torch.arange(k))
        fields: dict[str, Any] = {name: rows[indices] for name, rows in self.fields.items()}
        generator = derive_generator(self.seed, "select", epoch, step, *stream)
        return self.selector(Candidates(indices=indices, **fields), k, generator=generator)

    def observe(self, indices: Any, losses: Any) -> None:
        """Tells the selector, where it asks for them, the losses of a batch just trained.

        With several ranks each gives its own, and every rank must call this: they are brought
        together here. Where the source shares itself out among the ranks, each chooses by
        its own alone.

        Args:
            indices: int64, (m,): this rank's.
            losses: floating, (m,): one an example, before any weights.
        """
        if self.selector.observes_losses:
            rank = Rank(0, 1) if "ranks" in self.split else self.sharing.current()
            self._observing.tell(indices, losses, rank)

    def state_dict(self, *, steps: int | None = None) -> dict[str, Any]:
        """Where it is.

        Args:
            steps: How many batches of the epoch have been trained on, where a loader's
                workers iterate and this object does not know. By default what this object
                has given.
        """
        if steps is not None:
            steps = as_whole(steps, "steps", 0)
            return self._state(self.epoch) | {"step": steps, "base": steps}
        if self._pass is not None:
            return self._pass.state_dict()
        return self._state(self.epoch) if self._pending is None else dict(self._pending)

    def _state(self, epoch: int) -> dict[str, Any]:
        return {
            "epoch": epoch,
            "step": 0,  # choices made or passed over, in the order of the stream
            "within": 0,  # samples given of the next one
            "base": 0,  # the step that is the first worker's
            "worker": None,
            "ended": False,  # whether nothing of the epoch is left
            "rank": [self.rank, self.world_size] if "ranks" in self.split else None,
            "reading": None,
            "seed": self.seed,
            "batch_size": self.batch_size,
            "candidates": self.candidates_of(epoch),
            "selector": described(self.selector),
            "shuffle_buffer": self.shuffle_buffer,
            "selector_state": self.selector.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from a saved state: the next iteration gives the batches that were left.

        Raises:
            InputError: The state is of a stream that would give other batches.
        """
        own = self._state(self.epoch)
        refuse_other_settings(state, own, ("seed", "batch_size"), "SelectedStream")
        epoch = as_number(state["epoch"], "the state's epoch")
        own["candidates"] = self.candidates_of(epoch)
        refuse_other_settings(state, own, (*_SETTINGS, "rank"), "SelectedStream")
        self.selector.load_state_dict(state["selector_state"])
        shared = self._shared
        if shared[_SET]:
            self._wanted = self.epoch
        # In a worker this is a copy: the epoch that was set in the main process stays.
        self._loaded_here = get_worker_info() is not None
        if not self._loaded_here:
            shared[_SET] = shared[_USED_BY] = 0
            shared[_TIMES] += 1
            self._ends.zero_()
        if not shared[_SET]:
            shared[_EPOCH] = epoch
        self._pending, self._pass = dict(state), None
        self._used_up = False
        self._seed_workers()
