"""One comparison, from settings to rows on disk."""

from __future__ import annotations

import contextlib
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saln.errors import SalnError, TrainingError
from saln.experiments.arms import Comparison
from saln.experiments.choices import save_examples, save_sheets
from saln.experiments.confidence import doubted_labels
from saln.experiments.config import Config
from saln.experiments.environment import limited_threads
from saln.experiments.progress import (
    RunProgress,
    finished_summary,
    free_folder,
    refuse_changes,
)
from saln.experiments.reference import Reference, cost_of
from saln.experiments.reporter import Reporter
from saln.experiments.summary import summarise

__all__ = ["Outcome", "Reporter", "compare"]


@dataclass(frozen=True)
class Outcome:
    """A finished comparison.

    Attributes:
        path: The run folder.
        summary: The content of ``summary.json``.
        failures: One line for each arm and seed that was stopped.
        nothing_to_do: The run to go on with was finished already.
    """

    path: Path
    summary: dict[str, Any]
    failures: tuple[str, ...]
    nothing_to_do: bool = False


def compare(config: Config, reporter: Reporter) -> Outcome:
    """Trains the arms side by side, seed by seed, and writes the run folder.

    Every arm sees the same splits, candidates, augmentation and initial weights for a
    seed; the batch that gets a gradient has the same size in every arm. Rows go to
    ``epochs.jsonl`` as they come, each after the state that training goes on from, so
    that an interrupted run keeps what it has and, with ``config.resume``, goes on.

    Raises:
        InputError: Settings that cannot work, or other ones than those of the run to go
            on with; no file is changed.
        SalnError: What stops the whole run, such as a broken image. An arm whose loss
            is not finite is stopped alone: the others go on.
    """
    config.check()
    if config.resume and config.out is not None:
        path = config.out.expanduser()
        refuse_changes(path, config)
        summary = finished_summary(path)
        if summary is not None:
            return Outcome(path, summary, (), nothing_to_do=True)
    else:
        path = free_folder(config)
    try:
        with limited_threads(config.threads):
            return _compare(config, reporter, path)
    except (KeyboardInterrupt, SalnError):
        if (path / "config.json").exists() and not (path / "summary.json").exists():
            reporter.note(
                f"the rows so far are in {path / 'epochs.jsonl'}; go on with: "
                f"saln compare --resume --out {shlex.quote(str(path))}"
            )
        raise


def _compare(config: Config, reporter: Reporter, path: Path) -> Outcome:
    comparison = Comparison(config, reporter)
    data, device = comparison.data, comparison.device
    facts = {"data set's fingerprint": data.fingerprint, "device": device.type}
    progress = RunProgress.resume(path, config, device, facts) if config.resume else None
    with contextlib.ExitStack() as stack:
        if progress is not None:
            stack.enter_context(progress)
        features, feature_seconds = comparison.features()
        if progress is None:
            progress = stack.enter_context(RunProgress.start(path, config, device, facts))
        parts = {name: len(getattr(data, name)) for name in ("train", "reference", "validation")}
        counts = {**parts, "test": len(data.test)}
        reporter.note(
            f"{config.dataset}: {sum(parts.values()):,} training images ("
            + ", ".join(f"{count:,} {name}" for name, count in parts.items() if count)
            + f"), {len(data.test):,} test images, {len(data.class_names)} classes"
        )
        comparison.warm_up()
        _train_arms(comparison, progress, features, feature_seconds)
        about = {
            "dataset": config.dataset,
            "classes": len(data.class_names),
            "class_names": list(data.class_names),
            "examples": counts,
            "methods": list(config.methods),
            "learner": config.learner,
            "backbone": config.backbone,
            "image_size": comparison.image_size,
            "epochs": config.epochs,
            "batch_size": config.batch_size,
            "candidates": comparison.n_candidates,
            "filter_ratio": config.filter_ratio,
            "filter_schedule": str(comparison.filter_schedule),
            "label_noise": config.label_noise,
            "seeds": list(config.seeds),
        }
        summary = summarise(about, progress.rows, progress.costs, progress.failures)
        progress.finish_run(summary)
    return Outcome(path, summary, tuple(progress.failures.values()))


def _train_arms(
    comparison: Comparison, progress: RunProgress, features: Any, feature_seconds: float
) -> None:
    """Trains every arm of every seed that is not done yet."""
    config, device = comparison.config, comparison.device
    for seed in config.seeds:
        waiting = [arm for arm in config.methods if not progress.done(arm, seed)]
        if not waiting:
            continue
        saved = progress.reference(seed)
        shared = comparison.seed(seed, None if saved is None else Reference.from_state(saved))
        if saved is None and shared.reference is not None:
            progress.save_reference(seed, shared.reference.to_state())
        if seed == config.seeds[0] and shared.confidence is not None:
            beliefs, noise = shared.confidence.beliefs, config.label_noise
            found = doubted_labels(beliefs, shared.data, seed=seed, noise_share=noise)
            progress.save_labels(found)
        save_examples(progress.path, seed, shared.data.train, comparison.data.class_names)
        for arm in waiting:
            requires = comparison.selectors[arm].requires if arm != "standard" else frozenset()
            state = progress.state(arm, seed, device=device)
            try:
                learner, ledger, record = comparison.arm(
                    arm, shared, features, progress.save_epoch, state
                )
            except TrainingError as error:
                progress.fail(arm, seed, f"{arm}, seed {seed}: {error}")
                comparison.reporter.note(f"stopped {progress.failures[arm, seed]}")
                continue
            weights = {name: value.cpu() for name, value in learner.state_dict().items()}
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
        progress.drop_reference(seed)
