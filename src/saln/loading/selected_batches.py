"""Choosing before loading: a batch sampler that only ever names the kept examples."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any, Unpack

import torch
from torch import Tensor
from torch.utils.data import Sampler

from saln.data.arguments import as_whole
from saln.data.items import MapStyle
from saln.errors import InputError
from saln.features.neighbors import NeighborTable
from saln.features.store import FeatureStore
from saln.labels.teacher import FeatureTeacher
from saln.loading.batch_choice import ChoiceBeforeLoading, Phase, no_phase
from saln.loading.batch_iterator import BatchIterator
from saln.loading.candidate_fields import as_indices, as_selector
from saln.loading.epoch_setter import EpochSetter
from saln.loading.filter_schedule import FilterSchedule
from saln.loading.keyword_options import RankOptions, check_keywords
from saln.loading.positions import BatchPosition
from saln.loading.saved_state import refuse_other_settings, state_of
from saln.randomness import derive_generator
from saln.selection.candidates import candidates_needed
from saln.selection.contract import Selector


class SelectedBatchesOptions(RankOptions, total=False):
    """What :class:`SelectedBatches` takes besides."""

    teacher: FeatureTeacher | None
    """What :func:`saln.features_as_teacher` gave, for selectors that ask a teacher, by default made
    of features and labels where the selector does; and for :meth:`SelectedBatches.targets_of`."""
    neighbors: NeighborTable | None
    """What :func:`saln.features.nearest_neighbors` gave, for selectors that ask the neighbors; by
    default they are sought by the features."""
    balance: bool
    """Whether to keep as many of each believed class: :meth:`saln.Selector.by_class`."""
    dataset: MapStyle | None
    """What will be loaded; checked against the store that ``features`` is, or by its length."""
    ahead: int
    """How many batches a background thread may choose in advance, by default 2; 0 chooses when
    asked."""
    phase: Phase
    """Times the consumer's wait for a choice, as ``"select"``."""


class EpochWeights:
    """The loss weights of the examples that one epoch has named."""

    def __init__(self, length: int) -> None:
        self._length = length
        self.epoch: int | None = None
        self.values: Tensor | None = None

    def begin(self, epoch: int) -> None:
        """Forgets another epoch's; two iterations of an epoch name the same."""
        if self.epoch != epoch:
            self.epoch, self.values = epoch, None

    def keep(self, indices: Tensor, weights: Tensor | None) -> None:
        """Takes the weights of a chosen batch; None where all weigh the same."""
        if weights is None:
            return
        if self.values is None:
            self.values = torch.ones(self._length)
        # An epoch names no example twice, so its index says which weight is meant.
        self.values[indices] = weights.float().cpu()


class SelectedBatches(ChoiceBeforeLoading, Sampler[list[int]]):
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
        features: A feature store; numbers (N, d) as an array, memory-mapped or not, a tensor, a
            list of rows or a data frame; or N itself for a selector that needs no features.
        selector: Any selector that chooses before loading: an object, or its class or name
            for one with its defaults.
        batch_size: ``k``, the size of every batch, of all ranks together.
        filter_ratio: ``f``, the share of candidates to drop, in [0, 1), or a schedule of
            it from epoch to epoch.
        seed: Decides the order and, with it, every choice.
        labels: (N,) or (N, 1): whole numbers from 0 of any type, or the classes' names; by
            default the store's.
        label_confidence: How likely each label is right: numbers (N,), what
            :func:`saln.judge_labels` gave, ``"labels"``, which calls it, or ``"neighbors"``, which
            asks the neighbors by the features. By default the selector says which of the two, and
            it is the neighbors where it says nothing. Nothing is written.
        **options: See :class:`SelectedBatchesOptions`.

    Raises:
        InputError: A selector that needs the learner; features, labels or data set of
            different lengths; fewer examples than candidates for one batch; a feature that
            is not finite; a batch that the ranks cannot share.
        DataError: The store's features are of another data set.
        TypeError: A keyword that there is not.
    """

    def __init__(
        self,
        features: Any,
        *,
        selector: Selector | type[Selector] | str,
        batch_size: int,
        filter_ratio: float | Fraction | FilterSchedule,
        seed: int,
        labels: Any = None,
        label_confidence: Any = None,
        **options: Unpack[SelectedBatchesOptions],
    ) -> None:
        check_keywords(SelectedBatchesOptions, type(self), options)
        self.ahead = as_whole(options.get("ahead", 2), "ahead", 0)
        self.phase = options.get("phase", no_phase)
        known = {"features": features, "labels": labels, "label_confidence": label_confidence}
        known |= {name: options.get(name) for name in ("teacher", "neighbors")}
        if options.get("balance"):
            selector = as_selector(selector).by_class()
        super().__init__(selector, batch_size, filter_ratio, seed, options, known)
        self.length = len(self.fields)
        self.teacher = self.fields.teacher
        self._readable = self.fields.readable
        # What could not be read when the features were made is never a candidate.
        self.usable = self.length if self._readable is None else len(self._readable)
        self.position: BatchPosition = BatchPosition()
        self.weights = EpochWeights(self.length)
        # Libraries look for an attribute of this name, to tell it the epoch.
        self.sampler = EpochSetter(self)
        _check_sizes(self)
        _check_dataset(options.get("dataset"), features, self.length)

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
                "instead of Accelerator.prepare; under Lightning "
                "saln.integrations.lightning.SelectedDataModule, or "
                "Trainer(use_distributed_sampler=False)"
            )
        return True

    def __len__(self) -> int:
        """The number of batches of the current epoch, from its beginning."""
        return self.usable // self.n_candidates

    def set_epoch(self, epoch: int) -> None:
        """Makes the next iteration the given epoch's.

        A position that was loaded stays, where the epoch is the one that it lies in.
        """
        epoch = as_whole(epoch, "epoch")
        self.sampler.note_epoch(epoch)
        self.position.set_epoch(epoch)

    def __iter__(self) -> BatchIterator:
        """Iterates over the kept indices of one batch after the other: this rank's share."""
        self.seed_workers()  # a loader draws their seed right after it asked for this iterator
        return BatchIterator(self, self.epoch, self.loaded_step)

    def state_dict(self, *, steps: int | None = None) -> dict[str, Any]:
        """Where it is: plain numbers and what the selector remembers.

        Args:
            steps: How many batches of the epoch have been trained on. By default, how many
                the last iteration has named; a loader with worker processes asks for
                batches long before they are trained on, so there give what you counted
                (or use a loader that counts itself, as torchdata's StatefulDataLoader).

        Raises:
            InputError: The epoch has fewer.
        """
        if steps is None:
            return self.state_at(self.epoch, self.position.steps_given)
        steps = as_whole(steps, "steps", 0)
        if steps > len(self):
            raise InputError(
                f"steps={steps} is not allowed: epoch {self.epoch} has {len(self)}; give how many "
                "batches of this epoch were trained on"
            )
        return self.state_at(self.epoch, steps)

    def state_at(self, epoch: int, step: int) -> dict[str, Any]:
        """The state of an iteration that is at a step of an epoch."""
        return state_of(self, epoch) | {"step": step, "examples": self.usable}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from a saved state: the next iteration gives the batches that were left.

        The number of ranks may differ from then.

        Raises:
            InputError: The state is of a sampler that would give other batches.
        """
        own = self.state_at(self.epoch, 0)
        settings = ("seed", "examples", "batch_size", "candidates", "selector")
        refuse_other_settings(state, own, settings[:3], "SelectedBatches")
        epoch, step = (as_whole(state[key], f"the state's {key}") for key in ("epoch", "step"))
        # A schedule has another number in another epoch: that of the state's is compared.
        own["candidates"] = self.candidates_of(epoch)
        refuse_other_settings(state, own, settings, "SelectedBatches")
        if not 0 <= step <= self.usable // own["candidates"]:
            raise InputError(
                f"the state's step {step} is not in its epoch of "
                f"{self.usable // own['candidates']} steps; the state is damaged"
            )
        self.selector.load_state_dict(state["selector_state"])
        self.position.load(epoch, step)
        self.sampler.note_load(epoch)
        self.weights.epoch = None  # the selector may know other than when the epoch began

    def order(self, epoch: int) -> Tensor:
        """The epoch's order of the examples that can be read: int64 (N,), or fewer."""
        generator = derive_generator(self.seed, "order", epoch)
        order = torch.randperm(self.usable, generator=generator)
        # Of positions among the readable ones: what is skipped shifts nothing else.
        return order if self._readable is None else self._readable[order]

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
        values = self.weights.values
        return None if values is None else values[as_indices(indices)]

    def targets_of(
        self, indices: Any, labels: Any, *, beliefs: float = 0.0, features: float = 0.0
    ) -> Tensor:
        """Soft targets for the loss of a batch, instead of the given labels alone.

        Those of the ``teacher`` that the batches were made with, or made for their selector::

            for rows, labels, indices in loader:
                targets = batches.targets_of(indices, labels, beliefs=0.7, features=0.3)
                losses = cross_entropy(learner(rows), targets, reduction="none")

        Args:
            indices: (m,): whole numbers, on any device: which examples of the data set these are.
            labels: Whole numbers, (m,): their class numbers, as given.
            beliefs: The share of what is believed of each example, its own label included.
            features: The share of what the other examples alone say.

        Returns:
            float32, (m, C), where the labels are; rows sum to 1. See
            :meth:`saln.labels.teacher.FeatureTeacher.targets`.

        Raises:
            InputError: There is no teacher; shares below 0 or above 1 together; labels or indices
                that there are not.
        """
        if self.teacher is None:
            raise InputError(
                "targets_of asks a teacher; make the batches with teacher="
                "saln.features_as_teacher(features, labels)"
            )
        rows = as_indices(indices)
        return self.teacher.targets(labels, beliefs=beliefs, features=features, rows=rows)


def _check_dataset(dataset: Any, features: Any, length: int) -> None:
    """Refuses a data set that is not the one that the batches name examples of."""
    if dataset is None:
        return
    if not hasattr(dataset, "__len__"):
        raise InputError(
            f"dataset is a {type(dataset).__name__} without a length; give the data set that the "
            "batches name examples of"
        )
    if isinstance(features, FeatureStore):
        features.check(dataset)
    else:
        check_length(dataset, length)


def check_length(dataset: Any, length: int) -> None:
    """Raises InputError where a data set has not one example for each that may be chosen."""
    if len(dataset) != length:
        raise InputError(
            f"the data set has {len(dataset)} examples, but {length} are chosen from; "
            "give the features of this data set"
        )


def _check_sizes(batches: SelectedBatches) -> None:
    """Refuses an epoch that has too few examples for the candidates of one batch."""
    for one in {batches.schedule.ratio(epoch) for epoch in batches.schedule.all_epochs}:
        needed = candidates_needed(batches.batch_size, one)
        if needed > batches.usable:
            raise InputError(
                f"batch size {batches.batch_size} at filter ratio {float(one):g} needs "
                f"{needed} candidates, but there are {batches.usable} examples; "
                "lower the batch size or the filter ratio"
            )
