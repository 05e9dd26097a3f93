"""What tuning tried: a row a trial in ``trials.jsonl``, and what was chosen of an arm's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from saln.experiments.json_record import JsonRecord


class Point(NamedTuple):
    """What is tuned."""

    learning_rate: float
    weight_decay: float

    def __str__(self) -> str:
        return f"learning rate {self.learning_rate:.3g}, weight decay {self.weight_decay:.3g}"


class Score(NamedTuple):
    """How good a point is on validation data; of two, the greater is the better."""

    accuracy: float
    gain: float  # minus the loss: it decides between equal accuracies


@dataclass(frozen=True, kw_only=True)
class Trial(JsonRecord):
    """A row of ``trials.jsonl``: an arm that was trained with a seed to try a point, from 1.

    Accuracy and loss are of the validation examples after the last epoch; None for a trial that
    was lost, of which ``error`` says why, and whose examples are those of its whole epochs.
    """

    arm: str
    trial: int
    seed: int
    learning_rate: float
    weight_decay: float
    validation_accuracy: float | None
    validation_loss: float | None
    seconds: float
    steps: int
    examples_forward: int
    examples_backward: int
    error: str | None = None

    @property
    def point(self) -> Point:
        """What was tried."""
        return Point(self.learning_rate, self.weight_decay)


@dataclass(frozen=True, kw_only=True)
class Tuned(JsonRecord):
    """What ``summary.json`` says of an arm that was tuned; costs are of all its trials together.

    ``on_edge``: no lower, or no higher, learning rate was tried than the one chosen. The accuracy
    is None where every trial was ``lost``, and the arm was trained with what was given.
    """

    learning_rate: float
    weight_decay: float
    validation_accuracy: float | None
    on_edge: bool
    trials: int
    lost: int
    seconds: float
    examples_forward: int
    examples_backward: int


class Tried(NamedTuple):
    """A point that was tried with every seed of tuning; the score is None where it was lost."""

    point: Point
    score: Score | None


def tried(trials: Iterable[Trial]) -> list[Tried]:
    """The points of an arm's trials in their order, with their means over seeds."""
    by_number: dict[int, list[Trial]] = {}
    for trial in trials:
        by_number.setdefault(trial.trial, []).append(trial)
    return [Tried(same[0].point, _mean_score(same)) for _, same in sorted(by_number.items())]


def _mean_score(trials: Sequence[Trial]) -> Score | None:
    accuracies = [t.validation_accuracy for t in trials if t.validation_accuracy is not None]
    losses = [t.validation_loss for t in trials if t.validation_loss is not None]
    # Lost with one seed is lost: the mean of the others would favor what diverges now and then.
    if not len(accuracies) == len(losses) == len(trials):
        return None
    return Score(sum(accuracies) / len(trials), -sum(losses) / len(trials))


def best_of(points: Iterable[Tried]) -> Tried | None:
    """The best point, of equal ones the first; None where all were lost."""
    whole = [each for each in points if each.score is not None]
    return max(whole, key=lambda each: each.score or (), default=None)


def tuned_arms(trials: Iterable[Trial]) -> Mapping[str, Tuned]:
    """Arm -> what was chosen of its trials, and what they cost."""
    by_arm: dict[str, list[Trial]] = {}
    for trial in trials:
        by_arm.setdefault(trial.arm, []).append(trial)
    return {arm: _tuned(its) for arm, its in by_arm.items()}


def _tuned(trials: Sequence[Trial]) -> Tuned:
    points = tried(trials)
    # The first trial is of what was given.
    best = best_of(points) or points[0]
    rates = [each.point.learning_rate for each in points]
    return Tuned(
        **best.point._asdict(),
        validation_accuracy=None if best.score is None else best.score.accuracy,
        # A rate that diverged was tried: the best next to it is not on the edge.
        on_edge=best.point.learning_rate in (min(rates), max(rates)),
        trials=len(points),
        lost=sum(each.score is None for each in points),
        seconds=sum(trial.seconds for trial in trials),
        examples_forward=sum(trial.examples_forward for trial in trials),
        examples_backward=sum(trial.examples_backward for trial in trials),
    )
