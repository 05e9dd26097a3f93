"""What a run folder holds, as values: a row an epoch, a cost and a summary an arm.

The fields are those of ``epochs.jsonl``, ``progress.json`` and ``summary.json``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

from saln.errors import DataError
from saln.experiments.json_record import FieldError, JsonRecord
from saln.experiments.statistics import Difference, EqualDifference
from saln.experiments.trials import Tuned
from saln.training.cost_ledger import PHASES

SPLITS = ("train", "validation", "test")
METRICS = tuple(f"{split}_{what}" for what in ("accuracy", "loss") for split in SPLITS)
# What an epoch costs its user; evaluation is the experimenter's wish.
EPOCH_PHASES = tuple(phase for phase in PHASES if phase != "evaluate")

# An arm with a seed.
Key = tuple[str, int]


@dataclass(frozen=True)
class PhaseSeconds(JsonRecord):
    """Wall-clock seconds of an epoch by phase."""

    load: float
    score: float
    select: float
    train: float
    evaluate: float

    @property
    def spent(self) -> float:
        """What the epoch cost its user: all but evaluation."""
        return self.load + self.score + self.select + self.train


@dataclass(frozen=True, kw_only=True)
class EpochRow(JsonRecord):
    """A row of ``epochs.jsonl``: what an arm with a seed had reached after an epoch, from 1.

    Steps and examples are counted from the beginning: ``examples_forward`` went through the
    learner to train it or to be scored, ``examples_backward`` got a gradient. Seconds, and the
    share of wrong labels among the kept, are those of the epoch. Accuracies are fractions.
    """

    arm: str
    seed: int
    epoch: int
    steps: int
    examples_forward: int
    examples_backward: int
    # None where the epoch was not evaluated.
    train_accuracy: float | None = None
    train_loss: float | None = None
    validation_accuracy: float | None = None
    validation_loss: float | None = None
    test_accuracy: float | None = None
    test_loss: float | None = None
    # None where nobody knows which labels are wrong.
    wrong_label_share_kept: float | None = None
    seconds: PhaseSeconds

    @property
    def key(self) -> Key:
        """The arm and the seed."""
        return self.arm, self.seed

    @property
    def evaluated(self) -> bool:
        """Whether accuracies and losses were measured after this epoch."""
        return self.test_accuracy is not None

    def names(self) -> tuple[str, ...]:
        """As they have always been written: by split, or by metric where none was measured."""
        names = super().names()
        if self.evaluated:
            return names
        # The order is part of the format: checksums are taken of the bytes.
        first = names.index(METRICS[0])
        return (*names[:first], *METRICS, *names[first + len(METRICS) :])


def row_of_line(line: bytes, source: object, number: int, cure: str) -> EpochRow:
    """Reads a line of ``epochs.jsonl``; DataError names file, line, field and the ``cure``."""
    where = f"{source} line {number}"
    try:
        row = EpochRow.from_json(json.loads(line))
    except FieldError as error:  # a ValueError, too: before those of the JSON
        raise DataError(f"{where}: {error}, or {cure}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} is no JSON ({error}); {cure}") from error
    # An epoch is evaluated on every split or on none.
    measured = [name for name in METRICS if getattr(row, name) is not None]
    if measured and len(measured) < len(METRICS):
        lost = next(name for name in METRICS if name not in measured)
        raise DataError(f"{where}: {lost} is missing beside {measured[0]}; give it, or {cure}")
    return row


@dataclass(frozen=True, kw_only=True)
class ArmCost(JsonRecord):
    """What an arm cost with a seed, beside its epochs.

    Seconds for features, the reference model and the states to go on from, and all of its
    seconds; the most memory held at once, None where it is not known; and how many examples
    went through the backbone and the reference model.
    """

    features: float
    reference: float
    save: float
    total: float
    rss_bytes: int | None
    cuda_bytes: int | None
    features_examples_forward: int
    reference_examples_forward: int
    reference_examples_backward: int


@dataclass(frozen=True)
class Metric(JsonRecord):
    """A value after the last epoch: its mean over seeds, the 95% interval, and each seed's."""

    mean: float
    ci95: tuple[float, float] | None
    per_seed: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class ArmSeconds(JsonRecord):
    """Seconds of an arm's whole run, means over seeds; ``per_epoch`` leaves out one-off work.

    ``tune`` is what the arm's trials took, all together; it is no part of ``total``.
    """

    quiet: ClassVar[frozenset[str]] = frozenset({"tune"})
    total: float
    per_epoch: float
    features: float
    reference: float
    save: float = 0.0  # not in runs of versions that could not go on
    load: float
    score: float
    select: float
    train: float
    evaluate: float
    tune: float = 0.0


@dataclass(frozen=True)
class OneOffExamples(JsonRecord):
    """Examples that were put through networks before the first epoch."""

    features_forward: int
    reference_forward: int
    reference_backward: int


@dataclass(frozen=True)
class PeakBytes(JsonRecord):
    """The most memory held at once: of the process, and on the GPU; None where not known."""

    rss: int | None = None
    cuda: int | None = None


@dataclass(frozen=True, kw_only=True)
class BreakEven(JsonRecord):
    """The share of a baseline's steps that an arm may make to cost no more; whether it paid.

    ``needed_share_per_seed`` is what it needed to be as accurate; None for never.
    """

    steps_share: float
    ci95: tuple[float, float] | None
    per_seed: tuple[float, ...]
    fewer_steps: float
    needed_share_per_seed: tuple[float | None, ...]
    verdict: str


@dataclass(frozen=True, kw_only=True)
class SecondsToStandard(JsonRecord):
    """How long an arm took to the test accuracy that training on everything ends at.

    ``share_reached`` of it was reached at best. Seconds are None for a seed that never reached
    it, and so are then their mean, its interval and the seconds saved.
    """

    target: float
    share_reached: float
    mean: float | None
    ci95: tuple[float, float] | None
    per_seed: tuple[float | None, ...]
    seconds_saved: Difference | None


@dataclass(frozen=True, kw_only=True)
class ArmSummary(JsonRecord):
    """What ``summary.json`` says of an arm that was not stopped.

    ``at_equal_steps``, ``at_equal_seconds`` and ``break_even`` are by the baseline's name;
    ``tuned`` is None for an arm that was trained with what was given.
    """

    quiet: ClassVar[frozenset[str]] = frozenset({"tuned"})
    train_accuracy: Metric
    validation_accuracy: Metric
    test_accuracy: Metric
    train_loss: Metric
    validation_loss: Metric
    test_loss: Metric
    wrong_label_share_kept: float | None = None
    seconds: ArmSeconds
    steps: int
    examples_forward: int
    examples_backward: int
    # Runs of earlier versions lack what follows, but for the difference to uniform.
    one_off_examples: OneOffExamples | None = None
    peak_bytes: PeakBytes = PeakBytes()
    at_equal_steps: Mapping[str, EqualDifference | None] = field(default_factory=dict)
    at_equal_seconds: Mapping[str, EqualDifference | None] = field(default_factory=dict)
    break_even: Mapping[str, BreakEven | None] = field(default_factory=dict)
    versus_uniform: Difference | None = None
    versus_standard: Difference | None = None
    seconds_to_standard: SecondsToStandard | None = None
    tuned: Tuned | None = None

    def metric(self, name: str) -> Metric:
        """One of :data:`METRICS`."""
        metric: Metric = getattr(self, name)
        return metric

    def versus(self, baseline: str) -> Difference | None:
        """The difference of test accuracy after as many epochs; None where nothing is known."""
        difference: Difference | None = getattr(self, f"versus_{baseline}")
        return difference


@dataclass(frozen=True)
class StoppedArm(JsonRecord):
    """An arm that was stopped with any seed, and why."""

    error: str


@dataclass(frozen=True, kw_only=True)
class RunFacts(JsonRecord):
    """What was run: the settings that a summary repeats, and the size of the data."""

    quiet: ClassVar[frozenset[str]] = frozenset({"targets"})
    dataset: str
    # With a default: what earlier versions did not write.
    classes: int | None = None
    class_names: tuple[str, ...] = ()
    examples: Mapping[str, int]
    methods: tuple[str, ...]
    learner: str
    head_only: bool = False
    backbone: str
    image_size: int | None = None
    epochs: int
    batch_size: int
    candidates: int
    filter_ratio: float
    filter_schedule: str | None = None
    label_noise: float
    seeds: tuple[int, ...]
    # Of arms that name none, as in ``beliefs (0.7)``; left out where they are the given labels.
    targets: str | None = None

    @property
    def knows_truth(self) -> bool:
        """Whether it is known which labels are wrong: only of those replaced on purpose."""
        return self.label_noise > 0


@dataclass(frozen=True, kw_only=True)
class Summary(RunFacts):
    """The content of ``summary.json``: what was run, and each arm's results in their order."""

    arms: Mapping[str, ArmSummary | StoppedArm]

    @classmethod
    def of(cls, facts: RunFacts, arms: Mapping[str, ArmSummary | StoppedArm]) -> Summary:
        """The summary of a run."""
        # Unknown facts of another version stay, in their places.
        return replace(cls.from_json({**facts.to_json(), "arms": {}}), arms=arms)

    @property
    def finished(self) -> dict[str, ArmSummary]:
        """The arms that were not stopped."""
        return {arm: each for arm, each in self.arms.items() if isinstance(each, ArmSummary)}

    @property
    def stopped(self) -> dict[str, str]:
        """The arms that were stopped -> why."""
        return {arm: each.error for arm, each in self.arms.items() if isinstance(each, StoppedArm)}


def rows_of_arm(rows: Sequence[EpochRow], arm: str) -> dict[int, list[EpochRow]]:
    """Seed -> the rows of an arm, in the order of their first appearance."""
    by_seed: dict[int, list[EpochRow]] = {}
    for row in rows:
        if row.arm == arm:
            by_seed.setdefault(row.seed, []).append(row)
    return by_seed
