"""Choosing before loading: a batch sampler that only ever names the kept examples."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Sampler

from saln.data.items import MapStyle
from saln.errors import InputError
from saln.features.store import FeatureStore
from saln.loading.ahead import Ahead
from saln.loading.ranks import Sharing, rank_share
from saln.loading.rows import Rows
from saln.loading.schedules import FilterSchedule
from saln.randomness import derive_generator, seed_workers
from saln.selection.candidates import Candidates, Selection, candidates_needed
from saln.selection.coherence import store_beliefs
from saln.selection.contract import BEFORE_LOADING, Selector

__all__ = ["BatchIterator", "Phase", "SelectedBatches", "check_finite", "no_phase"]

# Times a part of a step under a name; see saln.training.ledger.
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
        features: A feature store, an (N, d) array, or N itself for a selector that
            needs no features.
        selector: Any selector that chooses before loading.
        batch_size: ``k``, the size of every batch, of all ranks together.
        filter_ratio: ``f``, the share of candidates to drop, in [0, 1), or a schedule of
            it from epoch to epoch.
        seed: Decides the order and, with it, every choice.
        labels: int64, (N,); by default the store's.
        label_confidence: floating, (N,): how likely each label is right; by default, where
            a feature store is given, what its neighbours make of the labels.
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
        features: FeatureStore | npt.NDArray[Any] | int,
        *,
        selector: Selector,
        batch_size: int,
        filter_ratio: float | FilterSchedule,
        seed: int,
        labels: npt.NDArray[np.int64] | None = None,
        label_confidence: npt.NDArray[np.floating[Any]] | None = None,
        dataset: MapStyle | None = None,
        rank: int | None = None,
        world_size: int | None = None,
        ahead: int = 2,
        phase: Phase = no_phase,
    ) -> None:
        store, rows = None, None
        if isinstance(features, FeatureStore):
            store, rows = features, features.features
        elif not isinstance(features, int):
            rows = features
        self.length = features if isinstance(features, int) else len(features)
        # What could not be read when the features were made is never a candidate.
        readable = None if store is None else store.readable
        self._readable = None if readable is None else torch.from_numpy(readable)
        self.usable = self.length if readable is None else len(readable)
        self.selector = selector
        self.batch_size = batch_size
        self.filter_ratio = filter_ratio
        self.seed = seed
        self.sharing = Sharing(batch_size, rank, world_size)
        self.ahead = ahead
        self.phase = phase
        self.epoch = 0
        self._start = 0
        self._named = 0
        self._iteration = 0
        self._weights: Tensor | None = None
        self._generator = torch.Generator()
        # What Lightning and Accelerate look for in a batch sampler.
        self.sampler = EpochSetter(self)
        self.drop_last = True

        if not selector.chooses_before_loading():
            needs = ", ".join(sorted(selector.requires - BEFORE_LOADING))
            raise InputError(
                f"{self._name} requires {needs}, which only the learner can give; "
                "use saln.LearnerSelected, which chooses after loading"
            )
        if ahead < 0:
            raise InputError(f"ahead={ahead} is not allowed; give 0 or more batches")
        self._check_sizes()
        if dataset is not None and store is not None:
            store.check(dataset)
        elif dataset is not None and len(dataset) != self.length:
            raise InputError(
                f"the data set has {len(dataset)} examples, but {self.length} are chosen from; "
                "give the features of this data set"
            )
        if store is not None and labels is None:
            labels = store.labels
        self._check_length("labels", labels)
        asked = "label_confidence" in selector.requires
        if asked and store is not None and label_confidence is None:
            label_confidence = store_beliefs(store, labels).confidence.numpy()
        self._check_length("label_confidence", label_confidence)
        self.fields: dict[str, Rows] = {}
        given: dict[str, npt.NDArray[Any] | None] = {
            "features": rows,
            "labels": labels,
            "label_confidence": label_confidence,
        }
        for name in sorted(selector.requires):
            values = given[name]
            if values is None:
                raise InputError(f"{self._name} requires {name}; give them to SelectedBatches")
            if store is None or name != "features":  # a store says where it holds others
                check_finite(name, values)
            self.fields[name] = Rows(values)

    @property
    def _name(self) -> str:
        return type(self.selector).__name__

    def _check_length(self, name: str, values: npt.NDArray[Any] | None) -> None:
        if values is not None and len(values) != self.length:
            raise InputError(
                f"{self.length} rows of features but {len(values)} {name}; give one a row"
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
        return self.sharing.now().index

    @property
    def world_size(self) -> int:
        """Among how many processes each batch is shared out here."""
        return self.sharing.now().count

    def share_among(self, rank: int, world_size: int) -> None:
        """Says which of how many processes this is, whatever torch.distributed says.

        For what trains on the batches: ``share_among(0, 1)`` gives whole batches, to be shared
        out elsewhere or trained on by every process alike.

        Raises:
            InputError: Another rank than was given at the start, or a batch that so many
                processes cannot share.
        """
        self.sharing.among(rank, world_size)

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
        """
        return self._state(self.epoch, self._named if steps is None else steps)

    def _state(self, epoch: int, step: int) -> dict[str, Any]:
        return {
            "epoch": epoch,
            "step": step,
            "seed": self.seed,
            "examples": self.usable,
            "batch_size": self.batch_size,
            "candidates": self.candidates_of(epoch),
            "selector": self._name,
            "selector_state": self.selector.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from a saved state: the next iteration gives the batches that were left.

        The number of ranks may differ from then.

        Raises:
            InputError: The state is of a sampler that would give other batches.
        """
        own = self._state(int(state.get("epoch", self.epoch)), 0)
        if set(own) != set(state):
            raise InputError(
                f"the state holds {', '.join(sorted(state)) or 'nothing'}; expected "
                f"{', '.join(sorted(own))}: give what SelectedBatches.state_dict() gave"
            )
        for key in ("seed", "examples", "batch_size", "candidates", "selector"):
            if own[key] != state[key]:
                raise InputError(
                    f"the state was saved with {key} {state[key]}, here it is {own[key]}; "
                    "go on with the settings that it was saved with"
                )
        if not 0 <= state["step"] <= self.usable // own["candidates"]:
            raise InputError(
                f"the state's step {state['step']} is not in its epoch of "
                f"{self.usable // own['candidates']} steps; the state is damaged"
            )
        self.selector.load_state_dict(state["selector_state"])
        self.epoch, self._start = state["epoch"], state["step"]
        self._named = self._start

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

    def weights_of(self, indices: Tensor) -> Tensor | None:
        """Loss weights of examples that this epoch has named: float32, (m,), or None.

        None where the selector gives none: all weigh the same. An index is named at most
        once in an epoch, so it says which weight is meant.
        """
        return None if self._weights is None else self._weights[indices]

    def observe(self, indices: Tensor, losses: Tensor) -> None:
        """Tells the selector, where it asks for them, the losses of a batch just trained.

        Args:
            indices: int64, (m,): with several ranks, those of all of them.
            losses: floating, (m,): one an example, before any weights.
        """
        if self.selector.observes_losses:
            self.selector.observe(indices, losses)

    def _begin(self, epoch: int) -> None:
        self.selector.begin_epoch(epoch)
        self._weights = None

    def _kept(self, indices: Tensor, epoch: int, step: int) -> list[int]:
        selection = self.choose(indices, epoch, step)
        chosen = indices[selection.positions]
        if selection.weights is not None:
            if self._weights is None:
                self._weights = torch.ones(self.length)
            self._weights[chosen] = selection.weights.float().cpu()
        kept: list[int] = chosen.tolist()
        return kept


class EpochSetter:
    """The sampler that training libraries look for in a batch sampler, to tell it the epoch."""

    def __init__(self, batches: SelectedBatches) -> None:
        self.batches = batches

    def set_epoch(self, epoch: int) -> None:
        """Makes the next iteration the given epoch's."""
        self.batches.set_epoch(epoch)


class BatchIterator(Iterator[list[int]]):
    """The batches of one epoch, from a step on; made by :class:`SelectedBatches`.

    Attributes:
        epoch: Which.
        step: How many batches of the epoch have been given.
    """

    def __init__(self, sampler: SelectedBatches, epoch: int, step: int) -> None:
        self.sampler = sampler
        self.epoch = epoch
        self.step = step
        self._rank = sampler.sharing.now()
        self._batches: Iterator[list[int]] | None = None
        self._leads()

    def _leads(self) -> None:
        """Makes this the iteration whose position the sampler's state is."""
        self.sampler._iteration += 1
        self._number = self.sampler._iteration
        self.sampler._named = self.step

    def __next__(self) -> list[int]:
        sampler = self.sampler
        with sampler.phase("select"):
            if self._batches is None:
                self._batches = self._open()
            batch = next(self._batches, None)
        if batch is None:
            raise StopIteration
        self.step += 1
        if self._number == sampler._iteration and self.epoch == sampler.epoch:
            sampler._named = self.step
        return list(rank_share(batch, self._rank.index, self._rank.count))

    def _open(self) -> Iterator[list[int]]:
        sampler, epoch = self.sampler, self.epoch
        # Loaders make iterators that they never ask; a position is used up by the first batch.
        if epoch == sampler.epoch:
            sampler._start = 0
        sampler._begin(epoch)
        order, n = sampler.order(epoch), sampler.candidates_of(epoch)

        def kept(step: int) -> list[int]:
            return sampler._kept(order[step * n : (step + 1) * n], epoch, step)

        steps = range(self.step, sampler.usable // n)
        return Ahead(kept, steps, sampler.ahead) if sampler.ahead else map(kept, steps)

    def state_dict(self) -> dict[str, Any]:
        """As :meth:`SelectedBatches.state_dict`, of this iteration."""
        return self.sampler._state(self.epoch, self.step)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from a saved state; raises as :meth:`SelectedBatches.load_state_dict`."""
        self.close()
        self.sampler.load_state_dict(state)
        self.epoch, self.step = self.sampler.epoch, self.sampler._start
        self._leads()

    def close(self) -> None:
        """Ends the background thread, if there is one."""
        if isinstance(self._batches, Ahead):
            self._batches.close()
        self._batches = None


def check_finite(name: str, values: npt.NDArray[Any]) -> None:
    """Refuses an array (N, ...) with a value that is not finite, and names its row.

    Raises:
        InputError: With the name.
    """
    if not np.issubdtype(values.dtype, np.floating):
        return
    for start in range(0, len(values), 65_536):
        part = values[start : start + 65_536]
        finite = np.isfinite(part).reshape(len(part), -1).all(axis=1)
        if not finite.all():
            raise InputError(
                f"{name} of example {start + int((~finite).argmax())} are NaN or infinite; "
                "find what made them so, or leave that example out"
            )
