"""Choosing after loading: for selectors that must see the learner's outputs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from saln.data.views import Batch, inference_batch_size
from saln.errors import InputError, TrainingError
from saln.loading.batches import Phase, no_phase
from saln.loading.loader import EpochBatches
from saln.randomness import derive_generator
from saln.selection.candidates import Candidates
from saln.selection.contract import Selector

__all__ = ["LearnerSelected", "scoring"]


@contextmanager
def scoring(learner: nn.Module) -> Iterator[None]:
    """Lets a network be read without leaving a trace.

    Eval mode, no gradients; afterwards every module is in the mode it was in, BatchNorm
    statistics and torch's random state are as before.
    """
    modes = {module: module.training for module in learner.modules()}
    learner.eval()
    devices = list(range(torch.cuda.device_count()))
    try:
        with torch.random.fork_rng(devices=devices), torch.inference_mode():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


class LearnerSelected:
    """Iterates over batches of candidates and keeps ``k`` of each.

    Args:
        batches: Batches of candidates (all of them loaded).
        selector: Any selector.
        batch_size: ``k``.
        learner: The network in training; read in eval mode, without a trace.
        reference_outputs: floating, (N, C): the reference model's logits for every
            example of the data set, for selectors that require them or their losses.
        seed: Decides every random choice.
        device: Where the learner is.
        phase: Times scoring and selection.
        features: (N, d): a frozen backbone's rows, for selectors that require them.
    """

    def __init__(
        self,
        batches: EpochBatches,
        *,
        selector: Selector,
        batch_size: int,
        learner: nn.Module,
        reference_outputs: Tensor | None,
        seed: int,
        device: torch.device,
        phase: Phase = no_phase,
        features: npt.NDArray[Any] | None = None,
    ) -> None:
        for name in sorted(selector.requires):
            if name in ("reference_outputs", "reference_losses") and reference_outputs is None:
                raise InputError(
                    f"{type(selector).__name__} requires {name}; "
                    "train a reference model and give its logits for every example"
                )
        if "features" in selector.requires and features is None:
            raise InputError(
                f"{type(selector).__name__} requires features; give one row for every example"
            )
        self.batches = batches
        self.selector = selector
        self.batch_size = batch_size
        self.learner = learner
        self.reference_outputs = reference_outputs
        self.seed = seed
        self.device = device
        self.phase = phase
        self.features = features
        self.epoch = 0
        self.examples_scored = 0

    def set_epoch(self, epoch: int) -> None:
        """Makes the next iteration the given epoch's."""
        self.epoch = epoch
        self.batches.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        """Yields the kept part of one batch after the other."""
        self.selector.begin_epoch(self.epoch)
        for step, batch in enumerate(self.batches):
            with self.phase("score"):
                images = batch.images.to(self.device, non_blocking=True)
                labels = batch.labels.to(self.device, non_blocking=True)
                with scoring(self.learner):
                    parts = images.split(inference_batch_size(self.device))
                    outputs = torch.cat([self.learner(part) for part in parts])
                self.examples_scored += len(images)
                if not bool(torch.isfinite(outputs).all()):
                    raise TrainingError(
                        f"the learner's outputs are not finite in epoch {self.epoch}, step "
                        f"{step}; lower the learning rate"
                    )
            with self.phase("select"):
                candidates = self._candidates(batch.indices, labels, outputs)
                generator = derive_generator(self.seed, "select", self.epoch, step)
                chosen = self.selector(candidates, self.batch_size, generator=generator)
                where = chosen.positions.to(self.device)
                kept = Batch(
                    images[where],
                    labels[where],
                    batch.indices[chosen.positions],
                    None if chosen.weights is None else chosen.weights.to(self.device),
                )
            yield kept

    def observe(self, indices: Tensor, losses: Tensor) -> None:
        """Tells the selector, where it asks for them, the losses of a batch just trained."""
        if self.selector.observes_losses:
            self.selector.observe(indices, losses)

    def _candidates(self, indices: Tensor, labels: Tensor, outputs: Tensor) -> Candidates:
        """What the selector requires, from the learner's outputs and what was given."""
        requires = self.selector.requires
        reference = learner_losses = reference_losses = features = None
        if self.reference_outputs is not None:
            reference = self.reference_outputs[indices].to(self.device)
        if "learner_losses" in requires:
            learner_losses = cross_entropy(outputs.float(), labels, reduction="none")
        if "reference_losses" in requires and reference is not None:
            reference_losses = cross_entropy(reference.float(), labels, reduction="none")
        if "features" in requires and self.features is not None:
            features = torch.from_numpy(np.asarray(self.features[indices.numpy()]))
        return Candidates(
            indices=indices,
            features=None if features is None else features.to(self.device),
            labels=labels,
            learner_outputs=outputs,
            reference_outputs=reference,
            learner_losses=learner_losses,
            reference_losses=reference_losses,
        )
