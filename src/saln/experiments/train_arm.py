"""Training of one arm with one seed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from saln.errors import TrainingError
from saln.experiments.arm import Arm
from saln.experiments.comparison import Comparison, SharedBySeed
from saln.experiments.kept_examples import ChoiceRecord
from saln.experiments.rows import SPLITS, EpochRow, PhaseSeconds
from saln.loading.epoch_batches import ScoredBatches, steps_of
from saln.selection import candidates_needed
from saln.training.changes import averaged_by, objective_of
from saln.training.cost_ledger import Ledger
from saln.training.distributed_layers import synchronize
from saln.training.loop import EpochResult, TrainSettings, TrainState, train

# Takes an epoch's row, and the state that training goes on from.
SaveEpoch = Callable[[EpochRow, dict[str, Any]], None]


def train_arm(
    comparison: Comparison,
    arm: Arm,
    shared: SharedBySeed,
    save_epoch: SaveEpoch,
    saved: Mapping[str, Any] | None = None,
) -> ArmRun:
    """Trains one arm with one seed; ``saved`` is a state to go on from, of ``save_epoch``.

    Raises TrainingError for a loss that is not finite, or where the reference model that the
    arm needs diverged, DataError for a broken image.
    """
    run = ArmRun(comparison, arm, shared)
    # After the parts are made, for a selector must exist to take its memory back.
    state = None if saved is None else run.restore(saved)
    name = f"{arm}, seed {shared.seed}" + (f", from epoch {state.epoch + 1}" if state else "")
    for result in _epochs(run, comparison.settings(shared.seed, arm), name, state=state):
        row = run.row(result)
        with run.ledger.phase("save"):
            save_epoch(row, run.state_after(result))
        comparison.reporter.epoch(row, comparison.config.epochs)
    return run


def try_arm(
    comparison: Comparison,
    arm: Arm,
    shared: SharedBySeed,
    settings: TrainSettings,
    name: str,
    see: Callable[[EpochRow], None],
) -> None:
    """Trains an arm to see how good it gets on validation data alone, and keeps nothing.

    Raises as :func:`train_arm`; ``see`` gets the rows up to there.
    """
    run = ArmRun(comparison, arm, shared)
    once = dataclasses.replace(settings, evaluate_every=settings.epochs)
    for result in _epochs(run, once, name, splits=("validation",)):
        see(run.row(result))


def _epochs(
    run: ArmRun,
    settings: TrainSettings,
    name: str,
    *,
    splits: Collection[str] = SPLITS,
    state: TrainState | None = None,
) -> Iterator[EpochResult]:
    """Trains an arm, whatever for; it is measured on these splits."""
    comparison, shared, epoch = run.comparison, run.shared, state.epoch if state else 0
    with run.ledger.phase("evaluate"):
        every = comparison.measuring.splits(shared.data)
        measured = {split: part for split, part in every.items() if split in splits}
    if epoch < settings.epochs:  # else it was ended between its last epoch and its checkpoint
        left = zip(run.steps[epoch:], run.loaded[epoch:], strict=True)
        comparison.reporter.begin(name, sum(count * size for count, size in left))

    def on_step(examples: int, step: int) -> None:
        if run.average is not None:
            with run.ledger.phase("train"):
                run.average.update_parameters(run.learner)
        comparison.reporter.advance(run.loaded[epoch])

    try:
        for result in train(
            run.learner,
            run.batches,
            dataclasses.replace(settings, objective=run.objective),
            ledger=run.ledger,
            measure=lambda: comparison.measuring.measure(run.evaluated, measured, shared.body),
            on_step=on_step,
            state=state,
            processes=comparison.processes,
        ):
            yield result
            epoch = result.epoch
    finally:
        run.batches.close()


class ArmRun:
    """The learner of an arm, what it cost and what was chosen for it, while it trains and after."""

    def __init__(self, comparison: Comparison, arm: Arm, shared: SharedBySeed) -> None:
        if shared.without_reference is not None and arm.needs_reference:
            raise TrainingError(shared.without_reference)
        self.comparison, self.arm, self.shared = comparison, arm, shared
        self.ledger = Ledger(comparison.device)
        with self.ledger.phase("load"):
            learner = comparison.fresh(shared.learner)
            self.learner = synchronize(learner, comparison.processes)
            self.batches = comparison.batches(arm, shared, self.learner, self.ledger)
            self.objective = objective_of(arm.all_changes, shared.teacher)
            self.average = averaged_by(arm.all_changes, self.learner)
            if self.average is not None:  # a copy, which the compiled code has to be told of
                comparison.compiled(self.average.module)
        # Of every epoch: its steps, the candidates of a step, and the images loaded for one.
        config, k = comparison.config, comparison.config.batch_size
        epochs, ratio = range(1, config.epochs + 1), comparison.filter_schedule.ratio
        self.steps = steps_of(self.batches, config.epochs)
        sizes = [candidates_needed(k, 0.0 if arm.keeps_all else ratio(epoch)) for epoch in epochs]
        # What is chosen before loading is all that is loaded; else every candidate is.
        self.loaded = sizes if isinstance(self.batches, ScoredBatches) else [k] * len(sizes)
        # Nothing is chosen where nothing is dropped.
        each = zip(self.steps, sizes, strict=True)
        choices = [steps if size > k else 0 for steps, size in each]
        # One seed is enough to look at, and standard has nothing to show: it keeps all.
        show = not arm.keeps_all and shared.seed == config.seeds[0]
        self.record = ChoiceRecord(len(shared.data.train), choices, show=show)
        self.selector = self.batches.batches.selector
        self.selector.watch(self.record.choice)
        self.scored = 0

    @property
    def evaluated(self) -> nn.Module:
        """What is measured and saved: the learner, or the average of its weights."""
        module: nn.Module = self.learner if self.average is None else self.average.module
        return module

    def restore(self, saved: Mapping[str, Any]) -> TrainState:
        """Goes on from what :meth:`state_after` gave."""
        self.ledger.load_state_dict(saved["ledger"])
        self.record.load_state_dict(saved["choices"])
        if "selector" in saved:
            self.selector.load_state_dict(saved["selector"])
        if self.average is not None:
            self.average.load_state_dict(saved["average"])
        return TrainState(**saved["training"])

    def row(self, result: EpochResult) -> EpochRow:
        """An epoch's row of ``epochs.jsonl``."""
        data, ledger, kept = self.shared.data.train, self.ledger, result.indices.numpy()
        # What only scored cost a forward pass, too, in whichever process it was.
        ledger.count(
            steps=result.steps, forward=len(kept) + self._newly_scored(), backward=len(kept)
        )
        wrong = data.labels[kept] != data.true_labels[kept]
        # Known only of labels that were replaced here: as it came, a data set may hold some.
        known = self.comparison.config.label_noise > 0
        seconds: dict[str, Any] = {name: round(t, 6) for name, t in ledger.take().items()}
        # None where --evaluate-every leaves the epoch out.
        metrics: dict[str, Any] = {
            f"{split}_{name}": value
            for split, measure in result.measures.items()
            for name, value in measure._asdict().items()
        }
        return EpochRow(
            arm=self.arm.label,
            seed=self.shared.seed,
            epoch=result.epoch,
            steps=ledger.counts.steps,
            examples_forward=ledger.counts.forward,
            examples_backward=ledger.counts.backward,
            **metrics,
            wrong_label_share_kept=float(wrong.mean()) if known else None,
            seconds=PhaseSeconds(**seconds),
        )

    def _newly_scored(self) -> int:
        """Candidates that went through the learner in the epoch, in all processes together."""
        if not isinstance(self.batches, ScoredBatches):
            return 0
        # It counts from the start of this process, not of the run: the difference is the epoch's.
        before, self.scored = self.scored, self.batches.selected.examples_scored
        newly = torch.tensor([self.scored - before], device=self.comparison.device)
        return int(self.comparison.processes.total(newly))

    def state_after(self, result: EpochResult) -> dict[str, Any]:
        """What training goes on from after an epoch; notes what was kept in it, too."""
        # Before the state is taken: a run that goes on from it has the epoch's record, too.
        self.record.end_epoch(result.epoch, result.indices.numpy())
        return {
            "training": result.state._asdict(),
            "ledger": self.ledger.state_dict(),
            "choices": self.record.state_dict(),
            "selector": self.selector.state_dict(),
            **({} if self.average is None else {"average": self.average.state_dict()}),
        }
