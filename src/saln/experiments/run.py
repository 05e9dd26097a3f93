"""One comparison, from settings to rows on disk."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import datetime
import functools
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import threadpoolctl
import torch
from torch import Tensor, nn

from saln.data.augmentation import EvaluationTransform, Normalisation
from saln.data.datasets import DataSet, Examples, load_dataset, stratified_part
from saln.data.views import EvaluationView, TrainingView, inference_batch_size
from saln.errors import InputError, TrainingError
from saln.experiments.config import Config
from saln.experiments.environment import environment
from saln.experiments.summary import summarise
from saln.features.backbones import build_backbone, feature_size
from saln.features.extraction import extract
from saln.features.neighbours import NeighbourTable, neighbour_table
from saln.files import write_text, write_with
from saln.loading.batches import SelectedBatches
from saln.loading.learner_selected import LearnerSelected, scoring
from saln.loading.loader import EpochBatches, LoadedBatches, evaluation_batches
from saln.randomness import derive_seed, seeded_globally
from saln.selection import SELECTORS, Uniform, candidates_needed
from saln.selection.coherence import NEIGHBOURS, label_beliefs
from saln.training.learners import build_learner
from saln.training.ledger import Ledger
from saln.training.loop import Measure, TrainSettings, evaluate, train

__all__ = ["Outcome", "Reporter", "compare"]

# The share of the training data that trains reference models, when any arm needs one.
REFERENCE_SHARE = 0.1
# Training accuracy is measured on this many examples at most, the same for all arms.
TRAIN_MEASURE_LIMIT = 1000


class Reporter(Protocol):
    """Told what happens, for people who watch."""

    def note(self, text: str) -> None:
        """Something worth a line."""

    def begin(self, what: str, total: int) -> None:
        """A stage of ``total`` examples begins."""

    def advance(self, examples: int) -> None:
        """So many more examples are done."""

    def epoch(self, row: dict[str, Any], epochs: int) -> None:
        """An epoch is done."""


@dataclass(frozen=True)
class Outcome:
    """A finished comparison.

    Attributes:
        path: The run folder.
        summary: The content of ``summary.json``.
        failures: One line for each arm and seed that was stopped.
    """

    path: Path
    summary: dict[str, Any]
    failures: tuple[str, ...]


@dataclass(frozen=True)
class _Seed:
    """What all arms of one seed share."""

    seed: int
    data: DataSet
    learner: nn.Module
    reference_outputs: Tensor | None
    reference_seconds: float
    label_confidence: np.ndarray[Any, np.dtype[np.float64]] | None = None
    confidence_seconds: float = 0.0


class _Comparison:
    """The shared parts of a comparison; :func:`compare` drives it."""

    def __init__(self, config: Config, reporter: Reporter) -> None:
        self.config = config
        self.reporter = reporter
        self.device = _device(config.device)
        selectors = {name: SELECTORS[name]() for name in config.methods if name != "standard"}
        self.selectors = selectors
        needs_reference = any(
            requirement.startswith("reference_")
            for selector in selectors.values()
            for requirement in selector.requires
        )
        self.data = load_dataset(
            config.dataset,
            config.data_root.expanduser(),
            limit=config.limit,
            reference_share=REFERENCE_SHARE if needs_reference else 0.0,
            split_seed=config.split_seed,
            download=config.download,
        )
        self.image_size = config.image_size or self.data.default_image_size
        k, f = config.batch_size, config.filter_ratio
        n = candidates_needed(k, f) if selectors else k
        if n > len(self.data.train):
            raise InputError(
                f"--batch-size {k} at --filter-ratio {f} needs {n} candidates for a step, but "
                f"{config.dataset} has {len(self.data.train)} training images here; "
                "lower one of the two"
            )
        self.n_candidates = n
        self.neighbours: NeighbourTable | None = None
        # Fails here, before the run folder is made, when weights or size do not fit.
        self.first_learner, self.normalisation = self._build_learner(config.seeds[0])

    def _build_learner(self, seed: int) -> tuple[nn.Module, Normalisation]:
        config = self.config
        return build_learner(
            config.learner,
            len(self.data.class_names),
            image_size=self.image_size,
            pretrained=config.pretrained,
            weights=config.weights,
            seed=seed,
        )

    def warm_up(self) -> None:
        """One pass of every batch shape, so that the first arm does not pay for the kernels."""
        learner = copy.deepcopy(self.first_learner).to(self.device)
        size = self.image_size
        labels = torch.zeros(self.config.batch_size, dtype=torch.int64, device=self.device)
        images = torch.zeros(self.config.batch_size, 3, size, size, device=self.device)
        with seeded_globally("warm up"):
            learner.train()
            torch.nn.functional.cross_entropy(learner(images), labels).backward()
            with scoring(learner):
                learner(images[: inference_batch_size(self.device)])

    def features(self) -> tuple[np.ndarray[Any, np.dtype[np.float16]] | None, float]:
        """The training examples' features and the seconds that they took when made.

        Their neighbours too, where an arm asks how likely the labels are right.
        """
        required = {name for selector in self.selectors.values() for name in selector.requires}
        if not required & {"features", "label_confidence"}:
            return None, 0.0
        config, data = self.config, self.data
        size = config.feature_size or feature_size(config.backbone, self.image_size)
        backbone = build_backbone(config.backbone, image_size=size, weights=config.backbone_weights)
        # The reference part too, so that the store serves comparisons with and without it.
        pool = data.train_and_reference
        done = 0
        self.reporter.begin(f"features: {config.backbone} at {size} px", len(pool))

        def progress(rows: int, total: int) -> None:
            nonlocal done
            self.reporter.advance(rows - done)
            done = rows

        store = extract(
            pool,
            backbone,
            dataset=config.dataset,
            fingerprint=data.fingerprint,
            cache_dir=config.cache_dir.expanduser(),
            device=self.device,
            workers=config.workers,
            progress=progress,
        )
        if done == 0:
            self.reporter.note(f"features: reused {store.path}")
        rows = np.searchsorted(pool.rows, data.train.rows)
        if "label_confidence" in required:
            part = rows if len(rows) < len(pool) else None
            self.neighbours = neighbour_table(store, NEIGHBOURS, rows=part)
        return np.asarray(store.features[rows]), float(store.manifest["seconds"])

    def settings(self, seed: int) -> TrainSettings:
        config = self.config
        return TrainSettings(
            epochs=config.epochs,
            learning_rate=config.learning_rate,
            schedule=config.schedule,
            seed=seed,
        )

    def training_view(self, examples: Examples, seed: int) -> TrainingView:
        augmentation = self.data.augmentation(self.image_size, self.normalisation)
        return TrainingView(examples, augmentation, seed)

    def evaluation_view(self, examples: Examples) -> EvaluationView:
        return EvaluationView(examples, EvaluationTransform(self.image_size, self.normalisation))

    def label_confidence(
        self, data: DataSet, seed: int
    ) -> tuple[np.ndarray[Any, np.dtype[np.float64]] | None, float]:
        """How likely each training label is right, where an arm asks, and the seconds for it."""
        if self.neighbours is None:
            return None, 0.0
        ledger = Ledger(self.device)
        beliefs = label_beliefs(
            torch.from_numpy(np.array(self.neighbours.indices)),
            torch.from_numpy(np.array(self.neighbours.similarities)),
            torch.from_numpy(data.train.labels),
            len(data.class_names),
        )
        self.reporter.note(
            f"label coherence, seed {seed}: about {beliefs.noise_rate:.0%} of the training "
            "labels look wrong"
        )
        return beliefs.confidence.numpy(), self.neighbours.seconds + ledger.total()

    def seed(self, seed: int) -> _Seed:
        """Labels, initial weights and, where an arm needs it, the trained reference model."""
        config = self.config
        data = self.data.with_label_noise(config.label_noise, seed)
        first = seed == config.seeds[0]
        learner = self.first_learner if first else self._build_learner(seed)[0]
        confidence = self.label_confidence(data, seed)
        if len(data.reference) == 0:
            return _Seed(seed, data, learner, None, 0.0, *confidence)
        ledger = Ledger(self.device)
        reference = copy.deepcopy(learner).to(self.device)
        batch_size = min(config.batch_size, len(data.reference))
        sampler = SelectedBatches(
            len(data.reference),
            selector=Uniform(),
            batch_size=batch_size,
            filter_ratio=0.0,
            seed=derive_seed(seed, "reference"),
        )
        batches = LoadedBatches(self.training_view(data.reference, seed), sampler, config.workers)
        settings = self.settings(seed)
        steps = settings.epochs * (len(data.train) // self.n_candidates)
        epochs = config.reference_epochs or -(-steps // len(sampler))
        settings = dataclasses.replace(settings, epochs=epochs)
        total = epochs * len(sampler) * batch_size + len(data.train)
        self.reporter.begin(f"reference model, seed {seed}", total)

        def on_step(examples: int, step: int) -> None:
            self.reporter.advance(examples)

        for _ in train(
            reference,
            batches,
            settings,
            device=self.device,
            ledger=ledger,
            on_step=on_step,
        ):
            pass
        outputs = []
        view = self.evaluation_view(data.train)
        with scoring(reference):
            for batch in evaluation_batches(view, self.device, config.workers):
                outputs.append(reference(batch.images.to(self.device)).float().cpu())
                self.reporter.advance(len(batch.images))
        return _Seed(seed, data, learner, torch.cat(outputs).clone(), ledger.total(), *confidence)

    def batches(
        self, arm: str, shared: _Seed, learner: nn.Module, features: Any, ledger: Ledger
    ) -> EpochBatches:
        """What gets a gradient in an arm. Every arm sees the same candidates in the same order."""
        config = self.config
        view = self.training_view(shared.data.train, shared.seed)
        selector = self.selectors.get(arm, Uniform())
        before_loading = selector.chooses_before_loading()
        sampler = SelectedBatches(
            len(view) if features is None or not before_loading else features,
            labels=shared.data.train.labels,
            label_confidence=shared.label_confidence,
            selector=selector if before_loading else Uniform(),
            batch_size=config.batch_size if before_loading else self.n_candidates,
            filter_ratio=config.filter_ratio if before_loading and arm != "standard" else 0.0,
            seed=shared.seed,
            phase=ledger.phase,
        )
        loaded = LoadedBatches(view, sampler, config.workers)
        if before_loading:
            return loaded
        return LearnerSelected(
            loaded,
            selector=selector,
            batch_size=config.batch_size,
            learner=learner,
            reference_outputs=shared.reference_outputs,
            seed=shared.seed,
            device=self.device,
            phase=ledger.phase,
        )

    def arm(
        self, arm: str, shared: _Seed, features: Any, write_row: Callable[[dict[str, Any]], None]
    ) -> tuple[nn.Module, float]:
        """Trains one arm with one seed; gives the learner and the seconds in all."""
        config, data = self.config, shared.data
        learner = copy.deepcopy(shared.learner).to(self.device)
        ledger = Ledger(self.device)
        batches = self.batches(arm, shared, learner, features, ledger)
        random = np.random.Generator(np.random.PCG64(derive_seed(config.split_seed, "measure")))
        count = min(TRAIN_MEASURE_LIMIT, len(data.train))
        sample = data.train.part(stratified_part(data.train.true_labels, count, random))
        splits = {"train": sample, "validation": data.validation, "test": data.test}
        views = {name: self.evaluation_view(examples) for name, examples in splits.items()}

        def measure() -> dict[str, Measure]:
            return {
                name: evaluate(
                    learner, evaluation_batches(view, self.device, config.workers), self.device
                )
                for name, view in views.items()
            }

        scored = batches.examples_scored if isinstance(batches, LearnerSelected) else 0
        steps = backward = 0
        per_step = self.n_candidates if isinstance(batches, LearnerSelected) else config.batch_size
        self.reporter.begin(f"{arm}, seed {shared.seed}", config.epochs * len(batches) * per_step)

        def on_step(examples: int, step: int) -> None:
            self.reporter.advance(per_step)

        for result in train(
            learner,
            batches,
            self.settings(shared.seed),
            device=self.device,
            ledger=ledger,
            measure=measure,
            on_step=on_step,
        ):
            steps += result.steps
            backward += len(result.indices)
            scored = batches.examples_scored if isinstance(batches, LearnerSelected) else 0
            kept = result.indices.numpy()
            wrong = data.train.labels[kept] != data.train.true_labels[kept]
            row: dict[str, Any] = {
                "arm": arm,
                "seed": shared.seed,
                "epoch": result.epoch,
                "steps": steps,
                "examples_forward": backward + scored,
                "examples_backward": backward,
            }
            for split, value in result.measures.items():
                row |= {f"{split}_accuracy": value.accuracy, f"{split}_loss": value.loss}
            row["wrong_label_share_kept"] = float(wrong.mean())
            row["seconds"] = {name: round(value, 4) for name, value in ledger.take().items()}
            write_row(row)
            self.reporter.epoch(row, config.epochs)
        return learner, ledger.total()


def _device(name: str) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda is not allowed: torch sees no GPU here; give cpu or auto")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def _free_folder(config: Config) -> Path:
    slug = re.sub(r"[^a-z0-9]+", "-", (config.preset or config.dataset).lower()).strip("-")[-40:]
    now = datetime.datetime.now(datetime.UTC).strftime("%Y%m%d-%H%M%S")
    path = (config.out or Path("runs") / f"{slug}-{now}").expanduser()
    if path.exists() and not path.is_dir():
        raise InputError(f"--out {path} is a file; give a folder")
    if path.exists() and any(path.iterdir()):
        what = "another run" if (path / "config.json").exists() else "other files"
        raise InputError(f"--out {path} holds {what}; give a new or an empty folder")
    return path


def compare(config: Config, reporter: Reporter) -> Outcome:
    """Trains the arms side by side, seed by seed, and writes the run folder.

    Every arm sees the same splits, candidates, augmentation and initial weights for a
    seed; the batch that gets a gradient has the same size in every arm. Rows go to
    ``epochs.jsonl`` as they come, so that an interrupted run keeps what it has.

    Raises:
        InputError: Settings that cannot work; no run folder is made.
        SalnError: What stops the whole run, such as a broken image. An arm whose loss
            is not finite is stopped alone: the others go on.
    """
    config.check()
    path = _free_folder(config)
    with _threads(config.threads):
        return _compare(config, reporter, path)


@contextlib.contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Bounds torch's threads and those of NumPy's and SciPy's linear algebra."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        with threadpoolctl.threadpool_limits(count, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(before)


def _compare(config: Config, reporter: Reporter, path: Path) -> Outcome:
    comparison = _Comparison(config, reporter)
    data, device = comparison.data, comparison.device
    features, feature_seconds = comparison.features()
    try:
        (path / "checkpoints").mkdir(parents=True)
    except OSError as error:
        raise InputError(f"--out {path} cannot be made ({error}); give another folder") from error
    write_text(path / "config.json", json.dumps(config.to_json(), indent=2) + "\n")
    write_text(path / "environment.json", json.dumps(environment(device), indent=2) + "\n")
    parts = {name: len(getattr(data, name)) for name in ("train", "reference", "validation")}
    counts = {**parts, "test": len(data.test)}
    reporter.note(
        f"{config.dataset}: {sum(parts.values()):,} training images ("
        + ", ".join(f"{count:,} {name}" for name, count in parts.items() if count)
        + f"), {len(data.test):,} test images, {len(data.class_names)} classes"
    )

    comparison.warm_up()
    rows: list[dict[str, Any]] = []
    costs: dict[tuple[str, int], dict[str, float]] = {}
    failures: dict[tuple[str, int], str] = {}
    # Unbuffered and in one piece: a row is on disk or not, whenever the run ends.
    with (path / "epochs.jsonl").open("ab", buffering=0) as stream:

        def write_row(row: dict[str, Any]) -> None:
            stream.write((json.dumps(row) + "\n").encode())
            rows.append(row)

        for seed in config.seeds:
            shared = comparison.seed(seed)
            for arm in config.methods:
                requires = comparison.selectors[arm].requires if arm != "standard" else ()
                once = {
                    "features": feature_seconds + shared.confidence_seconds
                    if "label_confidence" in requires
                    else feature_seconds
                    if "features" in requires
                    else 0.0,
                    "reference": shared.reference_seconds
                    if any(name.startswith("reference_") for name in requires)
                    else 0.0,
                }
                try:
                    learner, seconds = comparison.arm(arm, shared, features, write_row)
                except TrainingError as error:
                    failures[arm, seed] = f"{arm}, seed {seed}: {error}"
                    reporter.note(f"stopped {failures[arm, seed]}")
                    continue
                costs[arm, seed] = {**once, "total": seconds + sum(once.values())}
                state = {name: value.cpu() for name, value in learner.state_dict().items()}
                checkpoint = path / "checkpoints" / f"{arm}-seed{seed}.pt"
                write_with(checkpoint, functools.partial(torch.save, state))
    about = {
        "dataset": config.dataset,
        "classes": len(data.class_names),
        "examples": counts,
        "methods": list(config.methods),
        "learner": config.learner,
        "backbone": config.backbone,
        "image_size": comparison.image_size,
        "epochs": config.epochs,
        "batch_size": config.batch_size,
        "candidates": comparison.n_candidates,
        "filter_ratio": config.filter_ratio,
        "label_noise": config.label_noise,
        "seeds": list(config.seeds),
    }
    summary = summarise(about, rows, costs, failures)
    write_text(path / "summary.json", json.dumps(summary, indent=2) + "\n")
    return Outcome(path, summary, tuple(failures.values()))
