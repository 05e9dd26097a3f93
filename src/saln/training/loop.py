"""The training loop: one, explicit, the same for every arm."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from saln._optimizers import SGD
from saln.data.torch_datasets import Batch
from saln.errors import TrainingError
from saln.loading.epoch_batches import EpochBatches, steps_of
from saln.loading.network_outputs import scoring
from saln.messages import parameter
from saln.randomness import seeded_globally
from saln.training.cost_ledger import Ledger
from saln.training.distributed_layers import SharedDraws
from saln.training.losses import GIVEN_LABELS, Objective
from saln.training.processes import ALONE, Processes

SCHEDULES = ("constant", "cosine", "onecycle")


@dataclass(frozen=True)
class TrainSettings:
    """How to train (section 3.3 of the paper gives the defaults).

    Attributes:
        epochs: Passes over the candidates.
        learning_rate: The constant rate, or the highest of a schedule.
        momentum: Of SGD.
        weight_decay: Of SGD.
        nesterov: Whether the momentum is Nesterov's.
        schedule: One of :data:`SCHEDULES`, stretched to the arm's own number of steps.
        seed: Of dropout and the like.
        evaluate_every: Measure after every this many epochs, and after the last.
        objective: The loss that is trained; ``batches.observe`` gets it, example by example.
        autocast: What the learner's passes are cast to, losses not; None for nothing.
    """

    epochs: int
    learning_rate: float = 0.001
    momentum: float = 0.9
    weight_decay: float = 0.0
    nesterov: bool = False
    schedule: str = "constant"
    seed: int = 0
    evaluate_every: int = 1
    objective: Objective = GIVEN_LABELS
    autocast: torch.dtype | None = None


class Measure(NamedTuple):
    """What an evaluation gives."""

    loss: float
    accuracy: float


class TrainState(NamedTuple):
    """What training goes on from: the state dicts after an epoch.

    They share the learner's tensors; save them before the next epoch begins.
    """

    epoch: int  # The last epoch that is done
    learner: dict[str, Any]  # Weights and buffers
    optimizer: dict[str, Any]  # Momentum among it
    scheduler: dict[str, Any]  # Where the learning rate stands


class EpochResult(NamedTuple):
    """One epoch of training."""

    epoch: int  # From 1
    steps: int  # Gradient steps in this epoch
    indices: Tensor  # int64: the examples that got a gradient in this epoch, in order
    measures: dict[str, Measure]  # What ``measure`` gave after it; empty where it was not asked
    state: TrainState  # What training goes on from


def cast_to(device: torch.device, autocast: torch.dtype | None) -> torch.autocast:
    """Surrounds a pass that is computed in another type, or, for None, as it is."""
    return torch.autocast(device.type, dtype=autocast, enabled=autocast is not None)


def evaluate(
    learner: nn.Module,
    batches: Iterable[Batch],
    device: torch.device,
    processes: Processes = ALONE,
    autocast: torch.dtype | None = None,
) -> Measure:
    """Mean cross-entropy and accuracy over all examples of the batches.

    With several processes, over all of theirs; each gives its own part.
    """
    total, right, count = 0.0, 0.0, 0.0
    with scoring(learner):
        for batch in batches:
            labels = batch.labels.to(device)
            with cast_to(device, autocast):
                outputs = learner(batch.images.to(device))
            outputs = outputs.float()
            total += float(cross_entropy(outputs, labels, reduction="sum"))
            right += int((outputs.argmax(dim=1) == labels).sum())
            count += len(labels)
    whole = torch.tensor([total, right, count], dtype=torch.float64, device=device)
    # Sums, not means: processes may have unequal parts.
    total, right, count = processes.total(whole).tolist()
    return Measure(total / count, right / count)


def _schedule(
    optimizer: torch.optim.Optimizer, settings: TrainSettings, steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    def factor(step: int) -> float:
        # By hand: torch's OneCycleLR refuses runs of few steps and moves the momentum too.
        if settings.schedule == "onecycle":
            position, peak = (step + 1) / steps, 0.25
            return position / peak if position < peak else (1 - position) / (1 - peak) + 1e-3
        return 0.5 * (1 + math.cos(math.pi * step / steps)) if settings.schedule == "cosine" else 1

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


class _Steps:
    """What a gradient step needs: learner, optimizer, learning rate, the other processes."""

    def __init__(
        self, learner: nn.Module, settings: TrainSettings, steps: int, processes: Processes
    ) -> None:
        self.learner, self.processes, self.objective = learner, processes, settings.objective
        # Where its weights are, a batch must be.
        self.device = next(learner.parameters()).device
        self.optimizer = SGD(
            learner.parameters(),
            lr=settings.learning_rate,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
            nesterov=settings.nesterov,
        )
        self.scheduler = _schedule(self.optimizer, settings, steps)
        self.autocast = settings.autocast

    def state(self, epoch: int) -> TrainState:
        """What training goes on from after an epoch."""
        parts = (self.learner, self.optimizer, self.scheduler)
        return TrainState(epoch, *(part.state_dict() for part in parts))

    def load(self, state: TrainState) -> None:
        """Goes on from there."""
        self.learner.load_state_dict(state.learner)
        self.optimizer.load_state_dict(state.optimizer)
        self.scheduler.load_state_dict(state.scheduler)

    def take(self, batch: Batch, where: str) -> Tensor:
        """One step; the examples' losses before it, unweighted; TrainingError if not finite."""
        images, labels = batch.images.to(self.device), batch.labels.to(self.device)
        alone = self.processes.world_size == 1
        draws = nullcontext() if alone else SharedDraws(self.processes, len(images))
        with draws, cast_to(self.device, self.autocast):
            outputs = self.learner(images)
        if self.autocast is not None:
            outputs = outputs.float()  # sums of exponentials need more digits
        losses = self.objective(outputs, labels, batch.indices)
        weighted = losses if batch.weights is None else losses * batch.weights.to(self.device)
        loss = weighted.mean()
        # Of all ranks, so that all of them stop, or none.
        total = self.processes.total(loss.detach().clone()).item()
        mean = total / self.processes.world_size
        if not math.isfinite(mean):
            raise TrainingError(
                f"the loss is {mean} in {where}, at learning rate "
                f"{self.scheduler.get_last_lr()[0]:g}; lower {parameter('learning_rate')}"
            )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.processes.average_gradients(self.learner)
        self.optimizer.step()
        self.scheduler.step()
        return losses.detach()


def train(
    learner: nn.Module,
    batches: EpochBatches,
    settings: TrainSettings,
    *,
    ledger: Ledger,
    measure: Callable[[], dict[str, Measure]] = dict,
    on_step: Callable[[int, int], None] = lambda examples, step: None,
    state: TrainState | None = None,
    processes: Processes = ALONE,
) -> Iterator[EpochResult]:
    """Trains with SGD on the objective of the settings and yields after every epoch.

    Nothing random outlives an epoch, so training that goes on from a state does what
    training without a break would have done.

    Args:
        learner: On the device where it trains; changed in place.
        batches: What gets a gradient, epoch by epoch.
        settings: How to train.
        ledger: Books load, score, select, train and evaluate.
        measure: Evaluates the learner after an epoch; booked as evaluate.
        on_step: Called with (examples of the step, step in the epoch) after each.
        state: Goes on after the epoch of this state; the learner's part is loaded too.
        processes: Those that train together; ``batches`` gives each its equal share.

    Raises:
        TrainingError: A loss that is not finite. What was yielded before stands.
        DataError: A broken image.
    """
    with ledger.phase("train"):
        steps = _Steps(learner, settings, sum(steps_of(batches, settings.epochs)), processes)
        if state is not None:
            steps.load(state)
    done = 0 if state is None else state.epoch
    for epoch in range(done + 1, settings.epochs + 1):
        batches.set_epoch(epoch)
        kept: list[Tensor] = []
        # Dropout and stochastic depth know only torch's global generator.
        with seeded_globally(settings.seed, "train", epoch):
            learner.train()
            with ledger.phase("load"):
                iterator = iter(batches)
            while True:
                # By hand, so that waiting for a batch is booked as loading and not as training.
                with ledger.phase("load"):
                    batch = next(iterator, None)
                if batch is None:
                    break
                with ledger.phase("train"):
                    losses = steps.take(batch, f"epoch {epoch}, step {len(kept)}")
                    kept.append(batch.indices)
                    # Selectors that learn from losses get the step's own: no other pass.
                    batches.observe(batch.indices, losses)
                on_step(len(batch.indices), len(kept))
        measures: dict[str, Measure] = {}
        if epoch % settings.evaluate_every == 0 or epoch == settings.epochs:
            with ledger.phase("evaluate"):
                measures = measure()
            _check_losses(measures, epoch)
        indices = processes.joined(torch.cat(kept), len(kept), steps.device)
        yield EpochResult(epoch, len(kept), indices, measures, steps.state(epoch))


def _check_losses(measures: dict[str, Measure], epoch: int) -> None:
    # The epoch's last step may have gone too far: no loss in training has shown it yet.
    for split, value in measures.items():
        if not math.isfinite(value.loss):
            raise TrainingError(
                f"the {split} loss is {value.loss} after epoch {epoch}; lower "
                f"{parameter('learning_rate')}"
            )
