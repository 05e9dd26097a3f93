"""Changes of training that an arm may have beside its selector: ``uniform+gce(q=0.7)+ema``.

Each says what it does to the loss, or what is evaluated in the learner's place. Several are
combined by name; their order means nothing.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from saln.errors import InputError
from saln.messages import shown
from saln.selection.hyperparameters import (
    Bounds,
    check_hyperparameters,
    hyperparameters,
    make_selector,
    read_values,
)
from saln.selection.registry import split_selector
from saln.training.losses import GIVEN_LABELS, Objective

if TYPE_CHECKING:
    from saln.labels.teacher import FeatureTeacher

Share = Annotated[float, Bounds(low=0, high=1)]


class Change:
    """One change; a frozen dataclass whose fields are its hyperparameters."""

    name: ClassVar[str]
    summary: ClassVar[str]  # In a line for ``saln list``
    says_targets: ClassVar[bool] = False  # Whether it says what the loss compares outputs with

    def __post_init__(self) -> None:
        """Gives fields their types; InputError for one that is not allowed."""
        check_hyperparameters(self)

    @property
    def values(self) -> dict[str, Any]:
        """The hyperparameters that differ from their defaults."""
        found = {each.name: getattr(self, each.name) for each in hyperparameters(type(self))}
        usual = {each.name: each.default for each in hyperparameters(type(self))}
        return {name: value for name, value in found.items() if value != usual[name]}

    def applied(self, objective: Objective, teacher: FeatureTeacher | None) -> Objective:
        """The loss with this change; the teacher is there where :attr:`says_targets`."""
        return objective

    def averaged(self, learner: nn.Module) -> AveragedModel | None:
        """What is evaluated in the learner's place; None where that is the learner itself."""
        return None


@dataclass(frozen=True)
class GCE(Change):
    """Generalized cross-entropy, see :func:`~saln.training.losses.generalized_cross_entropy`."""

    q: Annotated[float, Bounds(above=0, high=1)] = 0.7

    name: ClassVar[str] = "gce"
    summary: ClassVar[str] = (
        "generalized cross-entropy (Zhang and Sabuncu 2018): wrong labels move it less; "
        "q near 0 is cross-entropy, 1 half the absolute error"
    )

    def applied(self, objective: Objective, teacher: FeatureTeacher | None) -> Objective:
        """With its ``q``."""
        return replace(objective, q=self.q)


@dataclass(frozen=True)
class Smoothing(Change):
    """Label smoothing, as ``label_smoothing`` of torch's cross-entropy."""

    share: Share = 0.1

    name: ClassVar[str] = "smoothing"
    summary: ClassVar[str] = (
        "label smoothing (Szegedy et al. 2016): a share of every target goes to all classes alike"
    )

    def applied(self, objective: Objective, teacher: FeatureTeacher | None) -> Objective:
        """With its share."""
        return replace(objective, smoothing=self.share)


@dataclass(frozen=True)
class EMA(Change):
    """The moving average of the weights over the steps is evaluated and saved."""

    decay: Annotated[float, Bounds(above=0, below=1)] = 0.99

    name: ClassVar[str] = "ema"
    summary: ClassVar[str] = (
        "what is evaluated and saved is the moving average of the weights: decay * average + "
        "(1 - decay) * weights after every step"
    )

    def averaged(self, learner: nn.Module) -> AveragedModel:
        """Statistics of BatchNorm are averaged as the weights are, which they belong to."""
        average = get_ema_multi_avg_fn(self.decay)
        return AveragedModel(learner, multi_avg_fn=average, use_buffers=True)


@dataclass(frozen=True)
class Targets(Change):
    """Soft targets; see :meth:`saln.labels.teacher.FeatureTeacher.targets`.

    Without any share 0.7 of the beliefs and 0.3 of the features: no given label is trusted.
    """

    beliefs: Share | None = None
    features: Share | None = None

    name: ClassVar[str] = "targets"
    summary: ClassVar[str] = (
        "soft targets: beliefs is the weight of saln.judge_labels' class probabilities, features "
        "that of the other examples' alone; the given label has the rest"
    )
    says_targets: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Refuses shares that leave less than nothing, or all, to the given labels."""
        super().__post_init__()
        if self.beliefs is None and self.features is None:
            object.__setattr__(self, "beliefs", 0.7)
            object.__setattr__(self, "features", 0.3)
        beliefs, features = self._shares()
        # 1e-9: 0.7 and 0.3 are 1, whatever their binary digits add up to.
        if not 0 < beliefs + features <= 1 + 1e-9:
            raise InputError(
                f"beliefs={beliefs:g} and features={features:g} are not allowed; give "
                "one or both, above 0 and together at most 1"
            )

    def _shares(self) -> tuple[float, float]:
        return self.beliefs or 0.0, self.features or 0.0

    def applied(self, objective: Objective, teacher: FeatureTeacher | None) -> Objective:
        """With the rows that the teacher mixes."""
        known = _known(teacher, self)
        beliefs, features = self._shares()

        def rows(labels: Tensor, indices: Tensor) -> Tensor:
            mixed: Tensor = known.targets(
                labels.cpu(), beliefs=beliefs, features=features, rows=indices.cpu()
            )
            return mixed

        return replace(objective, targets=rows)


@dataclass(frozen=True)
class Relabel(Change):
    """The believed class in the place of every given label."""

    name: ClassVar[str] = "relabel"
    summary: ClassVar[str] = "every label is replaced by the class that saln.judge_labels believes"
    says_targets: ClassVar[bool] = True

    def applied(self, objective: Objective, teacher: FeatureTeacher | None) -> Objective:
        """With the believed classes."""
        everywhere = _known(teacher, self).believed

        def classes(labels: Tensor, indices: Tensor) -> Tensor:
            believed = everywhere[indices.cpu()].to(labels.device)
            # Of what has no features nothing is believed (-1): it keeps its label.
            return torch.where(believed < 0, labels, believed)

        return replace(objective, targets=classes)


def _known(teacher: FeatureTeacher | None, change: Change) -> FeatureTeacher:
    if teacher is None:
        raise InputError(f"{change.name} needs a teacher; give what saln.features_as_teacher makes")
    return teacher


CHANGES: dict[str, type[Change]] = {
    kind.name: kind for kind in (GCE, Smoothing, EMA, Targets, Relabel)
}


def read_change(text: str) -> Change:
    """The change that a text names, such as ``gce(q=0.7)``; else InputError."""
    name, texts = split_selector(text, what="change of training")
    if name not in CHANGES:
        near = difflib.get_close_matches(name, CHANGES, 1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise InputError(
            f"change +{shown(name)} is not allowed; give one of {', '.join(CHANGES)}{hint}"
        )
    kind = CHANGES[name]
    return make_selector(kind, name, read_values(kind, name, texts))


def ordered(changes: Sequence[Change], of: str) -> tuple[Change, ...]:
    """Changes in the order of the registry, so that an arm is written in one way.

    Raises:
        InputError: One is there twice, or two say the targets; names the arm ``of`` them.
    """
    names = [change.name for change in changes]
    if len(set(names)) < len(names):
        raise InputError(f"{shown(of)} has {' and '.join(names)}; give each change once")
    targets = [change.name for change in changes if change.says_targets]
    if len(targets) > 1:
        raise InputError(
            f"{shown(of)} has {' and '.join(targets)}, which both say what the loss compares "
            "outputs with; give one of them"
        )
    places = list(CHANGES)
    return tuple(sorted(changes, key=lambda change: places.index(change.name)))


def listed_changes() -> Iterator[tuple[str, str]]:
    """Name -> what ``saln list`` says of a change."""
    for name, kind in CHANGES.items():
        yield f"+{name}", "\n".join([kind.summary, *map(str, hyperparameters(kind))])


def objective_of(changes: Sequence[Change], teacher: FeatureTeacher | None) -> Objective:
    """The loss of a training step with all changes."""
    objective = GIVEN_LABELS
    for change in changes:
        objective = change.applied(objective, teacher)
    return objective


def averaged_by(changes: Sequence[Change], learner: nn.Module) -> AveragedModel | None:
    """The average that is evaluated in the learner's place; None where no change makes one."""
    found = (change.averaged(learner) for change in changes)
    return next((average for average in found if average is not None), None)
