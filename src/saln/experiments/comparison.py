"""The parts of a comparison that every arm is made of, from one place."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from saln._optimizers import SGD
from saln.data.datasets import DataSet, Examples
from saln.data.torch_datasets import EvaluationView, TrainingView, inference_batch_size
from saln.data.transforms import EvaluationTransform, Normalization
from saln.errors import InputError, TrainingError
from saln.experiments.arm import Arm
from saln.experiments.config import Config
from saln.experiments.evaluation import Measuring
from saln.experiments.label_confidence import LabelConfidence, judge_for_arms, teach_for_arms
from saln.experiments.reference_model import Reference, train_reference
from saln.experiments.reporter import Reporter
from saln.experiments.shared_inputs import SharedInputs, load_data
from saln.experiments.trials import Point
from saln.labels.teacher import FeatureTeacher
from saln.loading.epoch_batches import CandidateBatches, EpochBatches, LoadedBatches, ScoredBatches
from saln.loading.learner_selected import LearnerSelected
from saln.loading.network_outputs import scoring
from saln.loading.selected_batches import SelectedBatches
from saln.messages import parameter
from saln.randomness import seeded_globally
from saln.selection.coherence import Judge
from saln.training.cost_ledger import Ledger
from saln.training.learner_networks import (
    FrozenBody,
    build_head,
    build_learner,
    check_compiler,
    compile_learner,
)
from saln.training.loop import TrainSettings, cast_to
from saln.training.processes import Processes

T = TypeVar("T")


@dataclass(frozen=True)
class SharedBySeed:
    """What all arms of one seed share.

    ``data`` has the seed's label noise; ``learner`` is a network with its initial weights, or the
    head on ``body``; ``without_reference`` says why the arms that need a reference have none.
    ``confidence`` says how likely the labels are right, by each judge that an arm asks;
    ``teacher`` what the features say of the training examples, where an arm needs it.
    """

    seed: int
    data: DataSet
    inputs: SharedInputs
    learner: nn.Module
    body: FrozenBody | None
    reference: Reference | None
    confidence: Mapping[Judge, LabelConfidence]
    without_reference: str | None = None
    teacher: FeatureTeacher | None = None

    def confidence_of(self, arm: Arm) -> LabelConfidence | None:
        """How likely the labels are right by the arm's judge; None where it asks none."""
        return None if arm.judge is None else self.confidence.get(arm.judge)

    def judging_seconds(self, arm: Arm) -> float:
        """What judging, teaching and neighbors took, as far as the arm uses them by itself."""
        confidence = self.confidence_of(arm)
        seconds = 0.0 if confidence is None else confidence.seconds
        if "neighbors" in arm.requires and self.inputs.neighbors is not None:
            seconds += self.inputs.neighbors.seconds
        if self.teacher is None or not arm.needs_teacher:
            return seconds
        # Its beliefs are those of the teacher.
        judged_by_it = confidence is not None and confidence.judge == "labels"
        return seconds if judged_by_it else seconds + self.teacher.seconds

    def whole(self, learner: nn.Module) -> dict[str, Tensor]:
        """The state dict of the whole network with what was trained."""
        network = learner if self.body is None else self.body.with_head(learner)
        state: dict[str, Tensor] = network.state_dict()
        return state


class Comparison:
    """Makes what the arms are trained with; a subclass may, for one, read its images elsewhere."""

    def __init__(
        self, config: Config, reporter: Reporter, device: torch.device, processes: Processes
    ) -> None:
        self.config = config
        self.reporter = reporter
        self.device = device
        self.processes = processes
        self.given = Point(config.learning_rate, config.weight_decay)
        self.chosen: dict[str, Point] = {}  # by the labels of the arms that are tuned
        self.data = load_data(config)
        self.image_size = config.image_size or self.data.default_image_size
        self.filter_schedule = config.filter_schedule()
        if config.compile:
            if processes.world_size > 1:
                raise InputError(
                    f"{parameter('compile')} works with one process, and there are "
                    f"{processes.world_size}; leave it out"
                )
            check_compiler(device)
        # Fails here, before the run folder is made, when weights or size do not fit.
        self.first_learner, self.normalization, self.first_body = self._build_learner(
            config.seeds[0]
        )
        # One for all arms and seeds, since images that fit are kept from the first evaluation on.
        self.measuring = Measuring(
            *(self.evaluation_view, config.split_seed, device, config.workers, processes),
            autocast=config.autocast,
        )

    def _build_learner(self, seed: int) -> tuple[nn.Module, Normalization, FrozenBody | None]:
        """What is trained, the normalization of images, and what is below where it is frozen."""
        config = self.config
        options: dict[str, Any] = {
            "image_size": self.image_size,
            "pretrained": config.pretrained,
            "weights": config.weights,
            "seed": seed,
        }
        classes = len(self.data.class_names)
        if not config.head_only:
            learner, normalization = build_learner(config.learner, classes, **options)
            if config.channels_last:  # images follow the weights of the first convolution
                learner = learner.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            return learner, normalization, None
        head, body = build_head(config.learner, classes, **options)
        return head, body.network.normalization, body.to(self.device)

    def fresh(self, learner: nn.Module) -> nn.Module:
        """A copy of a learner on the device, compiled where that is asked for."""
        return self.compiled(copy.deepcopy(learner).to(self.device))

    def compiled(self, learner: nn.Module) -> nn.Module:
        """The same network, compiled in place where that is asked for."""
        return compile_learner(learner) if self.config.compile else learner

    def same(self, value: T) -> T:
        """What the first process has, in all of them."""
        return self.processes.same(value, self.device)

    def warm_up(self) -> None:
        """One pass of every batch shape, so that the first arm does not pay for the kernels."""
        # A copy: these steps must not move the weights that the arms begin with.
        learner, started = self.fresh(self.first_learner), time.perf_counter()
        body, size = self.first_body, self.image_size
        labels = torch.zeros(self.config.batch_size, dtype=torch.int64, device=self.device)
        images = torch.zeros(self.config.batch_size, 3, size, size, device=self.device)
        if body is not None:
            images = body(images)
        with seeded_globally("warm up"):
            learner.train()
            with cast_to(self.device, self.config.autocast):
                outputs = learner(images)
            torch.nn.functional.cross_entropy(outputs.float(), labels).backward()
            SGD(learner.parameters(), lr=0.1).step()
            with scoring(learner), cast_to(self.device, self.config.autocast):
                part = images[: inference_batch_size(self.device)]
                learner(part)
                # Code for any number of images is made when a second number comes.
                if self.config.compile and len(part) > 1:
                    learner(part[:-1])
        if self.config.compile:
            spent = time.perf_counter() - started
            self.reporter.note(f"compiling took {spent:.1f} s, which is in no arm's seconds")

    def settings(self, seed: int, arm: Arm | None = None) -> TrainSettings:
        """How an arm trains with a seed; without one, the reference model."""
        config = self.config
        point = self.given if arm is None else self.chosen.get(arm.label, self.given)
        return TrainSettings(
            epochs=config.epochs,
            **point._asdict(),
            nesterov=config.nesterov,
            autocast=config.autocast,
            schedule=config.schedule,
            seed=seed,
            evaluate_every=config.evaluate_every,
        )

    def training_view(self, examples: Examples, seed: int) -> TrainingView:
        """Examples as the learner trains on them."""
        augmentation = self.data.augmentation(self.image_size, self.normalization)
        return TrainingView(examples, augmentation, seed)

    def evaluation_view(self, examples: Examples) -> EvaluationView:
        """Examples as they are evaluated."""
        return EvaluationView(examples, EvaluationTransform(self.image_size, self.normalization))

    def seed(
        self,
        seed: int,
        inputs: SharedInputs,
        reference: Reference | None = None,
        arms: Sequence[Arm] | None = None,
    ) -> SharedBySeed:
        """Labels, initial weights and, where one of ``arms`` needs it, the trained reference model.

        A reference model that diverges stops the arms that need it and no others: the reporter
        has a note of it, and training such an arm raises it. ``reference`` is one that was trained
        before; ``arms`` are those that are still to be trained, all when None.
        """
        config = self.config
        data = self.data.with_label_noise(config.label_noise, seed)
        learner, body = self.first_learner, self.first_body
        if seed != config.seeds[0]:
            learner, _, body = self._build_learner(seed)
        first_body = self.first_body
        if body and first_body and body.network.identity() == first_body.network.identity():
            body = first_body  # what is kept of its outputs serves every seed
        why = None
        if reference is None and any(
            arm.needs_reference for arm in (config.arms if arms is None else arms)
        ):
            try:
                reference = train_reference(
                    self.fresh(learner),
                    self.training_view(data.reference, seed),
                    self.evaluation_view(data.train),
                    self.settings(seed),
                    config=config,
                    reporter=self.reporter,
                    through=None if body is None else lambda images: body(images.to(self.device)),
                )
            except TrainingError as error:
                why = f"its reference model diverged: {error}"
                self.reporter.note(f"reference model, seed {seed}: {error}")
            # Every process trained it; the first one's outputs hold, to the last digit.
            reference, why = self.same((reference, why))
        # Of the labels with their noise: what an arm can know, not what is true.
        teacher = teach_for_arms(config.arms, inputs, data, seed, self.reporter)
        confidence = judge_for_arms(config.arms, inputs, data, seed, self.reporter, teacher)
        return SharedBySeed(seed, data, inputs, learner, body, reference, confidence, why, teacher)

    def batches(
        self, arm: Arm, shared: SharedBySeed, learner: nn.Module, ledger: Ledger
    ) -> EpochBatches:
        """What gets a gradient in an arm. Every arm sees the same candidates in the same order."""
        view = self.training_view(shared.data.train, shared.seed)
        # A fresh one each time: some remember, and arms and seeds share nothing.
        selector = arm.selector(epochs=self.config.epochs)
        before_loading = selector.chooses_before_loading()
        body, use = shared.body, "train" if before_loading else "score"

        def through(images: Tensor) -> Tensor:
            # The frozen layers serve the scores where there are any, else the training step.
            with ledger.phase(use):
                return images if body is None else body(images.to(self.device))

        options: dict[str, Any] = {
            "selector": selector,
            "batch_size": self.config.batch_size,
            "seed": shared.seed,
            "rank": self.processes.rank,
            "world_size": self.processes.world_size,
            "phase": ledger.phase,
        }
        features, workers = shared.inputs.features, self.config.workers
        confidence = shared.confidence_of(arm)
        if before_loading:
            sampler = SelectedBatches(
                len(view) if features is None else features,
                labels=shared.data.train.labels,
                label_confidence=None if confidence is None else confidence.values,
                teacher=shared.teacher if arm.needs_teacher else None,
                neighbors=shared.inputs.neighbors,
                filter_ratio=0.0 if arm.keeps_all else self.filter_schedule,
                ahead=0,  # every second of choosing counts, none is hidden behind training
                **options,
            )
            return LoadedBatches(view, sampler, workers, through)
        # The same order as above, but whole: the learner has to see what it chooses among.
        candidates = CandidateBatches(
            len(view), self.config.batch_size, self.filter_schedule, shared.seed
        )
        selected = LearnerSelected(
            LoadedBatches(view, candidates, workers, through),
            learner=learner,
            inputs="images",
            labels="labels",
            indices="indices",
            reference_outputs=None if shared.reference is None else shared.reference.outputs,
            features=features,
            teacher=shared.teacher if arm.needs_teacher else None,
            device=self.device,
            autocast=self.config.autocast,
            **options,
        )
        return ScoredBatches(selected)
