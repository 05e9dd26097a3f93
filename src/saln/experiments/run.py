"""One comparison, from settings to rows on disk."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from saln.errors import ConvergenceError, InputError, TrainingError
from saln.experiments.arms import Comparison, SharedBySeed
from saln.experiments.config import Config
from saln.experiments.environment import find_device
from saln.experiments.event_log import EventLog
from saln.experiments.finished_run import read_finished
from saln.experiments.kept_examples import save_examples, save_sheets
from saln.experiments.label_confidence import doubted_labels
from saln.experiments.progress import RunProgress
from saln.experiments.reference_model import Reference, cost_of
from saln.experiments.reporter import Reporter
from saln.experiments.rows import EpochRow, RunFacts, Summary
from saln.experiments.run_folder import ANEW, claimed
from saln.messages import parameter
from saln.threads import limited_threads
from saln.training.processes import Processes


@dataclass(frozen=True)
class Outcome:
    """A finished comparison.

    Attributes:
        path: The run folder.
        summary: The content of ``summary.json``; None but in the first process.
        failures: One line for each arm and seed that was stopped.
        nothing_to_do: The run to go on with was finished already.
    """

    path: Path
    summary: Summary | None
    failures: tuple[str, ...]
    nothing_to_do: bool = False


def compare(config: Config, reporter: Reporter, parts: type[Comparison] = Comparison) -> Outcome:
    """Trains the arms side by side, seed by seed, and writes the run folder.

    Every arm sees the same splits, candidates, augmentation and initial weights for a
    seed; the batch that gets a gradient has the same size in every arm. Rows go to
    ``epochs.jsonl`` as they come, each after the state that training goes on from, so
    that an interrupted run keeps what it has and, with ``config.resume``, goes on.

    Args:
        config: The settings.
        reporter: Told what happens.
        parts: What the arms are made of; another class may, for one, read its images elsewhere.

    Raises:
        InputError: Settings that cannot work, or other ones than those of the run to go
            on with; no file is changed.
        SalnError: What stops the whole run, such as a broken image. An arm whose loss
            is not finite, whose reference model's is not, or whose selector finds no answer
            is stopped alone: the others go on.
    """
    config.check()
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
        resumes = processes.first and config.resume
        summary = _finished_summary(path, config) if resumes else None
        if processes.same(summary is not None, device):
            return Outcome(path, summary, (), nothing_to_do=True)
        with limited_threads(config.threads):
            comparison = parts(config, reporter, device, processes)
            return _compare(comparison, path)


@contextlib.contextmanager
def _hinting(reporter: Reporter, path: Path) -> Iterator[None]:
    """Says how a run goes on that is stopped."""
    try:
        yield
    except BaseException:  # whatever it was: what is done is done
        if (path / "config.json").exists() and not (path / "summary.json").exists():
            reporter.note(
                f"the rows so far are in {path / 'epochs.jsonl'}; go on with: "
                f"saln compare --resume --out {shlex.quote(str(path))}"
            )
        raise


def _finished_summary(path: Path, config: Config) -> Summary | None:
    """The summary of a run that has every seed that is asked for; what is damaged is mended."""
    run = read_finished(path, ANEW)
    if run is None or run.summary.seeds != config.seeds:
        return None
    run.mend(path)
    return run.summary


def _compare(comparison: Comparison, path: Path) -> Outcome:
    config, data = comparison.config, comparison.data
    reporter, device, processes = comparison.reporter, comparison.device, comparison.processes
    facts = {
        "data set's fingerprint": data.fingerprint,
        "device": device.type,
        "number of processes": processes.world_size,
    }
    log = EventLog(path / "tensorboard") if config.tensorboard and processes.first else None
    with contextlib.ExitStack() as stack:
        if log is not None:
            stack.callback(log.close)
        progress: RunProgress | None = None
        if processes.first and config.resume:
            progress = stack.enter_context(RunProgress.resume(path, config, device, facts))
            stack.enter_context(_hinting(reporter, path))
            _say_damage(comparison, progress)
        features, feature_seconds = comparison.features()
        if processes.first and progress is None:
            progress = stack.enter_context(RunProgress.start(path, config, device, facts))
            stack.enter_context(_hinting(reporter, path))
        parts = {name: len(getattr(data, name)) for name in ("train", "reference", "validation")}
        counts = {**parts, "test": len(data.test)}
        reporter.note(
            f"{config.dataset}: {sum(parts.values()):,} training images ("
            + ", ".join(f"{count:,} {name}" for name, count in parts.items() if count)
            + f"), {len(data.test):,} test images, {len(data.class_names)} classes"
        )
        comparison.warm_up()
        _train_arms(comparison, progress, log, features, feature_seconds)
        if progress is None:  # the first process has the rows
            return Outcome(path, None, ())
        about = RunFacts(
            dataset=config.dataset,
            classes=len(data.class_names),
            class_names=tuple(data.class_names),
            examples=counts,
            methods=config.methods,
            learner=config.learner,
            head_only=config.head_only,
            backbone=config.backbone,
            image_size=comparison.image_size,
            epochs=config.epochs,
            batch_size=config.batch_size,
            candidates=comparison.n_candidates,
            filter_ratio=config.filter_ratio,
            filter_schedule=str(comparison.filter_schedule),
            label_noise=config.label_noise,
            seeds=config.seeds,
        )
        summary = progress.finish_run(about)
    return Outcome(path, summary, tuple(progress.failures.values()))


def _say_damage(comparison: Comparison, progress: RunProgress) -> None:
    """Says once what was found damaged and is made anew."""
    for line in progress.damaged:
        comparison.reporter.note(line)
    progress.damaged.clear()


def _train_arms(
    comparison: Comparison,
    progress: RunProgress | None,
    log: EventLog | None,
    features: Any,
    feature_seconds: float,
) -> None:
    """Trains every arm of every seed that is not done yet.

    Every process does; the first alone has the ``progress`` and writes, and what it reads
    there goes to all.
    """
    config, device, processes = comparison.config, comparison.device, comparison.processes

    def save_epoch(row: EpochRow, state: dict[str, Any]) -> None:
        if progress is not None:
            progress.save_epoch(row, state)
            if log is not None:
                log.add(row, progress.rows)

    # What is sent to other processes goes through memory that all of them have.
    place = device if processes.world_size == 1 else torch.device("cpu")
    for seed in config.seeds:
        waiting = [arm for arm in config.methods if progress and not progress.done(arm, seed)]
        waiting = processes.same(waiting, device)
        if not waiting:
            continue
        saved = processes.same(progress.reference(seed) if progress else None, device)
        if progress is not None:
            _say_damage(comparison, progress)
        reference = None if saved is None else Reference.from_state(saved)
        shared = comparison.seed(seed, reference, waiting)
        if progress is not None:
            _save_seed(comparison, progress, shared, new_reference=saved is None)
        for arm in waiting:
            requires = comparison.selectors[arm].requires if arm != "standard" else frozenset()
            state = progress.state(arm, seed, device=place) if progress else None
            state = processes.same(state, device)
            try:
                learner, ledger, record = comparison.arm(arm, shared, features, save_epoch, state)
            except (TrainingError, ConvergenceError) as error:
                failure = f"{arm}, seed {seed}: {error}"
                if progress is not None:
                    progress.fail(arm, seed, failure)
                comparison.reporter.note(f"stopped {failure}")
                continue
            if progress is None:
                continue
            weights = {name: value.cpu() for name, value in shared.whole(learner).items()}
            needs = any(name.startswith("reference_") for name in requires)
            once = (0.0, 0)
            if requires & {"features", "label_confidence"}:
                once = (feature_seconds, len(comparison.data.train_and_reference))
            if "label_confidence" in requires and shared.confidence is not None:
                once = (once[0] + shared.confidence.seconds, once[1])
            cost = cost_of(ledger, once, shared.reference if needs else None)
            record.save(progress.path, arm, seed)
            save_sheets(progress.path, shared.data.train, record.shown)
            progress.finish(arm, seed, weights, cost)
        if progress is not None:
            progress.drop_reference(seed)


def _save_seed(
    comparison: Comparison, progress: RunProgress, shared: SharedBySeed, *, new_reference: bool
) -> None:
    """Keeps what the arms of a seed share."""
    config, seed = comparison.config, shared.seed
    if new_reference and shared.reference is not None:
        progress.save_reference(seed, shared.reference.to_state())
    if seed == config.seeds[0] and shared.confidence is not None:
        beliefs, noise = shared.confidence.beliefs, config.label_noise
        found = doubted_labels(beliefs, shared.data, seed=seed, noise_share=noise)
        progress.save_labels(found)
    progress.drop_damaged_choices(seed)
    save_examples(progress.path, seed, shared.data.train, comparison.data.class_names)
