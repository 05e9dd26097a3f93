"""Choosing from a stream: samples that are dropped are read, but never decoded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from saln.errors import InputError
from saln.features.store import FeatureStore
from saln.loading.batches import check_finite
from saln.loading.ranks import Sharing
from saln.loading.rows import Rows
from saln.loading.schedules import FilterSchedule
from saln.loading.sources import found_split, rows_by_key
from saln.loading.stream_pass import StreamBatch, StreamPass
from saln.randomness import derive_generator, seed_workers
from saln.selection.candidates import Candidates, Selection, candidates_needed
from saln.selection.coherence import store_beliefs
from saln.selection.contract import BEFORE_LOADING, Selector

__all__ = ["SelectedStream", "StreamBatch"]

_SPLITS = frozenset({"ranks", "workers"})
# What must be the same for a saved position to lead to the same batches.
_SETTINGS = ("seed", "batch_size", "candidates", "selector", "shuffle_buffer")


class SelectedStream(IterableDataset[Any]):
    """Takes ``n`` samples of a stream at a time, keeps ``k`` of them and decodes only those.

    What is chosen by is looked up by each sample's key. A choice depends on (seed, epoch,
    step) and the candidates, as in :class:`~saln.loading.batches.SelectedBatches`; the last
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
        features: A feature store or an (N, d) array; None for a selector that needs none.
        keys: The samples' keys in the order of the rows, or any mapping from key to row.
        selector: Any selector that chooses before loading. One that remembers from epoch to
            epoch works without workers alone.
        batch_size: ``k``, of all ranks together.
        filter_ratio: ``f``, the share of candidates to drop, in [0, 1), or a schedule of it.
        seed: Decides every choice, and the shuffling.
        labels: int64, (N,); by default the store's.
        label_confidence: floating, (N,); by default what the store's neighbours say.
        decode: Called with the raw sample, or the whole dict, of each kept sample.
        collate: Called with the list of a batch's decoded samples.
        as_batches: Give :class:`StreamBatch`; else one decoded sample after the other.
        shuffle_buffer: Draw each candidate from so many samples; 0 keeps the stream's order.
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
        selector: Selector,
        batch_size: int,
        filter_ratio: float | FilterSchedule,
        seed: int,
        features: FeatureStore | npt.NDArray[Any] | None = None,
        keys: Mapping[str, int] | Sequence[str] | None = None,
        labels: npt.NDArray[np.int64] | None = None,
        label_confidence: npt.NDArray[np.floating[Any]] | None = None,
        decode: Callable[[Any], Any] | None = None,
        collate: Callable[[list[Any]], Any] | None = None,
        as_batches: bool = True,
        shuffle_buffer: int = 0,
        skip_unknown: bool = False,
        key_field: str = "__key__",
        already_split: Sequence[str] | None = None,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        if shuffle_buffer < 0:
            raise InputError(f"shuffle_buffer={shuffle_buffer} is not allowed; give 0 or more")
        if already_split is not None and not set(already_split) <= _SPLITS:
            raise InputError(
                f"already_split={already_split!r} is not allowed; give those of 'workers' and "
                "'ranks' among whom the source shares itself out"
            )
        if not selector.chooses_before_loading():
            needs = ", ".join(sorted(selector.requires - BEFORE_LOADING))
            raise InputError(
                f"{type(selector).__name__} requires {needs}, which only the learner can give; "
                "use saln.LearnerSelected, which chooses after loading"
            )
        self.source = source
        self.selector = selector
        self.batch_size = batch_size
        self.filter_ratio = filter_ratio
        self.seed = seed
        self.decode = decode
        self.collate = collate
        self.as_batches = as_batches
        self.shuffle_buffer = shuffle_buffer
        self.skip_unknown = skip_unknown
        self.key_field = key_field
        self.sharing = Sharing(batch_size, rank, world_size)
        self._said = None if already_split is None else frozenset(already_split)
        # Shared, so that workers that outlive an epoch see the next one's number.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()
        self._generator = torch.Generator()
        self._pending: dict[str, Any] | None = None
        self._pass: StreamPass | None = None
        self._used_up = False

        store = features if isinstance(features, FeatureStore) else None
        rows: npt.NDArray[Any] | None = None
        if isinstance(features, FeatureStore):
            rows = features.features
        elif features is not None:
            rows = features
        if store is not None:
            labels = store.labels if labels is None else labels
            if "label_confidence" in selector.requires and label_confidence is None:
                label_confidence = store_beliefs(store, labels).confidence.numpy()
        given: dict[str, npt.NDArray[Any] | None] = {
            "features": rows,
            "labels": labels,
            "label_confidence": label_confidence,
        }
        lengths = {name: len(values) for name, values in given.items() if values is not None}
        if len(set(lengths.values())) > 1:
            raise InputError(
                f"{', '.join(f'{count} {name}' for name, count in lengths.items())}: give one "
                "of each a row"
            )
        self.rows = next(iter(lengths.values()), 0)
        self.fields: dict[str, Rows] = {}
        for name in sorted(selector.requires):
            values = given[name]
            if values is None:
                raise InputError(
                    f"{type(selector).__name__} requires {name}; give them to SelectedStream"
                )
            if store is None or name != "features":  # a store holds nothing else
                check_finite(name, values)
            self.fields[name] = Rows(values)
        if lengths and keys is None:
            raise InputError(
                "features without keys; give the samples' keys in the order of the rows, or a "
                "mapping from key to row, with keys=..."
            )
        self.keys = rows_by_key(keys, self.rows) if keys is not None and lengths else None
        if self.keys is not None and store is not None and store.skipped:
            # What could not be read when the features were made has none.
            gone = {entry.row for entry in store.skipped}
            self.keys = {key: row for key, row in self.keys.items() if row not in gone}
        self.candidates_of(0)  # raises for itself

    @property
    def epoch(self) -> int:
        """The epoch that the next iteration is of."""
        return int(self._epoch)

    @property
    def rank(self) -> int:
        """Which process this is: as given, as :meth:`share_among` said, or the group's."""
        return self.sharing.now().index

    @property
    def world_size(self) -> int:
        """Among how many processes each batch is shared out."""
        return self.sharing.now().count

    def share_among(self, rank: int, world_size: int) -> None:
        """Says which of how many processes this is, whatever torch.distributed says.

        Raises:
            InputError: Another rank than was given at the start, or a batch that so many
                processes cannot share.
        """
        self.sharing.among(rank, world_size)

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

    @property
    def n_candidates(self) -> int:
        """``n`` in the current epoch."""
        return self.candidates_of(self.epoch)

    def set_epoch(self, epoch: int) -> None:
        """Makes the next iteration the given epoch's.

        A position that was loaded stays, where the epoch is the one that it lies in.
        """
        if epoch != self.epoch:
            self._epoch.fill_(epoch)
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
        pending, self._pending = self._pending, None
        # A worker that outlives an epoch keeps the position that it was started with.
        if pending is not None and pending["epoch"] != self.epoch:
            pending = None
        self._pass = StreamPass(self, self.epoch, pending)
        return self._pass.run()

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

    def observe(self, indices: Tensor, losses: Tensor) -> None:
        """Tells the selector, where it asks for them, the losses of a batch just trained.

        Args:
            indices: int64, (m,): with several ranks, those of all of them.
            losses: floating, (m,): one an example, before any weights.
        """
        if self.selector.observes_losses:
            self.selector.observe(indices, losses)

    def state_dict(self, *, steps: int | None = None) -> dict[str, Any]:
        """Where it is.

        Args:
            steps: How many batches of the epoch have been trained on, where a loader's
                workers iterate and this object does not know. By default what this object
                has given.
        """
        if steps is not None:
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
            "rank": [self.rank, self.world_size] if "ranks" in self.split else None,
            "reading": None,
            "seed": self.seed,
            "batch_size": self.batch_size,
            "candidates": self.candidates_of(epoch),
            "selector": type(self.selector).__name__,
            "shuffle_buffer": self.shuffle_buffer,
            "selector_state": self.selector.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from a saved state: the next iteration gives the batches that were left.

        Raises:
            InputError: The state is of a stream that would give other batches.
        """
        own = self._state(int(state.get("epoch", self.epoch)))
        if set(own) != set(state):
            raise InputError(
                f"the state holds {', '.join(sorted(state)) or 'nothing'}; expected "
                f"{', '.join(sorted(own))}: give what SelectedStream.state_dict() gave"
            )
        for key in (*_SETTINGS, "rank"):
            if own[key] != state[key]:
                raise InputError(
                    f"the state was saved with {key} {state[key]}, here it is {own[key]}; "
                    "go on with the settings that it was saved with"
                )
        self.selector.load_state_dict(state["selector_state"])
        self._epoch.fill_(state["epoch"])
        self._pending, self._pass = dict(state), None
        self._seed_workers()
        self._used_up = False
