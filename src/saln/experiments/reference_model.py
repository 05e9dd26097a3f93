"""The reference model: trained on its own part of the data, then asked about all the rest."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from saln.data.torch_datasets import EvaluationView, TrainingView
from saln.errors import TrainingError
from saln.experiments.config import Config
from saln.experiments.reporter import Reporter
from saln.experiments.rows import ArmCost
from saln.loading.epoch_batches import LoadedBatches, evaluation_batches
from saln.loading.network_outputs import scoring
from saln.loading.selected_batches import SelectedBatches
from saln.messages import parameter
from saln.randomness import derive_seed
from saln.selection import Uniform
from saln.training.cost_ledger import Counts, Ledger
from saln.training.loop import TrainSettings, train


class Reference(NamedTuple):
    """What is left of a reference model."""

    outputs: Tensor  # float32, (N, C): its logits for every training example
    seconds: float  # To train it and to ask it
    counts: Counts  # Examples for the same

    def to_state(self) -> dict[str, Any]:
        """Tensors and plain values."""
        return self._asdict() | {"counts": list(self.counts)}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Reference:
        """The reference that :meth:`to_state` was called on."""
        return cls(**state | {"counts": Counts(*state["counts"])})


def train_reference(
    model: nn.Module,
    view: TrainingView,
    asked: EvaluationView,
    settings: TrainSettings,
    *,
    config: Config,
    reporter: Reporter,
    through: Callable[[Tensor], Tensor] | None = None,
) -> Reference:
    """Trains a reference model like a learner, on every example of its part.

    ``view`` is the part of the training data that no arm sees; ``asked`` are the examples whose
    outputs are kept. Images are put ``through`` what the model stands on. ``settings`` are the
    learners', but for the epochs, which ``config`` says. Raises TrainingError for a loss or
    outputs that are not finite, DataError for a broken image.
    """
    device = next(model.parameters()).device
    ledger, batch_size = Ledger(device), min(config.batch_size, len(view))
    sampler = SelectedBatches(
        len(view),
        selector=Uniform(),
        batch_size=batch_size,
        filter_ratio=0.0,
        seed=derive_seed(settings.seed, "reference"),
        ahead=0,
        rank=0,
        world_size=1,
    )
    sampler.share_among(0, 1)  # every process trains the whole of it
    # As many steps as a selecting arm, so that neither of the two networks is better trained.
    steps = config.filter_schedule().steps(len(asked), config.batch_size)
    epochs = config.reference_epochs or -(-steps // len(sampler))
    total = epochs * len(sampler) * batch_size + len(asked)
    reporter.begin(f"reference model, seed {settings.seed}", total)

    for result in train(
        model,
        LoadedBatches(view, sampler, config.workers, through),
        dataclasses.replace(settings, epochs=epochs),
        ledger=ledger,
        on_step=lambda examples, step: reporter.advance(examples),
    ):
        examples = len(result.indices)
        ledger.count(steps=result.steps, forward=examples, backward=examples)
    outputs = []
    with scoring(model):
        for batch in evaluation_batches(asked, device, config.workers):
            images = batch.images.to(device)
            outputs.append(model(images if through is None else through(images)).float().cpu())
            ledger.count(forward=len(batch.images))
            reporter.advance(len(batch.images))
    # Outside inference mode again: a copy that autograd may meet.
    whole = torch.cat(outputs).clone()
    if not bool(torch.isfinite(whole).all()):  # its last step went too far
        raise TrainingError(
            f"its outputs are not finite after {epochs} epochs; lower {parameter('learning_rate')}"
        )
    return Reference(whole, ledger.total(), ledger.counts)


def cost_of(ledger: Ledger, features: tuple[float, int], reference: Reference | None) -> ArmCost:
    """What one arm cost with one seed. ``features``: seconds and examples."""
    seconds, counts = (0.0, Counts()) if reference is None else reference[1:]
    return ArmCost(
        features=features[0],
        reference=seconds,
        save=ledger.seconds["save"],
        total=ledger.total() + features[0] + seconds,
        **ledger.peak()._asdict(),
        features_examples_forward=features[1],
        reference_examples_forward=counts.forward,
        reference_examples_backward=counts.backward,
    )
