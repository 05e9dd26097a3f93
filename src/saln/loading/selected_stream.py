"""Choosing from a stream: samples that are dropped are read, but never decoded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any, Unpack

from torch.utils.data import IterableDataset

from saln.data.arguments import as_whole
from saln.distributed import Rank
from saln.errors import InputError
from saln.labels.teacher import FeatureTeacher
from saln.loading.batch_choice import ChoiceBeforeLoading
from saln.loading.epoch_setter import refuse_sharing_by_accelerate
from saln.loading.filter_schedule import FilterSchedule
from saln.loading.keyword_options import RankOptions, check_keywords
from saln.loading.positions import StreamPosition
from saln.loading.saved_state import refuse_other_settings, state_of
from saln.loading.stream_pass import StreamPass
from saln.loading.stream_reader import known_split, rows_by_key
from saln.messages import not_allowed
from saln.selection.contract import Selector

# The shuffle buffer holds the candidates of this many choices, where nobody says its size.
BUFFERED_CHOICES = 4
_SPLITS = frozenset({"ranks", "workers"})
# What must be the same for a saved position to lead to the same batches.
_SETTINGS = ("seed", "batch_size", "candidates", "selector", "shuffle_buffer")


class SelectedStreamOptions(RankOptions, total=False):
    """What :class:`SelectedStream` takes besides."""

    labels: Any
    """(N,); by default the store's."""
    label_confidence: Any
    """How likely each label is right, or who judges that: as SelectedBatches takes it."""
    teacher: FeatureTeacher | None
    """What :func:`saln.features_as_teacher` gave: as SelectedBatches takes it."""
    decode: Callable[[Any], Any] | None
    """Called with the raw sample, or the whole dict, of each kept sample."""
    collate: Callable[[list[Any]], Any] | None
    """Called with the list of a batch's decoded samples."""
    as_batches: bool
    """Give :class:`StreamBatch`, as by default; else one decoded sample after the other."""
    shuffle_buffer: int | None
    """How many samples each candidate is drawn from, by default four times as many as one choice
    looks at. 0 keeps the source's order: one that is the same in every epoch brings the same
    candidates together, and a selector without chance then drops the same examples for ever."""
    skip_unknown: bool
    """Leave samples without features out; else, and by default, they are an error."""
    key_field: str
    """Where in a dict its key is; ``"__key__"`` by default."""
    already_split: Sequence[str] | None
    """Among whom the source shares itself out: of ``"workers"`` and ``"ranks"``; ``()`` for none.
    By default found out for WebDataset's and Hugging Face's streams, and none for others."""


class SelectedStream(ChoiceBeforeLoading, IterableDataset[Any]):
    """Takes ``n`` samples of a stream at a time, keeps ``k`` of them and decodes only those.

    What is chosen by is looked up by each sample's key. A choice depends on (seed, epoch,
    step) and the candidates, as in :class:`~saln.SelectedBatches`; the last
    samples of an epoch, too few for ``n`` candidates, are left out. At most
    ``n + shuffle_buffer`` undecoded samples are held at once.

    Give it to a DataLoader with ``batch_size=None``, and call :meth:`set_epoch` before every
    epoch; that of the source is called too, where it has one.

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
        selector: Any selector that chooses before loading. One that remembers from epoch to
            epoch works without workers alone.
        batch_size: ``k``, of all ranks together.
        filter_ratio: ``f``, the share of candidates to drop, in [0, 1), or a schedule of it.
        seed: Decides every choice, and the shuffling.
        features: A feature store, (N, d) numbers or N, as SelectedBatches takes them; None for a
            selector that needs none. Samples that the store lists as skipped are left out.
        keys: The samples' keys in the order of the rows, or any mapping from key to row.
        **options: See :class:`SelectedStreamOptions`.

    Raises:
        InputError: A selector that needs the learner; features, labels and keys that do not
            fit together, or are not finite; a batch that the ranks cannot share. While
            iterating: a key without features; an iterator that is used up; a source that asks
            which worker it is in while nothing is said about it.
        DataError: While iterating: a sample that cannot be decoded; a stream that is not the
            one that a loaded position is of.
        TypeError: A keyword that there is not.
    """

    def __init__(
        self,
        source: Iterable[Any],
        *,
        selector: Selector | type[Selector] | str,
        batch_size: int,
        filter_ratio: float | Fraction | FilterSchedule,
        seed: int,
        features: Any = None,
        keys: Mapping[str, int] | Sequence[str] | None = None,
        **options: Unpack[SelectedStreamOptions],
    ) -> None:
        check_keywords(SelectedStreamOptions, type(self), options)
        self.options = options
        self.already_split = options.get("already_split")
        if self.already_split is not None and not set(self.already_split) <= _SPLITS:
            allowed = "those of 'workers' and 'ranks' among whom the source shares itself out"
            raise not_allowed("already_split", self.already_split, allowed)
        known = {"features": features, "labels": options.get("labels")}
        known |= {name: options.get(name) for name in ("label_confidence", "teacher")}
        super().__init__(selector, batch_size, filter_ratio, seed, options, known)
        self.source = source
        self.as_batches = options.get("as_batches", True)
        self.position: StreamPosition = StreamPosition()
        self._pass: StreamPass | None = None
        self._iterator_used = False
        self.keys = rows_by_key(keys, len(self.fields))
        buffered = options.get("shuffle_buffer")
        if buffered is None:
            buffered = BUFFERED_CHOICES * self.schedule.candidates(self.batch_size)
        self.shuffle_buffer = as_whole(buffered, "shuffle_buffer", 0)
        self.candidates_of(0)  # raises for itself

    @property
    def split(self) -> frozenset[str]:
        """Among whom the source shares itself out: of ``"ranks"`` and ``"workers"``."""
        if self.already_split is not None:
            return frozenset(self.already_split)
        return known_split(self.source) or frozenset()

    @property
    def batch_rank(self) -> Rank:
        """Which of those that one chosen batch is shared out among."""
        return Rank(0, 1) if "ranks" in self.split else self.sharing.current()

    @property
    def own_batch_size(self) -> int:
        """How many samples one choice here keeps: ``k``, or a rank's part of it."""
        return self.batch_size // (self.world_size if "ranks" in self.split else 1)

    def set_epoch(self, epoch: int) -> None:
        """Makes the next iteration the given epoch's.

        A position that was loaded stays, where the epoch is the one that it lies in.

        Raises:
            InputError: Accelerate's own ``prepare`` is about to share the stream out.
        """
        refuse_sharing_by_accelerate(self)
        if self.position.set_epoch(as_whole(epoch, "epoch")):
            self._pass = None
        self.seed_workers()

    def __iter__(self) -> Iterator[Any]:
        """Goes on from a position that was loaded, else begins the epoch."""
        if hasattr(self.source, "__next__") and iter(self.source) is self.source:
            if self._iterator_used:
                raise InputError(
                    f"the source is a {type(self.source).__name__}, which was used up by the "
                    "first epoch; give an object whose __iter__ starts anew"
                )
            self._iterator_used = True
        position = self.position
        state = position.to_resume()
        is_spent = state is None and self.has_ended(self.epoch)
        if is_spent:
            state = self.state_at(self.epoch) | {"ended": True}
        in_worker = position.loaded_in_worker
        self._pass = StreamPass(
            self,
            self.epoch if state is None else int(state["epoch"]),
            state,
            is_spent=is_spent,
            # One that a loader begins to go on from its state does not count: at the end of the
            # state's epoch the loader then begins another.
            is_users=state is None or not (in_worker or position.overridden_epoch is not None),
        )
        if in_worker and state is not None and not is_spent:
            # Before any worker is asked for a batch, so that all know of it.
            self._pass.look_ahead()
        return self._pass.run()

    def has_ended(self, epoch: int) -> bool:
        """Whether a loaded position was at an epoch's end."""
        return self.position.shared.has_ended(epoch, every_worker="workers" in self.split)

    def state_dict(self, *, steps: int | None = None) -> dict[str, Any]:
        """Where it is.

        Args:
            steps: How many batches of the epoch have been trained on, where a loader's
                workers iterate and this object does not know. By default what this object
                has given.
        """
        if steps is not None:
            steps = as_whole(steps, "steps", 0)
            return self.state_at(self.epoch) | {"step": steps, "base": steps}
        if self._pass is not None:
            return self._pass.state_dict()
        pending = self.position.pending
        return self.state_at(self.epoch) if pending is None else dict(pending)

    def state_at(self, epoch: int) -> dict[str, Any]:
        """The state at an epoch's beginning."""
        return state_of(self, epoch) | {
            "step": 0,  # choices made or passed over, in the order of the stream
            "within": 0,  # samples given of the next one
            "base": 0,  # the step that is the first worker's
            "worker": None,
            "ended": False,  # whether nothing of the epoch is left
            "rank": [self.rank, self.world_size] if "ranks" in self.split else None,
            "reading": None,
            "shuffle_buffer": self.shuffle_buffer,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from a saved state: the next iteration gives the batches that were left.

        Raises:
            InputError: The state is of a stream that would give other batches.
        """
        own = self.state_at(self.epoch)
        refuse_other_settings(state, own, ("seed", "batch_size"), "SelectedStream")
        epoch = as_whole(state["epoch"], "the state's epoch")
        own["candidates"] = self.candidates_of(epoch)
        refuse_other_settings(state, own, (*_SETTINGS, "rank"), "SelectedStream")
        self.selector.load_state_dict(state["selector_state"])
        self.position.load(dict(state))
        self._pass = None
        self._iterator_used = False
        self.seed_workers()
