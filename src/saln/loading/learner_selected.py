"""Choosing after loading: for selectors that must see the learner's outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn

from saln.data.arguments import as_array, as_whole
from saln.data.torch_datasets import inference_batch_size
from saln.distributed import Sharing, gather_rows, same_on_all_ranks, share_bounds
from saln.errors import InputError, TrainingError
from saln.loading.batch_tree import Key, cut, move
from saln.loading.candidate_fields import as_number, as_rows, as_selector
from saln.loading.double_sharding import refuse_double_sharding, sharded_by
from saln.loading.learner_position import Position, digest
from saln.loading.loss_observer import Observing
from saln.loading.network_outputs import Field, Reader
from saln.loading.selected_batches import Phase, no_phase
from saln.randomness import derive_generator
from saln.selection.candidates import Candidates, PairEmbeddings, Selection
from saln.selection.contract import Selector

# What is read of a network; of the learner and of the reference.
_READ = ("outputs", "losses", "embeddings")


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


class LearnerSelected:
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
        inputs: Where in a batch the learner's input is; a dict found there becomes keyword
            arguments. By default a dict without labels and indices, else position 0.
        labels: Where the int64 labels are, (n,). By default ``labels``, ``label``,
            ``targets`` or ``target`` of a dict or named tuple, else position 1 of a tuple.
        indices: Where the int64 positions in the data set are, (n,). By default they are
            counted through the epoch.
        forward: Called as ``forward(network, batch)`` in place of what ``inputs`` says; for
            pairs it gives :class:`~saln.selection.candidates.PairEmbeddings`.
        loss: Called as ``loss(outputs, batch)``, gives one loss an example, (n,). By default
            the cross-entropy of the logits: the outputs or, as Hugging Face has it, their
            ``logits``.
        reference: A trained network, read in the same way as the learner.
        reference_outputs: floating, (N, C): in its place its logits for the whole data set.
        features: (N, d): a frozen backbone's rows, for selectors that require them.
        device: Where batches go; by default where the learner's parameters are.
        autocast: A dtype for mixed precision while scoring, such as ``torch.bfloat16``.
        score_size: Scores images at this height and width, resized with antialiasing, as
            JEST's multi-resolution variant (arXiv 2406.17711, section 3.2) scores at a
            lower resolution; every floating (n, c, h, w) tensor counts as images.
        score_batch: How many go through a network at once while scoring.
        reuse_forward: See above.
        rank: Which process this is; by default torch.distributed's, read when it is needed.
        world_size: How many train together; both are given, or neither.
        phase: Times scoring and selection.

    Raises:
        InputError: A selector whose requirements cannot be met, a batch that the ranks
            cannot share or that is larger than the loader's, ranks that are not connected, a
            loader that already gives each rank a share, options that exclude each other.
    """

    def __init__(
        self,
        batches: Iterable[Any],
        *,
        selector: Selector | type[Selector] | str,
        batch_size: int,
        learner: nn.Module,
        seed: int,
        inputs: Key | None = None,
        labels: Key | None = None,
        indices: Key | None = None,
        forward: Callable[[nn.Module, Any], Any] | None = None,
        loss: Callable[[Any, Any], Tensor] | None = None,
        reference: nn.Module | None = None,
        reference_outputs: Any = None,
        features: Any = None,
        device: torch.device | str | None = None,
        autocast: torch.dtype | None = None,
        score_size: int | None = None,
        score_batch: int | None = None,
        reuse_forward: bool = False,
        rank: int | None = None,
        world_size: int | None = None,
        phase: Phase = no_phase,
    ) -> None:
        self.batches = batches
        self.selector = as_selector(selector)
        self.batch_size = as_whole(batch_size, "batch_size", 1)
        self.learner = learner
        self.seed = as_number(seed, "seed")
        self.reference = reference
        if reference_outputs is not None and not isinstance(reference_outputs, Tensor):
            reference_outputs = torch.from_numpy(as_array(reference_outputs, "reference_outputs"))
        self.reference_outputs = reference_outputs
        self.features = None if features is None else as_rows(features)
        self.device = _device_of(learner) if device is None else torch.device(device)
        self.reader = Reader(
            inputs_key=inputs,
            labels_key=labels,
            indices_key=indices,
            forward=forward,
            loss=loss,
            autocast=autocast,
            score_size=score_size,
            score_batch=inference_batch_size(self.device) if score_batch is None else score_batch,
        )
        self.reuse_forward = reuse_forward
        self.sharing = Sharing(self.batch_size, rank, world_size)
        self.phase = phase
        self.epoch = 0
        self.examples_scored = 0
        self._position = Position(self)
        self._observing = Observing(self.selector, type(self).__name__)
        self._check_sizes()
        self._check_options()
        self._check_requirements()

    @property
    def _name(self) -> str:
        return type(self.selector).__name__

    def _check_sizes(self) -> None:
        self._check_sharing()
        candidates = getattr(self.batches, "batch_size", None)
        if not isinstance(candidates, int):
            return
        if candidates < self.batch_size:
            raise InputError(
                f"batch_size={self.batch_size} of the loader's {candidates} candidates cannot be "
                "kept; raise the loader's batch size or lower that of LearnerSelected"
            )
        dataset = getattr(self.batches, "dataset", None)
        whole = getattr(self.batches, "drop_last", True) or not isinstance(dataset, Sized)
        left = 0 if whole else len(dataset) % candidates  # type: ignore[arg-type]
        if 0 < left < self.batch_size:
            raise InputError(
                f"the loader's last batch has {left} candidates, fewer than the "
                f"{self.batch_size} to keep; give the loader drop_last=True"
            )

    def _check_sharing(self) -> None:
        """Raises where the ranks are not connected, or candidates are shared out as well."""
        # Batches chosen before loading are shared out after this choice, not before.
        for part in (self.batches, getattr(self.batches, "batch_sampler", None)):
            if (
                isinstance(sharing := getattr(part, "sharing", None), Sharing)
                and sharing.follows_group
            ):
                sharing.assign(0, 1)
        if self.sharing.single_requested and sharded_by(
            self.batches
        ):  # by the loader, as was asked for
            self.sharing.assign(0, 1)
        rank = self.sharing.current()
        rank.check_connected()
        if rank.count > 1:
            also = f"LearnerSelected(world_size={rank.count})"
            refuse_double_sharding(self.batches, also)

    @property
    def rank(self) -> int:
        """Which process this is: as given, or the group's."""
        return self.sharing.current().index

    @property
    def world_size(self) -> int:
        """Among how many processes each kept batch is shared out."""
        return self.sharing.current().count

    def _check_options(self) -> None:
        if self.reference is not None and self.reference_outputs is not None:
            raise InputError("give reference or reference_outputs, not both")
        for name in ("reference_outputs", "features"):
            if getattr(self, name) is not None and self.reader.indices_key is None:
                raise InputError(
                    f"{name} has rows by position in the data set, but counted indices do not "
                    "say it; let the batches hold their positions and give indices=KEY"
                )
        if self.reader.score_size is not None and self.reader.score_size < 1:
            raise InputError(
                f"score_size={self.reader.score_size} is not allowed; give pixels, 1 or more"
            )
        if self.reader.score_batch < 1:
            raise InputError(
                f"score_batch={self.reader.score_batch} is not allowed; give at least 1"
            )
        if not self.reuse_forward:
            return
        requires = self.selector.requires
        for other, given in (
            ("score_size", self.reader.score_size is not None),
            ("several ranks", self.world_size > 1),
            (
                f"{self._name}, which reads no output of the learner",
                not any(name.startswith("learner_") for name in requires),
            ),
        ):
            if given:
                raise InputError(
                    f"reuse_forward does not go with {other}; leave one of the two out: the "
                    "training step needs this rank's own forward pass, at full size"
                )

    def _check_requirements(self) -> None:
        given = self.reference is not None or self.reference_outputs is not None
        for name in sorted(self.selector.requires):
            if name.startswith("reference_") and not given:
                raise InputError(
                    f"{self._name} requires {name}; train a reference model and give it as "
                    "reference, or its logits for every example as reference_outputs"
                )
            if name == "features" and self.features is None:
                raise InputError(f"{self._name} requires features; give one row for every example")
            if name == "label_confidence":
                raise InputError(
                    f"{self._name} requires label_confidence, which is known before loading; "
                    "use saln.SelectedBatches"
                )
            if name == "reference_embeddings" and self.reference is None:
                raise InputError(f"{self._name} requires {name}; give the network as reference")
            if name.endswith("_embeddings") and self.reader.forward is None:
                raise InputError(
                    f"{self._name} requires {name}; give forward, a function of a network and a "
                    "batch that gives PairEmbeddings"
                )

    def set_epoch(self, epoch: int) -> None:
        """Makes the next iteration the given epoch's, and the loader's.

        A position that was loaded stays, where the epoch is the one that it lies in.
        """
        self.epoch = epoch = as_number(epoch, "epoch")
        self._position.set_epoch()
        parts: list[Any] = [self.batches]
        parts += [getattr(self.batches, name, None) for name in ("batch_sampler", "sampler")]
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
        position, epoch = self._position, self.epoch
        candidates_left = position.begin()
        self._observing.begin(epoch)
        self.selector.begin_epoch(epoch)
        for batch in candidates_left:
            step = position.step
            with self.phase("score"):
                n = self.reader.size(batch)
                indices = self.reader.indices(batch)
                if indices is None:
                    indices = torch.arange(position.counted, position.counted + n)
                self._check_batch(batch, indices, n, step)
                fields: dict[str, Any] = {}
                trained: Tensor | None = None
                choice = n > self.batch_size or self.reuse_forward
                if choice:  # else there is nothing to drop, and so nothing to score
                    fields, batch, trained = self._score(batch, indices, n)
                self._check_finite(fields, step)
            with self.phase("select"):
                chosen = Selection(torch.arange(self.batch_size))
                if choice:
                    candidates = self._candidates(batch, indices, fields)
                    generator = derive_generator(self.seed, "select", epoch, step)
                    chosen = self.selector(candidates, self.batch_size, generator=generator)
                share = slice(*share_bounds(self.batch_size, self.rank, self.world_size))
                where = chosen.positions[share]
                kept = Kept(
                    move(cut(batch, where, n), self.device),
                    indices[where],
                    None if chosen.weights is None else chosen.weights[share].to(self.device),
                    None if trained is None else trained[where.to(self.device)],
                )
            position.advance(batch, n)
            yield kept

    def _check_batch(self, batch: Any, indices: Tensor, n: int, step: int) -> None:
        where = f"step {step} of epoch {self.epoch}"
        if self.world_size > 1:
            labels = self.reader.labels(batch)
            digests = [digest(indices), 0 if labels is None else digest(labels)]
            if not same_on_all_ranks([n, *digests], self.world_size, self.device):
                raise InputError(
                    f"in {where} the ranks were given different candidates; every rank needs all "
                    "of them: leave out the DistributedSampler, and give a shuffling loader "
                    "a generator with the same seed on every rank"
                )
        if len(indices) != n:
            raise InputError(
                f"{where} has {n} candidates but {len(indices)} indices; give one each"
            )
        if n < self.batch_size:
            raise InputError(
                f"{where} has {n} candidates, fewer than the {self.batch_size} to keep; "
                "give the loader drop_last=True or a larger batch size"
            )

    def _score(
        self, batch: Any, indices: Tensor, n: int
    ) -> tuple[dict[str, Any], Any, Tensor | None]:
        """What the selector requires of both networks for all ``n`` candidates.

        Also the batch, on the learner's device where all of it went there, and the
        learner's outputs with their graph where they are reused.
        """
        start, end = share_bounds(n, self.rank, self.world_size)
        mine = batch if self.world_size == 1 else cut(batch, torch.arange(start, end), n)
        mine = move(mine, self.device)
        fields: dict[str, Any] = {}
        trained: Tensor | None = None
        for whose, network in (("learner", self.learner), ("reference", self.reference)):
            wanted = [what for what in _READ if f"{whose}_{what}" in self.selector.requires]
            if not wanted:
                continue
            if network is None:
                table = cast(Tensor, self.reference_outputs)
                rows = table[indices[start:end].to(table.device)].to(self.device)
                read = self.reader.from_outputs(rows, mine, wanted)
            elif network is self.learner and self.reuse_forward:
                read, trained = self.reader.trained(network, mine, wanted)
            else:
                read = self.reader.read(network, mine, end - start, wanted)
            self.examples_scored += end - start if whose == "learner" else 0
            fields |= {f"{whose}_{what}": field for what, field in read.items()}
        if self.world_size == 1:
            return fields, mine, trained
        return {name: self._gathered(field, n) for name, field in fields.items()}, batch, None

    def _gathered(self, field: Field, n: int) -> Field:
        if isinstance(field, Tensor):
            return gather_rows(field, n, self.world_size, self.device)
        image, text = (
            gather_rows(side, n, self.world_size, self.device) for side in (field.image, field.text)
        )
        scale, bias = (torch.as_tensor(value).cpu() for value in (field.scale, field.bias))
        return PairEmbeddings(image, text, scale, bias)

    def _check_finite(self, fields: dict[str, Any], step: int) -> None:
        """Raises on every rank alike, so that none waits for another."""
        for name, field in fields.items():
            sides = (field,) if isinstance(field, Tensor) else (field.image, field.text)
            if not all(bool(torch.isfinite(side).all()) for side in sides):
                whose, what = name.split("_")
                raise TrainingError(
                    f"the {whose}'s {what} are not finite in epoch {self.epoch}, step {step}; "
                    "lower the learning rate"
                )

    def _candidates(self, batch: Any, indices: Tensor, fields: dict[str, Any]) -> Candidates:
        # Ranks choose on their CPUs: GPUs may differ in the last digit.
        device = self.device if self.world_size == 1 else torch.device("cpu")
        requires = self.selector.requires
        if "labels" in requires:
            labels = self.reader.labels(batch)
            fields["labels"] = None if labels is None else labels.to(device)
        if "features" in requires and self.features is not None:
            rows = torch.from_numpy(np.asarray(self.features[indices.numpy()]))
            fields["features"] = rows.to(device)
        return Candidates(indices=indices, **fields)

    def observe(self, indices: Tensor, losses: Tensor) -> None:
        """Tells the selector, where it asks for them, the losses of a batch just trained.

        Args:
            indices: int64, (m,): this rank's; those of the other ranks are gathered.
            losses: floating, (m,): one an example, before any weights.
        """
        if self.selector.observes_losses:
            self._observing.tell(indices, losses, self.sharing.current())

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


def _device_of(network: nn.Module) -> torch.device:
    return next((value.device for value in network.parameters()), torch.device("cpu"))
