"""Choosing after loading: for selectors that must see the learner's outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from dataclasses import fields
from typing import Any, NamedTuple, Unpack

import torch
from torch import Tensor, nn

from saln.data.arguments import as_whole
from saln.distributed import Sharing, same_on_all_ranks, share_bounds
from saln.errors import InputError
from saln.labels.teacher import FeatureTeacher
from saln.loading.batch_choice import BatchChoice, Phase, no_phase
from saln.loading.batch_tree import Key, cut, move
from saln.loading.candidate_fields import CandidateFields
from saln.loading.candidate_scores import CandidateScores, check_scoring, refuse_counted_indices
from saln.loading.double_sharding import refuse_double_sharding, sharded_by
from saln.loading.keyword_options import RankOptions, check_keywords
from saln.loading.learner_position import LearnerPosition, digest
from saln.loading.network_outputs import BatchReader, device_of
from saln.randomness import derive_generator
from saln.selection.candidates import Candidates, Selection
from saln.selection.contract import BEFORE_LOADING, Selector


class LearnerSelectedOptions(RankOptions, total=False):
    """What :class:`LearnerSelected` takes besides."""

    inputs: Key | None
    """Where in a batch the learner's input is; a dict found there becomes keyword arguments. By
    default a dict without labels and indices, else position 0."""
    labels: Key | None
    """Where the int64 labels are, (n,). By default ``labels``, ``label``, ``targets`` or
    ``target`` of a dict or named tuple, else position 1 of a tuple."""
    indices: Key | None
    """Where the int64 positions in the data set are, (n,). By default they are counted through
    the epoch."""
    forward: Callable[[nn.Module, Any], Any] | None
    """Called as ``forward(network, batch)`` in place of what ``inputs`` says; for pairs it gives
    :class:`~saln.selection.candidates.PairEmbeddings`."""
    loss: Callable[[Any, Any], Tensor] | None
    """Called as ``loss(outputs, batch)``, gives one loss an example, (n,). By default the
    cross-entropy of the logits: the outputs or, as Hugging Face has it, their ``logits``."""
    reference_outputs: Any
    """floating, (N, C): in the place of ``reference`` its logits for the whole data set."""
    label_confidence: Any
    """How likely each label is right, or who judges that: as SelectedBatches takes it. Labels are
    judged where ``features`` is a store, which holds them."""
    teacher: FeatureTeacher | None
    """What :func:`saln.features_as_teacher` gave, for selectors that ask a teacher."""
    device: torch.device | str | None
    """Where batches go; by default where the learner's parameters are."""
    autocast: torch.dtype | None
    """A dtype for mixed precision while scoring, such as ``torch.bfloat16``."""
    score_size: int | None
    """Scores images at this height and width, resized with antialiasing, as JEST's
    multi-resolution variant (arXiv 2406.17711, section 3.2) scores at a lower resolution; every
    floating (n, c, h, w) tensor counts as images."""
    score_batch: int | None
    """How many go through a network at once while scoring."""
    reuse_forward: bool
    """See :class:`LearnerSelected`."""
    phase: Phase
    """Times scoring and selection."""


class Kept(NamedTuple):
    """The kept part of one batch: with several ranks, this rank's share of it.

    Attributes:
        batch: As the loader gave it, with the kept examples alone, on the learner's device.
        indices: int64, (k,), on the CPU: where they are in the data set, or, where the
            loader does not say, in the order in which it gave them.
        weights: float32, (k,), on the learner's device: loss weights, or None for equal ones.
        outputs: The learner's outputs for them, with their graph, (k, C); None without
            ``reuse_forward``.
    """

    batch: Any
    indices: Tensor
    weights: Tensor | None = None
    outputs: Tensor | None = None


class LearnerSelected(BatchChoice):
    """Wraps a loader of candidates and keeps, of each batch, the ``k`` best.

    For selectors that need the learner: all candidates are loaded and go through it once,
    in eval mode and without a trace (BatchNorm's statistics, dropout's random state and
    gradients stay as they were). Iterating gives :class:`Kept`::

        for kept in LearnerSelected(loader, selector=RHOLoss(), batch_size=32, ...):
            losses = cross_entropy(learner(kept.batch["image"]), kept.batch["label"], ...)

    **Several ranks.** The loader gives every rank the same candidates (no
    DistributedSampler). Each rank scores its share of them, what the selector needs is
    gathered with torch.distributed, every rank makes the same choice for the global batch
    and keeps its equal share of it.

    **reuse_forward.** The candidates go through the learner as in training, once, and
    ``Kept.outputs`` holds the kept ones' outputs to compute the loss of. That saves their
    second forward pass, but the backward pass runs through all ``n`` candidates: with a
    backward pass that costs twice a forward pass, ``3n`` against ``n + 3k``, so it pays at
    filter ratios below 1/3. It needs the memory of ``n`` examples' activations, and
    changes what is trained: dropout is at work while scoring, and BatchNorm normalizes by,
    and remembers, all candidates.

    Args:
        batches: Any iterable of batches: dicts, tuples, named tuples or lists of tensors,
            nested. What has one row an example is cut to the kept ones.
        selector: Any selector.
        batch_size: ``k``, of all ranks together; the loader's batch size is ``n``.
        learner: The network in training. It is read without its DistributedDataParallel.
        seed: Decides every random choice.
        reference: A trained network, read in the same way as the learner.
        features: A feature store, or (N, d): a frozen backbone's rows, for selectors that
            require them; whatever SelectedBatches takes. Candidates that the store lists as
            skipped are left out.
        **options: See :class:`LearnerSelectedOptions`.

    Attributes:
        epoch: That the next iteration is of.
        fields: What is known of the examples before loading.
        scores: What is read of learner and reference.

    Raises:
        InputError: A selector whose requirements cannot be met, a batch that the ranks
            cannot share or that is larger than the loader's, ranks that are not connected, a
            loader that already gives each rank a share, options that exclude each other.
        TypeError: A keyword that there is not.
    """

    def __init__(
        self,
        batches: Iterable[Any],
        *,
        selector: Selector | type[Selector] | str,
        batch_size: int,
        learner: nn.Module,
        seed: int,
        reference: nn.Module | None = None,
        features: Any = None,
        **options: Unpack[LearnerSelectedOptions],
    ) -> None:
        check_keywords(LearnerSelectedOptions, type(self), options)
        super().__init__(selector, batch_size, seed, options)
        self.batches = batches
        self.learner = learner
        self.device = torch.device(options.get("device") or device_of(learner))
        read_by = {each.name for each in fields(BatchReader)}
        reading: dict[str, Any] = {n: value for n, value in options.items() if n in read_by}
        self.reader = BatchReader(**reading)
        self.phase = options.get("phase", no_phase)
        self.epoch = 0
        self._position = LearnerPosition(self)
        self._check_sharing()
        _check_sizes(batches, self.batch_size)
        self.scores = CandidateScores(
            self.selector, self.reader, learner, reference,
            reference_outputs=options.get("reference_outputs"),
            device=self.device,
            reuse_forward=options.get("reuse_forward", False),
        )  # fmt: skip
        check_scoring(self.scores, self.world_size)
        self.fields = CandidateFields(
            features,
            label_confidence=options.get("label_confidence"),
            teacher=options.get("teacher"),
            selector=self.selector,
            owner="LearnerSelected",
            requires=self.selector.requires & (BEFORE_LOADING - {"labels"}),
        )
        has_rows = bool(self.fields.rows) or hasattr(features, "__len__")
        if has_rows and self.reader.indices is None:
            refuse_counted_indices("features")

    def _check_sharing(self) -> None:
        """Raises where the ranks are not connected, or candidates are shared out as well."""
        # Batches chosen before loading are shared out after this choice, not before.
        for part in (self.batches, getattr(self.batches, "batch_sampler", None)):
            sharing = getattr(part, "sharing", None)
            if isinstance(sharing, Sharing) and sharing.follows_group:
                sharing.assign(0, 1)
        if self.sharing.single_requested and sharded_by(self.batches):
            self.sharing.assign(0, 1)  # the loader shares them out, as was asked for
        rank = self.sharing.current()
        rank.check_connected()
        if rank.count > 1:
            also = f"LearnerSelected(world_size={rank.count})"
            refuse_double_sharding(self.batches, also)

    @property
    def examples_scored(self) -> int:
        """How many examples the learner has been asked about, by this rank."""
        return self.scores.examples_scored

    def set_epoch(self, epoch: int) -> None:
        """Makes the next iteration the given epoch's, and the loader's.

        A position that was loaded stays, where the epoch is the one that it lies in.
        """
        self.epoch = epoch = as_whole(epoch, "epoch")
        self._position.set_epoch()
        parts: list[Any] = [self.batches]
        parts += [getattr(self.batches, name, None) for name in ("batch_sampler", "sampler")]
        # torch's loaders hand no epoch on to their samplers.
        for part in parts:
            if hasattr(part, "set_epoch"):
                part.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.batches)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Kept]:
        """Yields the kept part of one batch after the other.

        Raises:
            InputError: A batch without the parts that were named, with fewer candidates than
                are kept, or with others than on the other ranks.
            TrainingError: A network's outputs are not finite.
        """
        self._check_sharing()  # the process group may have been started since
        position = self._position
        candidates_left = position.begin()
        self.begin_epoch(self.epoch)
        for batch in candidates_left:
            with self.phase("score"):
                n = self.reader.size(batch)
                indices = self.reader.indices_of(batch)
                if indices is None:  # then they are where the loader gave them
                    indices = torch.arange(position.counted, position.counted + n)
                candidates, loaded, trained = self._candidates(batch, indices, n)
            with self.phase("select"):
                kept = self._kept(candidates, loaded, trained)
            # Before it is given: a state that is saved while it is trained on counts it.
            position.advance(batch, n)
            yield kept

    def _candidates(
        self, batch: Any, indices: Tensor, n: int
    ) -> tuple[Candidates, Any, Tensor | None]:
        """What the selector requires of the candidates of a step.

        Also the batch, on the learner's device where all of it went there, and the learner's
        outputs with their graph where they are reused.
        """
        # The ranks compare first: a refusal below is then everybody's, and nobody waits.
        where = f"step {self._position.step} of epoch {self.epoch}"
        _check_alike(self, batch, indices, n, where)
        if len(indices) != n:
            raise InputError(
                f"{where} has {n} candidates but {len(indices)} indices; give one each"
            )
        skipped = torch.isin(indices, self.fields.skipped)
        if bool(skipped.any()):  # nothing is known of what could not be read
            readable = (~skipped).nonzero()[:, 0]
            batch, indices, n = cut(batch, readable, n), indices[readable], len(readable)
        if n < self.batch_size:
            raise InputError(
                f"{where} has {n} candidates, fewer than the {self.batch_size} to keep; "
                "give the loader drop_last=True or a larger batch size"
            )
        if n == self.batch_size and not self.scores.reuse_forward:
            return Candidates(indices=indices), batch, None  # nothing to drop, nor to score
        rank = self.sharing.current()
        fields, batch, trained = self.scores.of(batch, indices, n, rank, where)
        # Ranks choose on their CPUs: GPUs may differ in the last digit.
        device = self.device if rank.count == 1 else torch.device("cpu")
        if "labels" in self.selector.requires:
            labels = self.reader.labels_of(batch)
            fields["labels"] = None if labels is None else labels.to(device)
        return self.fields.candidates(indices, device=device, **fields), batch, trained

    def _kept(self, candidates: Candidates, batch: Any, trained: Tensor | None) -> Kept:
        """Chooses, and cuts the batch to this rank's share of what is kept."""
        n, k = len(candidates), self.batch_size
        if n == k and not self.scores.reuse_forward:
            chosen = Selection(torch.arange(k))
        else:
            # The same on every rank, so that all make the same choice without a word.
            generator = derive_generator(self.seed, "select", self.epoch, self._position.step)
            chosen = self.selector(candidates, k, generator=generator)
        rank = self.sharing.current()
        share = slice(*share_bounds(k, rank.index, rank.count))
        positions = chosen.positions[share]
        return Kept(
            move(cut(batch, positions, n), self.device),
            candidates.indices[positions],
            None if chosen.weights is None else chosen.weights[share].to(self.device),
            None if trained is None else trained[positions.to(self.device)],
        )

    def state_dict(self) -> dict[str, Any]:
        """Where it is: how many batches were given, and what the selector remembers.

        With it the loader's own position is saved, where it has one: torchdata's
        StatefulDataLoader, or a loader over SelectedBatches. Another loader is read up to
        the position again, so it must give the same order in an epoch.
        """
        return self._position.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from a saved state: the next iteration gives the batches that were left.

        Raises:
            InputError: The state is of other batches.
        """
        self._position.load_state_dict(state)


def _check_sizes(batches: Any, batch_size: int) -> None:
    """Refuses a loader that gives fewer candidates than are to be kept."""
    candidates = getattr(batches, "batch_size", None)
    if not isinstance(candidates, int):
        return
    if candidates < batch_size:
        raise InputError(
            f"batch_size={batch_size} of the loader's {candidates} candidates cannot be "
            "kept; raise the loader's batch size or lower that of LearnerSelected"
        )
    # A stream's length is unknown: its last batch is looked at when it comes.
    dataset = getattr(batches, "dataset", None)
    whole = getattr(batches, "drop_last", True) or not isinstance(dataset, Sized)
    left = 0 if whole else len(dataset) % candidates  # type: ignore[arg-type]
    if 0 < left < batch_size:
        raise InputError(
            f"the loader's last batch has {left} candidates, fewer than the "
            f"{batch_size} to keep; give the loader drop_last=True"
        )


def _check_alike(
    selected: LearnerSelected, batch: Any, indices: Tensor, n: int, where: str
) -> None:
    """Refuses candidates that are not the same on every rank; raises on all of them."""
    if selected.world_size == 1:
        return
    labels = selected.reader.labels_of(batch)
    digests = [digest(indices), 0 if labels is None else digest(labels)]
    if not same_on_all_ranks([n, *digests], selected.world_size, selected.device):
        raise InputError(
            f"in {where} the ranks were given different candidates; every rank needs all "
            "of them: leave out the DistributedSampler, and give a shuffling loader "
            "a generator with the same seed on every rank"
        )
