"""Choosing before loading: a batch sampler that only ever names the kept examples."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Sampler

from saln.data.arguments import as_whole
from saln.data.items import MapStyle
from saln.distributed import Sharing
from saln.errors import InputError
from saln.features.store import FeatureStore
from saln.loading.batch_iterator import BatchIterator
from saln.loading.candidate_fields import (
    as_indices,
    as_number,
    as_ratio,
    as_selector,
    check_before_loading,
    known_before_loading,
)
from saln.loading.epoch_setter import EpochSetter
from saln.loading.filter_schedule import FilterSchedule
from saln.loading.loss_observer import Observing
from saln.loading.saved_state import described, refuse_other_settings
from saln.randomness import derive_generator, seed_workers
from saln.selection.candidates import Candidates, Selection, candidates_needed
from saln.selection.contract import Selector

# Times a part of a step under a name; see saln.training.cost_ledger.
Phase = Callable[[str], AbstractContextManager[Any]]


def no_phase(name: str) -> AbstractContextManager[Any]:
    """Times nothing."""
    return nullcontext()


class SelectedBatches(Sampler[list[int]]):
    """A batch sampler that chooses each batch among candidates before any is loaded.

    An epoch goes through the examples in a shuffled order, ``n`` candidates at a time,
    and keeps ``k = batch_size`` of each; the last examples of the order, too few for
    ``n`` candidates, are left out. The order depends on (seed, epoch) alone, so that
    samplers with different selectors see the same candidates; a choice depends on (seed,
    epoch, step) and on what the selector knew when the epoch began. So neither timing nor
    the number of ranks nor a resume changes any batch. What a store lists as skipped,
    because it could not be read, is never named.

    Give it as ``batch_sampler`` to any DataLoader. Call :meth:`set_epoch` before every epoch.

    Args:
        features: A feature store, (N, d) numbers as an array, tensor, list or data frame,
            or N itself for a selector that needs no features.
        selector: Any selector that chooses before loading: an object, or its class or name
            for one with its defaults.
        batch_size: ``k``, the size of every batch, of all ranks together.
        filter_ratio: ``f``, the share of candidates to drop, in [0, 1), or a schedule of
            it from epoch to epoch.
        seed: Decides the order and, with it, every choice.
        labels: (N,) or (N, 1): whole numbers from 0 of any type, or the classes' names; by
            default the store's.
        label_confidence: floating, (N,): how likely each label is right; by default what the
            neighbors by the features make of the labels.
        dataset: What will be loaded; checked against the store that ``features`` is.
        rank: Which process this is; it gets its equal share of every batch. By default
            torch.distributed's, read when it is needed; see also :meth:`share_among`.
        world_size: How many processes train together; both are given, or neither.
        ahead: How many batches a background thread may choose in advance; 0 chooses
            when asked.
        phase: Times the consumer's wait for a choice, as ``"select"``.

    Raises:
        InputError: A selector that needs the learner; features, labels or data set of
            different lengths; fewer examples than candidates for one batch; a feature that
            is not finite; a batch that the ranks cannot share.
        DataError: The store's features are of another data set.
    """

    def __init__(
        self,
        features: Any,
        *,
        selector: Selector | type[Selector] | str,
        batch_size: int,
        filter_ratio: float | FilterSchedule,
        seed: int,
        labels: Any = None,
        label_confidence: Any = None,
        dataset: MapStyle | None = None,
        rank: int | None = None,
        world_size: int | None = None,
        ahead: int = 2,
        phase: Phase = no_phase,
    ) -> None:
        self.selector = as_selector(selector)
        self.batch_size = as_whole(batch_size, "batch_size", 1)
        self.filter_ratio = as_ratio(filter_ratio)
        self.seed = as_number(seed, "seed")
        self.sharing = Sharing(self.batch_size, rank, world_size)
        self.ahead = as_whole(ahead, "ahead", 0)
        self.phase = phase
        check_before_loading(self.selector)
        store = features if isinstance(features, FeatureStore) else None
        count = None
        if store is None and not hasattr(features, "__len__"):
            count, features = as_whole(features, "features", 1), None
        self.fields, self.length = known_before_loading(
            self.selector, features, labels, label_confidence, owner="SelectedBatches", length=count
        )
        # What could not be read when the features were made is never a candidate.
        readable = None if store is None else store.readable
        self._readable = None if readable is None else torch.from_numpy(readable)
        self.usable = self.length if readable is None else len(readable)
        self.epoch = 0
        self._start = 0  # a loaded position, until its first batch is asked for
        self._named = 0
        self._iteration = 0
        self._epoch_set: int | None = None  # since the last load
        self._overridden: int | None = None  # set before the last load
        self._begun = False  # an iteration since the epoch was set
        self._warned = False
        self._weights: Tensor | None = None
        self._weights_of: int | None = None
        self._observing = Observing(self.selector, "batches")
        self._generator = torch.Generator()
        self.sampler = EpochSetter(self)
        self._check_sizes()
        self._check_dataset(dataset, store)

    @property
    def _name(self) -> str:
        return type(self.selector).__name__

    def _check_dataset(self, dataset: Any, store: FeatureStore | None) -> None:
        if dataset is not None and not hasattr(dataset, "__len__"):
            raise InputError(
                f"dataset is a {type(dataset).__name__} without a length; give the data set that "
                "the batches name examples of"
            )
        if dataset is not None and store is not None:
            store.check(dataset)
        elif dataset is not None and len(dataset) != self.length:
            raise InputError(
                f"the data set has {len(dataset)} examples, but {self.length} are chosen from; "
                "give the features of this data set"
            )

    def _check_sizes(self) -> None:
        ratio = self.filter_ratio
        ratios: set[float | Fraction] = {self._ratio(self.epoch)}
        if isinstance(ratio, FilterSchedule):
            ratios = {ratio.ratio(ratio.first_epoch + place) for place in range(ratio.epochs)}
        for one in ratios:
            needed = candidates_needed(self.batch_size, one)
            if needed > self.usable:
                raise InputError(
                    f"batch size {self.batch_size} at filter ratio {float(one):g} needs "
                    f"{needed} candidates, but there are {self.usable} examples; "
                    "lower the batch size or the filter ratio"
                )

    def _ratio(self, epoch: int) -> float | Fraction:
        ratio = self.filter_ratio
        return ratio.ratio(epoch) if isinstance(ratio, FilterSchedule) else ratio

    @property
    def rank(self) -> int:
        """Which process this is: as given, as :meth:`share_among` said, or the group's."""
        return self.sharing.current().index

    @property
    def world_size(self) -> int:
        """Among how many processes each batch is shared out here."""
        return self.sharing.current().count

    @property
    def drop_last(self) -> bool:
        """True. Libraries ask when they share batches out, which is done here already.

        Raises:
            InputError: There are several processes.
        """
        if self.world_size > 1:
            raise InputError(
                f"every one of the {self.world_size} processes takes its own share of a chosen "
                "batch, so nothing else may share it out: use saln.integrations.accelerate.prepare "
                "in the place of Accelerator.prepare; under Lightning "
                "saln.integrations.lightning.SelectedDataModule, or "
                "Trainer(use_distributed_sampler=False)"
            )
        return True

    def share_among(self, rank: int, world_size: int) -> None:
        """Says which of how many processes this is, whatever torch.distributed says.

        For what trains on the batches: ``share_among(0, 1)`` gives whole batches, to be shared
        out elsewhere or trained on by every process alike.

        Raises:
            InputError: Another rank than was given at the start, or a batch that so many
                processes cannot share.
        """
        self.sharing.assign(rank, world_size)

    @property
    def generator(self) -> torch.Generator:
        """Give it to the DataLoader: the seeds of its workers come from it.

        In a worker torch, NumPy and ``random`` are seeded by it: from the seed, the epoch, the
        position in it and the rank.
        """
        self._seed_workers()
        return self._generator

    def candidates_of(self, epoch: int) -> int:
        """``n``, how many candidates each batch of an epoch is chosen from."""
        return candidates_needed(self.batch_size, self._ratio(epoch))

    @property
    def n_candidates(self) -> int:
        """``n`` in the current epoch."""
        return self.candidates_of(self.epoch)

    def __len__(self) -> int:
        """The number of batches of the current epoch, from its beginning."""
        return self.usable // self.n_candidates

    def set_epoch(self, epoch: int) -> None:
        """Makes the next iteration the given epoch's.

        A position that was loaded stays, where the epoch is the one that it lies in.
        """
        epoch = as_number(epoch, "epoch")
        self.sampler.heard(epoch)
        self._epoch_set, self._overridden = epoch, None
        self._begun = False
        if epoch != self.epoch:
            self.epoch = epoch
            self._start = self._named = 0

    def _seed_workers(self) -> None:
        seed_workers(self._generator, self.seed, self.epoch, self._start, self.rank)

    def __iter__(self) -> BatchIterator:
        """Iterates over the kept indices of one batch after the other: this rank's share."""
        self._seed_workers()  # a loader draws their seed right after it asked for this iterator
        return BatchIterator(self, self.epoch, self._start)

    def state_dict(self, *, steps: int | None = None) -> dict[str, Any]:
        """Where it is: plain numbers and what the selector remembers.

        Args:
            steps: How many batches of the epoch have been trained on. By default, how many
                the last iteration has named; a loader with worker processes asks for
                batches long before they are trained on, so there give what you counted
                (or use a loader that counts itself, as torchdata's StatefulDataLoader).

        Raises:
            InputError: The epoch has not so many.
        """
        if steps is None:
            return self._state(self.epoch, self._named)
        steps = as_whole(steps, "steps", 0)
        if steps > len(self):
            raise InputError(
                f"steps={steps} is not allowed: epoch {self.epoch} has {len(self)}; give how many "
                "batches of this epoch were trained on"
            )
        return self._state(self.epoch, steps)

    def _state(self, epoch: int, step: int) -> dict[str, Any]:
        return {
            "epoch": epoch,
            "step": step,
            "seed": self.seed,
            "examples": self.usable,
            "batch_size": self.batch_size,
            "candidates": self.candidates_of(epoch),
            "selector": described(self.selector),
            "selector_state": self.selector.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from a saved state: the next iteration gives the batches that were left.

        The number of ranks may differ from then.

        Raises:
            InputError: The state is of a sampler that would give other batches.
        """
        own = self._state(self.epoch, 0)
        settings = ("seed", "examples", "batch_size", "candidates", "selector")
        refuse_other_settings(state, own, settings[:3], "SelectedBatches")
        epoch, step = (as_number(state[key], f"the state's {key}") for key in ("epoch", "step"))
        own["candidates"] = self.candidates_of(epoch)
        refuse_other_settings(state, own, settings, "SelectedBatches")
        if not 0 <= step <= self.usable // own["candidates"]:
            raise InputError(
                f"the state's step {step} is not in its epoch of "
                f"{self.usable // own['candidates']} steps; the state is damaged"
            )
        self.selector.load_state_dict(state["selector_state"])
        self.epoch, self._start = epoch, step
        self._named = self._start
        self._overridden = self._overridden if self._epoch_set is None else self._epoch_set
        self._epoch_set, self._begun = None, False
        self.sampler.loaded(epoch)
        self._weights_of = None  # what the selector knew may be other than before

    def order(self, epoch: int) -> Tensor:
        """The epoch's order of the examples that can be read: int64 (N,), or fewer."""
        generator = derive_generator(self.seed, "order", epoch)
        order = torch.randperm(self.usable, generator=generator)
        return order if self._readable is None else self._readable[order]

    def choose(self, indices: Tensor, epoch: int, step: int) -> Selection:
        """Chooses from candidates, as the step of an epoch does; the same on every rank.

        Args:
            indices: int64, (n,).
            epoch: As given to :meth:`set_epoch`.
            step: From 0.
        """
        if len(indices) == self.batch_size:  # nothing to drop
            return Selection(torch.arange(self.batch_size))
        fields: dict[str, Any] = {name: rows[indices] for name, rows in self.fields.items()}
        candidates = Candidates(indices=indices, **fields)
        generator = derive_generator(self.seed, "select", epoch, step)
        return self.selector(candidates, self.batch_size, generator=generator)

    def weights_of(self, indices: Any) -> Tensor | None:
        """Loss weights of examples that this epoch has named: float32, (m,), or None.

        None where the selector gives none: all weigh the same. An index is named at most
        once in an epoch, so it says which weight is meant::

            for rows, labels, indices in loader:
                losses = cross_entropy(learner(rows), labels, reduction="none")
                weights = batches.weights_of(indices)
                loss = losses.mean() if weights is None else (losses * weights).mean()
                ...
                batches.observe(indices, losses)

        Args:
            indices: (m,): whole numbers, on any device; the weights are on the CPU.
        """
        return None if self._weights is None else self._weights[as_indices(indices)]

    def observe(self, indices: Any, losses: Any) -> None:
        """Tells the selector, where it asks for them, the losses of a batch just trained.

        With several ranks each gives its own, and every rank must call this: they are
        brought together here, so that all choose alike.

        Args:
            indices: int64, (m,): this rank's.
            losses: floating, (m,): one an example, before any weights.

        Raises:
            InputError: Not one loss an index, or ranks that torch.distributed does not
                connect.
        """
        if self.selector.observes_losses:
            self._observing.tell(indices, losses, self.sharing.current())

    def _begin(self, epoch: int, *, loaded: bool) -> None:
        """Called with the first batch of an iteration; ``loaded``: by a loader with a state.

        A loader at the end of its state's epoch asks in vain, and then iterates anew: for that
        the position stays.
        """
        if epoch == self.epoch:
            self.sampler.used()
        if epoch == self.epoch and not loaded:
            self._start = 0  # the position, if any, is used up
            if self._begun and not self._warned:
                self._warned = True
                warnings.warn(
                    f"a second iteration of epoch {epoch} begins, with the same batches; call "
                    "set_epoch(epoch) before every epoch",
                    UserWarning,
                    stacklevel=4,
                )
            self._begun = True
        self._observing.begin(epoch)
        self.selector.begin_epoch(epoch)
        if self._weights_of != epoch:  # two iterations of an epoch name the same
            self._weights_of, self._weights = epoch, None

    def _kept(self, indices: Tensor, epoch: int, step: int) -> list[int]:
        selection = self.choose(indices, epoch, step)
        chosen = indices[selection.positions]
        if selection.weights is not None:
            if self._weights is None:
                self._weights = torch.ones(self.length)
            self._weights[chosen] = selection.weights.float().cpu()
        kept: list[int] = chosen.tolist()
        return kept
