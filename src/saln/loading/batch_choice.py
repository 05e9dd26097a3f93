"""What everything that chooses batches has in common: a selector, ranks, losses it observes."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from saln.data.arguments import as_whole
from saln.distributed import Rank, Sharing, gather_uneven
from saln.errors import InputError
from saln.loading.candidate_fields import CandidateFields, as_indices, as_losses, as_selector
from saln.loading.filter_schedule import FilterSchedule, as_schedule
from saln.loading.keyword_options import RankOptions
from saln.loading.positions import BatchPosition, StreamPosition
from saln.randomness import derive_generator, derive_seed
from saln.selection.candidates import Selection, candidates_needed
from saln.selection.contract import BEFORE_LOADING, Selector
from saln.selection.curriculum import Curriculum

# Times a part of a step under a name; see saln.training.cost_ledger.
Phase = Callable[[str], AbstractContextManager[Any]]


def no_phase(name: str) -> AbstractContextManager[Any]:
    """Times nothing."""
    return nullcontext()


class BatchChoice:
    """A selector at work on one of several ranks; see ``RankOptions`` for those."""

    def __init__(
        self,
        selector: Selector | type[Selector] | str,
        batch_size: int,
        seed: int,
        options: RankOptions,
    ) -> None:
        self.selector = as_selector(selector)
        self.batch_size = as_whole(batch_size, "batch_size", 1)
        self.seed = as_whole(seed, "seed")
        self.sharing = Sharing(self.batch_size, options.get("rank"), options.get("world_size"))
        self._has_losses = False  # or has warned that there are none
        self._epoch_without_losses: int | None = None
        if isinstance(self.selector, Curriculum) and self.selector.is_unplanned:
            name = type(self.selector).__name__
            warnings.warn(
                f"{name} goes from easy to hard over the epochs of a run, but does not know how "
                f"many there are, so easy and hard are alike; give {name}(epochs=...) and count "
                "epochs from 1, or strength=0 to do without the order",
                UserWarning,
                # At the line that made what chooses, whichever class that is of.
                stacklevel=type(self).__mro__.index(BatchChoice) + 2,
            )

    @property
    def rank(self) -> int:
        """Which process this is: as given, as :meth:`share_among` said, or the group's."""
        return self.sharing.current().index

    @property
    def world_size(self) -> int:
        """Among how many processes each batch is shared out here."""
        return self.sharing.current().count

    @property
    def batch_rank(self) -> Rank:
        """Which of those that one chosen batch is shared out among."""
        return self.sharing.current()

    def share_among(self, rank: int, world_size: int) -> None:
        """Says which of how many processes this is, whatever torch.distributed says.

        For what trains on the batches: ``share_among(0, 1)`` gives whole batches, to be shared
        out elsewhere or trained on by every process alike.

        Raises:
            InputError: Another rank than was asked for at the start, or a batch that the
                processes cannot share.
        """
        self.sharing.assign(rank, world_size)

    def observe(self, indices: Any, losses: Any) -> None:
        """Hands the losses of a batch just trained to a selector that asks for them.

        With several ranks each gives its own, and every rank must call this: they are brought
        together here, so that all choose alike. Only where the source of a stream shares itself
        out among the ranks does each choose by its own alone.

        Args:
            indices: int64, (m,): this rank's.
            losses: floating, (m,): one an example, before any weights.

        Raises:
            InputError: Not one loss an index, or ranks that torch.distributed does not connect.
        """
        if not self.selector.observes_losses:
            return  # nothing is gathered: most selectors need no word between the ranks
        where = as_indices(indices)
        values = as_losses(losses, len(where))
        # Ranks must remember alike to choose alike, so each hands on what all of them trained.
        rank = self.batch_rank
        if rank.count > 1:
            rank.check_connected()
            device = values.device
            where = gather_uneven(where, rank.count, device)
            values = gather_uneven(values, rank.count, device)
        self._has_losses = True
        self.selector.observe(where, values)

    def begin_epoch(self, epoch: int) -> None:
        """Tells the selector of an epoch; warns once where it has observed no losses in one."""
        if self.selector.observes_losses and not self._has_losses:
            silent = self._epoch_without_losses
            if silent is not None and epoch != silent and not self._remembers():
                self._has_losses = True
                warnings.warn(
                    f"{type(self.selector).__name__} chooses by the losses of training, but was "
                    f"given none in epoch {silent}, so it chooses as at the start; call "
                    f"{type(self).__name__}.observe(indices, losses) after every step",
                    UserWarning,
                    stacklevel=3,
                )
            self._epoch_without_losses = epoch
        self.selector.begin_epoch(epoch)

    def _remembers(self) -> bool:
        """Whether the selector does: from somebody else's call, or from before a resume."""
        values = self.selector.state_dict().values()
        return any(isinstance(value, Tensor) and value.numel() > 0 for value in values)


class ChoiceBeforeLoading(BatchChoice):
    """A choice among candidates of which only what was stored is known.

    ``fields`` are those of :class:`~saln.loading.candidate_fields.CandidateFields`; for the other
    arguments see :class:`~saln.loading.selected_batches.SelectedBatches`.
    """

    position: BatchPosition | StreamPosition

    def __init__(
        self,
        selector: Selector | type[Selector] | str,
        batch_size: int,
        filter_ratio: float | Fraction | FilterSchedule,
        seed: int,
        options: RankOptions,
        fields: dict[str, Any],
    ) -> None:
        super().__init__(selector, batch_size, seed, options)
        self.schedule = as_schedule(filter_ratio)
        scheduled = isinstance(filter_ratio, FilterSchedule)
        self.filter_ratio = self.schedule if scheduled else self.schedule.start
        # Before features are read, which may take long.
        if not self.selector.chooses_before_loading():
            needs = ", ".join(sorted(self.selector.requires - BEFORE_LOADING))
            raise InputError(
                f"{type(self.selector).__name__} requires {needs}, which only the learner can "
                "give; use saln.LearnerSelected, which chooses after loading"
            )
        owner = type(self).__name__
        self.fields = CandidateFields(**fields, selector=self.selector, owner=owner)
        self._generator = torch.Generator()

    @property
    def epoch(self) -> int:
        """The epoch that the next iteration is of."""
        return self.position.epoch

    @property
    def loaded_step(self) -> int:
        """The step of the epoch that the next iteration begins with."""
        return self.position.step

    @property
    def generator(self) -> torch.Generator:
        """Give it to the DataLoader: the seeds of its workers come from it.

        In a worker torch, NumPy and ``random`` are seeded by it: from the seed, the epoch, the
        position in it and the rank.
        """
        self.seed_workers()
        return self._generator

    def seed_workers(self) -> None:
        """Seeds :attr:`generator` for the next iteration."""
        keys = self.epoch, self.loaded_step, self.rank
        self._generator.manual_seed(derive_seed(self.seed, "workers", *keys))

    @property
    def own_batch_size(self) -> int:
        """How many examples one choice here keeps."""
        return self.batch_size

    def candidates_of(self, epoch: int) -> int:
        """``n``, how many candidates each batch of an epoch is chosen from."""
        return candidates_needed(self.own_batch_size, self.schedule.ratio(epoch))

    @property
    def n_candidates(self) -> int:
        """``n`` in the current epoch."""
        return self.candidates_of(self.epoch)

    def choose(self, indices: Tensor, epoch: int, step: int, *stream: int | str) -> Selection:
        """Chooses from candidates, int64 (n,), as a step of an epoch does, on every rank alike.

        ``stream`` says which of the parts of a source that shares itself out they are from.
        """
        k = self.own_batch_size
        if len(indices) == k:  # nothing to drop, and nothing drawn
            return Selection(torch.arange(k))
        # Derived from what the choice is for: no choice before it, and no resume, changes it.
        generator = derive_generator(self.seed, "select", epoch, step, *stream)
        return self.selector(self.fields.candidates(indices), k, generator=generator)
