"""The arms of a comparison: what they share and how each one trains."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from saln.data.datasets import DataSet, Examples, load_dataset
from saln.data.headers import check_headers
from saln.data.torch_datasets import EvaluationView, TrainingView, inference_batch_size
from saln.data.transforms import EvaluationTransform, Normalization
from saln.errors import InputError, TrainingError
from saln.experiments.config import Config
from saln.experiments.evaluation import Measuring
from saln.experiments.kept_examples import ChoiceRecord
from saln.experiments.label_confidence import LabelConfidence, judge_labels
from saln.experiments.reference_model import Reference, train_reference
from saln.experiments.reporter import FeatureProgress, Reporter
from saln.experiments.rows import EpochRow, PhaseSeconds
from saln.features.backbones import build_backbone, feature_size
from saln.features.extraction import extract_features
from saln.features.neighbors import NeighborTable, neighbor_table
from saln.loading.epoch_batches import (
    CandidateBatches,
    EpochBatches,
    LoadedBatches,
    ScoredBatches,
)
from saln.loading.learner_selected import LearnerSelected
from saln.loading.network_outputs import scoring
from saln.loading.selected_batches import SelectedBatches
from saln.messages import parameter
from saln.randomness import seeded_globally
from saln.selection import SELECTORS, Uniform, candidates_needed
from saln.selection.coherence import NEIGHBORS
from saln.training.cost_ledger import Ledger
from saln.training.distributed_layers import synchronize
from saln.training.learner_networks import FrozenBody, build_head, build_learner
from saln.training.loop import Measure, TrainSettings, TrainState, train
from saln.training.processes import Processes

# The share of the training data that trains reference models, when any arm needs one.
REFERENCE_SHARE = 0.1


@dataclass(frozen=True)
class SharedBySeed:
    """What all arms of one seed share.

    ``learner`` is a head, and ``body`` what it is on, where the head alone is trained.
    ``without_reference`` says why there is no reference model for the arms that need it.
    """

    seed: int
    data: DataSet
    learner: nn.Module
    body: FrozenBody | None
    reference: Reference | None
    confidence: LabelConfidence | None
    without_reference: str | None = None

    @property
    def reference_outputs(self) -> Tensor | None:
        """The reference model's logits for every training example."""
        return None if self.reference is None else self.reference.outputs

    def whole(self, learner: nn.Module) -> dict[str, Tensor]:
        """The state dict of the whole network with what was trained."""
        network = learner if self.body is None else self.body.with_head(learner)
        state: dict[str, Tensor] = network.state_dict()
        return state


class Comparison:
    """The shared parts of a comparison; :func:`compare` drives it."""

    def __init__(
        self, config: Config, reporter: Reporter, device: torch.device, processes: Processes
    ) -> None:
        self.config = config
        self.reporter = reporter
        self.device = device
        self.processes = processes
        selectors = {name: SELECTORS[name]() for name in config.methods if name != "standard"}
        self.selectors = selectors
        self.data = load_dataset(
            config.dataset,
            config.data_root.expanduser(),
            limit=config.limit,
            reference_share=REFERENCE_SHARE if self._need_reference(config.methods) else 0.0,
            split_seed=config.split_seed,
            download=config.download,
        )
        check_headers(self.data)
        self.image_size = config.image_size or self.data.default_image_size
        k, f = config.batch_size, config.filter_schedule()
        n = f.candidates(k) if selectors else k
        if n > len(self.data.train):
            raise InputError(
                f"{parameter('batch_size', k)} at {parameter('filter_ratio')} {f} needs {n} "
                "candidates for a step, but "
                f"{config.dataset} has {len(self.data.train)} training images here; "
                "lower one of the two"
            )
        self.filter_schedule = f
        self.n_candidates = n
        self.neighbors: NeighborTable | None = None
        # Fails here, before the run folder is made, when weights or size do not fit.
        self.first_learner, self.normalization, self.first_body = self._build_learner(
            config.seeds[0]
        )
        self.measuring = Measuring(
            self.evaluation_view, config.split_seed, device, config.workers, processes
        )

    def _need_reference(self, arms: Sequence[str]) -> bool:
        requirements = (self.selectors[arm].requires for arm in arms if arm in self.selectors)
        return any(name.startswith("reference_") for names in requirements for name in names)

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
            return *build_learner(config.learner, classes, **options), None
        head, body = build_head(config.learner, classes, **options)
        return head, body.network.normalization, body.to(self.device)

    def warm_up(self) -> None:
        """One pass of every batch shape, so that the first arm does not pay for the kernels."""
        learner = copy.deepcopy(self.first_learner).to(self.device)
        body, size = self.first_body, self.image_size
        labels = torch.zeros(self.config.batch_size, dtype=torch.int64, device=self.device)
        images = torch.zeros(self.config.batch_size, 3, size, size, device=self.device)
        if body is not None:
            images = body(images)
        with seeded_globally("warm up"):
            learner.train()
            torch.nn.functional.cross_entropy(learner(images), labels).backward()
            torch.optim.SGD(learner.parameters(), lr=0.1).step()
            with scoring(learner):
                learner(images[: inference_batch_size(self.device)])

    def features(self) -> tuple[np.ndarray[Any, np.dtype[np.float16]] | None, float]:
        """The training examples' features and the seconds that they took when made.

        Their neighbors too, where an arm asks how likely the labels are right.
        """
        required = {name for selector in self.selectors.values() for name in selector.requires}
        if not required & {"features", "label_confidence"}:
            return None, 0.0
        config, data = self.config, self.data
        size = config.feature_size or feature_size(config.backbone, self.image_size)
        backbone = build_backbone(config.backbone, image_size=size, weights=config.backbone_weights)
        # The reference part too, so that the store serves comparisons with and without it.
        pool = data.train_and_reference
        computed = FeatureProgress(self.reporter, f"features: {config.backbone} at {size} px")
        store = extract_features(
            pool,
            backbone,
            name=config.dataset,
            cache_dir=config.cache_dir.expanduser(),
            device=self.device,
            workers=config.workers,
            progress=computed,
        )
        if computed.rows == 0:
            self.reporter.note(f"features: reused {store.path}")
        rows = np.searchsorted(pool.rows, data.train.rows)
        if "label_confidence" in required:
            part = rows if len(rows) < len(pool) else None
            self.neighbors = neighbor_table(store, NEIGHBORS, rows=part)
        return np.asarray(store.features[rows]), store.seconds

    def settings(self, seed: int) -> TrainSettings:
        """How every arm of a seed trains."""
        config = self.config
        return TrainSettings(
            epochs=config.epochs,
            learning_rate=config.learning_rate,
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
        self, seed: int, reference: Reference | None = None, arms: Sequence[str] | None = None
    ) -> SharedBySeed:
        """Labels, initial weights and, where an arm needs it, the trained reference model.

        A reference model that diverges stops the arms that need it and no others: it is told to
        the reporter, and :meth:`arm` raises it.

        Args:
            seed: Which.
            reference: What was trained before, in the place of training it again.
            arms: Those that are still to be trained; all when None.
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
        if reference is None and self._need_reference(config.methods if arms is None else arms):
            try:
                reference = self._train_reference(seed, data, learner, body)
            except TrainingError as error:
                why = f"its reference model diverged: {error}"
                self.reporter.note(f"reference model, seed {seed}: {error}")
            # Every process trained it; the first one's outputs hold, to the last digit.
            reference, why = self.processes.same((reference, why), self.device)
        confidence = None
        if self.neighbors is not None:
            confidence = judge_labels(self.neighbors, data, seed, self.reporter)
        return SharedBySeed(seed, data, learner, body, reference, confidence, why)

    def _train_reference(
        self, seed: int, data: DataSet, learner: nn.Module, body: FrozenBody | None
    ) -> Reference:
        config = self.config
        return train_reference(
            copy.deepcopy(learner).to(self.device),
            self.training_view(data.reference, seed),
            self.evaluation_view(data.train),
            self.settings(seed),
            epochs=config.reference_epochs,
            steps=self.filter_schedule.steps(len(data.train), config.batch_size),
            batch_size=min(config.batch_size, len(data.reference)),
            device=self.device,
            workers=config.workers,
            reporter=self.reporter,
            through=None if body is None else lambda images: body(images.to(self.device)),
        )

    def batches(
        self, arm: str, shared: SharedBySeed, learner: nn.Module, features: Any, ledger: Ledger
    ) -> EpochBatches:
        """What gets a gradient in an arm. Every arm sees the same candidates in the same order."""
        config = self.config
        view = self.training_view(shared.data.train, shared.seed)
        # A fresh one each time: some remember, and arms and seeds share nothing.
        selector = SELECTORS.get(arm, Uniform).for_run(epochs=config.epochs)
        before_loading = selector.chooses_before_loading()
        body, use = shared.body, "train" if before_loading else "score"

        def through(images: Tensor) -> Tensor:
            with ledger.phase(use):
                return images if body is None else body(images.to(self.device))

        if before_loading:
            sampler = SelectedBatches(
                len(view) if features is None else features,
                labels=shared.data.train.labels,
                label_confidence=None if shared.confidence is None else shared.confidence.values,
                selector=selector,
                batch_size=config.batch_size,
                filter_ratio=0.0 if arm == "standard" else self.filter_schedule,
                seed=shared.seed,
                rank=self.processes.rank,
                world_size=self.processes.world_size,
                ahead=0,  # every second of choosing counts, none is hidden behind training
                phase=ledger.phase,
            )
            return LoadedBatches(view, sampler, config.workers, through)
        candidates = CandidateBatches(
            len(view), config.batch_size, self.filter_schedule, shared.seed
        )
        selected = LearnerSelected(
            LoadedBatches(view, candidates, config.workers, through),
            selector=selector,
            batch_size=config.batch_size,
            learner=learner,
            seed=shared.seed,
            inputs="images",
            labels="labels",
            indices="indices",
            reference_outputs=shared.reference_outputs,
            features=features,
            device=self.device,
            rank=self.processes.rank,
            world_size=self.processes.world_size,
            phase=ledger.phase,
        )
        return ScoredBatches(selected)

    def _plan(self, arm: str, batches: EpochBatches) -> tuple[list[int], list[int]]:
        """Steps of every epoch of an arm, and how many candidates each step has."""
        k, schedule = self.config.batch_size, self.filter_schedule
        steps, sizes = [], []
        for epoch in range(1, self.config.epochs + 1):
            batches.set_epoch(epoch)
            steps.append(len(batches))
            sizes.append(k if arm == "standard" else candidates_needed(k, schedule.ratio(epoch)))
        return steps, sizes

    def arm(
        self,
        arm: str,
        shared: SharedBySeed,
        features: Any,
        save_epoch: Callable[[EpochRow, dict[str, Any]], None],
        saved: dict[str, Any] | None = None,
    ) -> tuple[nn.Module, Ledger, ChoiceRecord]:
        """Trains one arm with one seed; gives the learner, what it cost and what it chose.

        ``save_epoch`` is given each epoch's row and the state to go on from; ``saved`` is
        such a state.

        Raises:
            TrainingError: A loss that is not finite, or the reference model that the arm needs
                diverged.
            DataError: A broken image.
        """
        config, data = self.config, shared.data
        if shared.without_reference is not None and self._need_reference([arm]):
            raise TrainingError(shared.without_reference)
        ledger = Ledger(self.device)
        with ledger.phase("load"):
            learner = copy.deepcopy(shared.learner).to(self.device)
            learner = synchronize(learner, self.processes)
            batches = self.batches(arm, shared, learner, features, ledger)
        with ledger.phase("evaluate"):
            splits = self.measuring.splits(data)

        def measure() -> dict[str, Measure]:
            return self.measuring.measure(learner, splits, shared.body)

        selector = _selector_of(batches)
        show = arm != "standard" and shared.seed == config.seeds[0]
        steps, sizes = self._plan(arm, batches)
        # Nothing is chosen where nothing is dropped.
        choices = [
            count if size > config.batch_size else 0
            for count, size in zip(steps, sizes, strict=True)
        ]
        record = ChoiceRecord(len(data.train), choices, show=show)
        selector.watch(record.choice)
        state, name = None, f"{arm}, seed {shared.seed}"
        if saved is not None:
            state = TrainState(**saved["training"])
            ledger.load_state_dict(saved["ledger"])
            record.load_state_dict(saved["choices"])
            if "selector" in saved:
                selector.load_state_dict(saved["selector"])
            name += f", from epoch {state.epoch + 1}"
        scored = 0
        # How much work a step is: what is loaded for it.
        scores = isinstance(batches, ScoredBatches)
        loaded = sizes if scores else [config.batch_size] * config.epochs
        epoch = state.epoch if state else 0
        if epoch < config.epochs:  # else it was ended between its last epoch and its checkpoint
            left = zip(steps[epoch:], loaded[epoch:], strict=True)
            self.reporter.begin(name, sum(count * size for count, size in left))

        def on_step(examples: int, step: int) -> None:
            self.reporter.advance(loaded[epoch])

        for result in train(
            learner,
            batches,
            self.settings(shared.seed),
            ledger=ledger,
            measure=measure,
            on_step=on_step,
            state=state,
            processes=self.processes,
        ):
            before = scored
            scored = batches.selected.examples_scored if isinstance(batches, ScoredBatches) else 0
            kept = result.indices.numpy()
            by_all = torch.tensor([scored - before], device=self.device)
            forward = len(kept) + int(self.processes.total(by_all))
            ledger.count(steps=result.steps, forward=forward, backward=len(kept))
            wrong = data.train.labels[kept] != data.train.true_labels[kept]
            # Known only of labels that were replaced here: as it came, a data set may hold some.
            known = config.label_noise > 0
            seconds: Any = {name: round(value, 6) for name, value in ledger.take().items()}
            row = EpochRow(
                arm=arm,
                seed=shared.seed,
                epoch=result.epoch,
                steps=ledger.counts.steps,
                examples_forward=ledger.counts.forward,
                examples_backward=ledger.counts.backward,
                **metrics_of(result.measures),
                wrong_label_share_kept=float(wrong.mean()) if known else None,
                seconds=PhaseSeconds(**seconds),
            )
            with ledger.phase("save"):
                record.end_epoch(result.epoch, kept)
                reached = {
                    "training": result.state._asdict(),
                    "ledger": ledger.state_dict(),
                    "choices": record.state_dict(),
                }
                if hasattr(selector, "state_dict"):
                    reached["selector"] = selector.state_dict()
                save_epoch(row, reached)
            self.reporter.epoch(row, config.epochs)
            epoch = result.epoch
        return learner, ledger, record


def metrics_of(measures: Mapping[str, Measure]) -> dict[str, Any]:
    """The metrics of a row; none where --evaluate-every leaves the epoch out."""
    return {
        f"{split}_{name}": value
        for split, measure in measures.items()
        for name, value in measure._asdict().items()
    }


def _selector_of(batches: EpochBatches) -> Any:
    """The selector at work in an arm."""
    if isinstance(batches, ScoredBatches):
        return batches.selected.selector
    if isinstance(batches, LoadedBatches) and isinstance(batches.batches, SelectedBatches):
        return batches.batches.selector
    return None
