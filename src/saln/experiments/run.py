"""One comparison, from settings to rows on disk."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from saln.errors import ConvergenceError, InputError, TrainingError
from saln.experiments.arm import Arm
from saln.experiments.comparison import Comparison, SharedBySeed
from saln.experiments.config import Config
from saln.experiments.environment import find_device
from saln.experiments.event_log import EventLog
from saln.experiments.kept_examples import save_examples, save_label_sheet, save_sheets
from saln.experiments.label_confidence import doubted_labels, listed_confidence
from saln.experiments.progress import JUDGING, RunProgress
from saln.experiments.progress_file import read_finished
from saln.experiments.reference_model import Reference, cost_of
from saln.experiments.reporter import Reporter
from saln.experiments.rows import EpochRow, RunFacts, Summary
from saln.experiments.run_folder import ANEW, RunFolder, claimed
from saln.experiments.shared_inputs import SharedInputs, candidates_of_step, make_inputs
from saln.experiments.train_arm import train_arm
from saln.experiments.tuning import Tuning
from saln.features.default_backbone import named_network
from saln.messages import parameter
from saln.selection.coherence import JUDGED_POWER
from saln.threads import limited_threads
from saln.training.processes import Processes


@dataclass(frozen=True)
class ComparisonOutcome:
    """A finished comparison.

    The summary is None but in the first process; ``failures`` has a line for each arm and seed that
    was stopped; there was ``nothing_to_do`` where the run to go on with was finished already.
    """

    path: Path
    summary: Summary | None
    failures: tuple[str, ...]
    nothing_to_do: bool = False


def compare(
    config: Config, reporter: Reporter, parts: type[Comparison] = Comparison
) -> ComparisonOutcome:
    """Trains the arms side by side, seed by seed, and writes the run folder.

    Every arm sees the same splits, candidates, augmentation and initial weights for a
    seed; the batch that gets a gradient has the same size in every arm. Rows go to
    ``epochs.jsonl`` as they come, each after the state that training goes on from, so
    that an interrupted run keeps what it has and, with ``config.resume``, goes on.

    Args:
        config: The settings.
        reporter: Shows what happens.
        parts: What the arms are made of; another class may, for one, read its images elsewhere.

    Raises:
        InputError: Settings that cannot work, or other ones than those of the run to go
            on with; no file is changed.
        SalnError: What stops the whole run, such as a broken image. An arm whose loss
            is not finite, whose reference model's is not, or whose selector finds no answer
            is stopped alone: the others go on.
    """
    config.check()
    # By its own name from here on: the run's files say what was taken, and a resumed run takes it.
    config = replace(config, backbone=named_network(config.backbone, config.device))
    processes = Processes.from_environment()
    if config.batch_size % processes.world_size:
        raise InputError(
            f"{parameter('batch_size', config.batch_size)} cannot be shared equally by "
            f"{processes.world_size} processes; give a multiple of {processes.world_size}"
        )
    device = find_device(config.device, processes.local_rank)
    with contextlib.ExitStack() as stack:
        # Before anything is looked at: two that are started at once would find the same.
        path = stack.enter_context(claimed(config)) if processes.first else Path()
        stack.enter_context(processes.connected(device))
        run = read_finished(path, ANEW) if processes.first and config.resume else None
        if run is not None and run.summary.seeds != config.seeds:
            run = None  # seeds are to be added
        if run is not None:
            run.mend(path)
        if processes.same(run is not None, device):
            summary = None if run is None else run.summary
            return ComparisonOutcome(path, summary, (), nothing_to_do=True)
        with limited_threads(config.threads):
            comparison = parts(config, reporter, device, processes)
            return _compare(comparison, path)


@contextlib.contextmanager
def _hinting(reporter: Reporter, path: Path) -> Iterator[None]:
    """Says how a run goes on that is stopped."""
    try:
        yield
    except BaseException:  # whatever it was: what is done is done
        folder = RunFolder(path)
        if folder.config.exists() and not folder.summary.exists():
            reporter.note(
                f"the rows so far are in {folder.rows}; go on with: "
                f"saln compare --resume --out {shlex.quote(str(path))}"
            )
        raise


def _compare(comparison: Comparison, path: Path) -> ComparisonOutcome:
    config, reporter, processes = comparison.config, comparison.reporter, comparison.processes
    # Rows differ in their last digits where one of these does, whatever the settings say.
    facts = {
        "data set's fingerprint": comparison.data.fingerprint,
        "device": comparison.device.type,
        "number of processes": processes.world_size,
    }
    if any(arm.leaves_judging for arm in config.arms):
        facts[JUDGING] = f"labels, to the power of {JUDGED_POWER:g}"
    log = EventLog(path, config) if config.logs and processes.first else None
    with contextlib.ExitStack() as stack:
        if log is not None:
            stack.callback(log.close)

        def begun(begin: Callable[..., RunProgress]) -> RunProgress:
            opened = stack.enter_context(begin(path, config, comparison.device, facts))
            stack.enter_context(_hinting(reporter, path))
            return opened

        # A run that goes on is checked before hours of features; a new one has no folder until
        # they are there, so that a failure leaves nothing behind.
        progress = begun(RunProgress.resume) if processes.first and config.resume else None
        if progress is not None:
            _report_damage(reporter, progress)
        inputs = make_inputs(
            config, comparison.data, comparison.image_size, comparison.device, reporter
        )
        if processes.first and progress is None:
            progress = begun(RunProgress.start)
        # Known before the first step, so that the note and the summary say the same.
        about = _about(comparison)
        reporter.note(_sizes(about))
        comparison.warm_up()
        _Run(comparison, inputs, progress, log).train_all()
        if progress is None:  # the first process has the rows
            return ComparisonOutcome(path, None, ())
        summary = progress.finish_run(about)
    return ComparisonOutcome(path, summary, tuple(progress.record.failures.values()))


def _about(comparison: Comparison) -> RunFacts:
    """What the summary says of the run as a whole."""
    config, data = comparison.config, comparison.data
    parts = {"train": data.train, "reference": data.reference, "validation": data.validation}
    return RunFacts(
        dataset=config.dataset,
        classes=len(data.class_names),
        class_names=tuple(data.class_names),
        examples={name: len(part) for name, part in {**parts, "test": data.test}.items()},
        methods=config.labels,
        learner=config.learner,
        head_only=config.head_only,
        backbone=config.backbone,
        image_size=comparison.image_size,
        epochs=config.epochs,
        batch_size=config.batch_size,
        candidates=candidates_of_step(config),
        filter_ratio=config.filter_ratio,
        filter_schedule=str(comparison.filter_schedule),
        label_noise=config.label_noise,
        seeds=config.seeds,
        targets=config.usual_targets,
    )


def _sizes(about: RunFacts) -> str:
    """How many images there are, in a line."""
    *parts, test = about.examples.items()
    listed = ", ".join(f"{count:,} {name}" for name, count in parts if count)
    return (
        f"{about.dataset}: {sum(count for _, count in parts):,} training images ({listed}), "
        f"{test[1]:,} test images, {about.classes} classes"
    )


def _report_damage(reporter: Reporter, progress: RunProgress) -> None:
    """Says once what was found damaged and is made anew."""
    for line in progress.states.damaged:
        reporter.note(line)
    progress.states.damaged.clear()


@dataclass(frozen=True)
class _Run:
    """Trains every arm of every seed that is not done yet.

    Every process does; the first alone has the ``progress`` and writes, and what it reads
    there goes to all.
    """

    comparison: Comparison
    inputs: SharedInputs
    progress: RunProgress | None
    log: EventLog | None

    def train_all(self) -> None:
        comparison, progress = self.comparison, self.progress
        waiting = {seed: self._waiting(seed) for seed in comparison.config.seeds}
        left = [arm for arm in comparison.config.arms if any(arm in of for of in waiting.values())]
        # What the arms share is made once a seed, whether for tuning or for what comes after.
        made: dict[int, SharedBySeed] = {}

        def shared(seed: int) -> SharedBySeed:
            if seed not in made:
                made[seed] = self._seed(seed, left)
            return made[seed]

        Tuning(comparison, progress, shared).choose(left)
        for seed, arms in waiting.items():
            if not arms:
                continue
            # Seed by seed, not arm by arm: a run that is stopped early still compares all arms.
            of_seed = made.pop(seed, None) or self._seed(seed, arms)
            for arm in arms:
                self._train(arm, of_seed)
            if progress is not None:
                progress.folder.reference(seed).unlink(missing_ok=True)

    def _waiting(self, seed: int) -> list[Arm]:
        """The arms that are not done with a seed."""
        progress, arms = self.progress, self.comparison.config.arms
        done = [progress is not None and progress.record.done(arm.label, seed) for arm in arms]
        done = self.comparison.same(done)
        return [arm for arm, is_done in zip(arms, done, strict=True) if not is_done]

    def _seed(self, seed: int, waiting: Sequence[Arm]) -> SharedBySeed:
        """What the arms of a seed share; what must outlive a kill is kept."""
        comparison, progress = self.comparison, self.progress
        saved = comparison.same(None if progress is None else progress.states.reference(seed))
        if progress is not None:
            _report_damage(comparison.reporter, progress)
        reference = None if saved is None else Reference.from_state(saved)
        shared = comparison.seed(seed, self.inputs, reference, waiting)
        if progress is None:
            return shared
        # At once: a kill in the first arm must not cost a second training of it.
        if saved is None and shared.reference is not None:
            progress.save_reference(seed, shared.reference.to_state())
        config, confidence = comparison.config, listed_confidence(shared.confidence)
        progress.drop_damaged_choices(seed)
        if seed == config.seeds[0] and confidence is not None:
            doubts = doubted_labels(
                confidence, shared.data, seed=seed, noise_share=config.label_noise
            )
            progress.save_labels(doubts)
            listed = [label["example"] for label in doubts["labels"]]
            save_label_sheet(progress.path, shared.data.train, listed)
        save_examples(progress.path, seed, shared.data.train, comparison.data.class_names)
        return shared

    def _train(self, arm: Arm, shared: SharedBySeed) -> None:
        comparison, progress, seed = self.comparison, self.progress, shared.seed
        # What is sent to other processes goes through memory that all of them have.
        alone = comparison.processes.world_size == 1
        place = comparison.device if alone else torch.device("cpu")
        state = None if progress is None else progress.states.load(arm.label, seed, device=place)
        try:
            trained = train_arm(comparison, arm, shared, self._save_epoch, comparison.same(state))
        except (TrainingError, ConvergenceError) as error:
            failure = f"{arm}, seed {seed}: {error}"
            if progress is not None:
                progress.fail(arm.label, seed, failure)
            comparison.reporter.note(f"stopped {failure}")
            return
        if progress is None:
            return
        # On the CPU, for whoever loads the checkpoint may have no GPU.
        weights = {name: value.cpu() for name, value in shared.whole(trained.evaluated).items()}
        seconds, examples = self.inputs.cost(arm)
        # Each arm is charged in full for what it shares, as if it were trained alone.
        seconds += shared.judging_seconds(arm)
        reference = shared.reference if arm.needs_reference else None
        cost = cost_of(trained.ledger, (seconds, examples), reference)
        # What the checkpoint stands for is there before `finish` counts the arm as done.
        trained.record.save(progress.path, arm.label, seed)
        save_sheets(progress.path, shared.data.train, trained.record.shown)
        progress.finish(arm.label, seed, weights, cost)

    def _save_epoch(self, row: EpochRow, state: dict[str, Any]) -> None:
        if self.progress is not None:
            self.progress.save_epoch(row, state)
            if self.log is not None:
                self.log.add(row, self.progress.rows)
