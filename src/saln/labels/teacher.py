"""Frozen features as a teacher: what all the others say of each training example.

A cross-validated model in closed form: what :func:`saln.judge_labels` has as evidence, where no
example's own label has a part, is a free teacher, a free curriculum and a free reference model.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from saln.data.arguments import as_whole
from saln.errors import InputError
from saln.labels.beliefs import LabelBeliefs
from saln.labels.descriptions import Outcome
from saln.labels.judge import judge_with_evidence
from saln.labels.likelihood_fit import BLOCK_ROWS

# What a teacher finds still harder is as hard: few such examples would else be all that counts.
HARDEST = 3.0

Places = npt.NDArray[np.int64]
# Of the classes that are held, (n, m), and of all others together, (n,)
Shares = tuple[npt.NDArray[np.float32], npt.NDArray[np.float64]]


@dataclass(frozen=True)
class ClassShares:
    """Probabilities of C classes for n examples, of which each holds the m that are likely.

    Attributes:
        columns: integer, (n, m): class numbers.
        shares: float32, (n, m).
        beside: float32, (n,): of each other class that occurs.
        occurs: bool, (C,).
    """

    columns: npt.NDArray[np.integer[Any]]
    shares: npt.NDArray[np.float32]
    beside: npt.NDArray[np.float32]
    occurs: npt.NDArray[np.bool_]

    def rows(self, which: slice | Places = slice(None)) -> Tensor:
        """Of some examples: float32, (b, C). Rows sum to 1."""
        full = self.beside[which][:, None] * self.occurs.astype(np.float32)
        np.put_along_axis(full, self.columns[which].astype(np.int64), self.shares[which], axis=1)
        return torch.from_numpy(full)

    def of(self, classes: Places) -> npt.NDArray[np.float32]:
        """Of one class an example, (n,), each a class number: (n,)."""
        held = self.columns == classes[:, None]
        found = np.where(held, self.shares, np.float32(0)).sum(axis=1)
        missing = ~held.any(axis=1)
        return np.where(missing, self.beside * self.occurs[classes], found)


@dataclass(frozen=True)
class FeatureTeacher:
    """What frozen features say of each training example, from the others' labels.

    Attributes:
        beliefs: About the labels, the example's own among what is asked.
        classes: C: columns are the class numbers 0 to C - 1 of the data set.
        seconds: For all of it.
    """

    beliefs: LabelBeliefs
    classes: int
    seconds: float
    own: ClassShares = field(repr=False)
    others: ClassShares = field(repr=False)

    def __len__(self) -> int:
        return len(self.beliefs)

    @property
    def posterior(self) -> Tensor:
        """float32, (n, C): the probability of each class by the label and all the others."""
        return self.own.rows()

    @property
    def leave_one_out(self) -> Tensor:
        """float32, (n, C): the probability of each class by the others alone (``Q``)."""
        return self.others.rows()

    @property
    def accuracy(self) -> float:
        """The share of the known labels that the other examples predict as the likeliest class."""
        given, known = self.beliefs.given, self.beliefs.given >= 0
        best = self.others.shares.argmax(axis=1)
        predicted = np.take_along_axis(self.others.columns, best[:, None], axis=1)[:, 0]
        return float((predicted == self.beliefs.classes[given])[known].mean())

    @property
    def believed(self) -> Tensor:
        """int64, (n,): the likeliest class; -1 where there are no features."""
        return self.beliefs.believed

    @property
    def difficulty(self) -> Tensor:
        """float64, (n,): ``-log Q`` of the believed class, at most 3; 3 without features."""
        return self._loss(self.beliefs.believed.numpy()).clamp_max(HARDEST)

    def losses(self, labels: Any = None) -> Tensor:
        """The teacher's cross-entropy with some labels, ``-log Q``: float64, (n,).

        Args:
            labels: Whole numbers, (n,): class numbers; when None the labels that it was taught
                with, and the believed class where there is none.

        Raises:
            InputError: Labels that are no class numbers below C, one an example.
        """
        if labels is None:
            places = self.beliefs.given
            given = self.beliefs.classes[np.maximum(places, 0)]
            return self._loss(np.where(places >= 0, given, self.beliefs.believed.numpy()))
        return self._loss(_class_numbers(labels, len(self), self.classes).numpy(force=True))

    def _loss(self, labels: Places) -> Tensor:
        share = self.others.of(np.maximum(labels, 0)).astype(np.float64)
        share = np.where(labels >= 0, share, 0.0)
        # The smallest float32: what is impossible has a loss that is a number.
        return -torch.from_numpy(share).clamp_min(torch.finfo(torch.float32).tiny).log()

    def targets(
        self,
        given: Any,
        *,
        beliefs: float = 0.0,
        features: float = 0.0,
        rows: Any = None,
    ) -> Tensor:
        """Soft targets for a loss, instead of the given labels alone.

        ``(1 - beliefs - features) * one_hot(given) + beliefs * posterior + features * Q``.

        Args:
            given: Whole numbers, (m,): class numbers.
            beliefs: The share of the posterior.
            features: The share of what the others alone say.
            rows: int64, (m,): which examples these are; all of them, in order, when None.

        Returns:
            float32, (m, C), where ``given`` is. Rows sum to 1.

        Raises:
            InputError: Shares that are below 0 or above 1 together; labels or rows that there
                are not.
        """
        if not (beliefs >= 0 and features >= 0 and beliefs + features <= 1 + 1e-9):
            raise InputError(
                f"beliefs={beliefs} and features={features} are not allowed; give shares from 0, "
                "together at most 1"
            )
        which: slice | Places = slice(None)
        if rows is not None:
            which = torch.as_tensor(rows).reshape(-1).long().numpy(force=True)
            if len(which) and not 0 <= which.min() <= which.max() < len(self):
                raise InputError(
                    f"rows {which.min()} to {which.max()} are not allowed; give 0 to "
                    f"{len(self) - 1}: this teacher knows {len(self)} examples"
                )
        count = len(self) if isinstance(which, slice) else len(which)
        labels = _class_numbers(given, count, self.classes)
        found = torch.zeros(count, self.classes)
        if beliefs:
            found += beliefs * self.own.rows(which)
        if features:
            found += features * self.others.rows(which)
        found = found.to(labels.device)
        rest = torch.full((count, 1), max(1.0 - beliefs - features, 0.0), device=labels.device)
        return found.scatter_add_(1, labels[:, None], rest)


def _class_numbers(labels: Any, count: int, classes: int) -> Tensor:
    found = torch.as_tensor(labels)
    if found.shape != (count,) or found.is_floating_point() or found.dtype == torch.bool:
        raise InputError(
            f"labels are {found.dtype} {tuple(found.shape)}; give {count} whole numbers, one an "
            "example"
        )
    if count and not 0 <= int(found.min()) <= int(found.max()) < classes:
        raise InputError(
            f"labels are {int(found.min())} to {int(found.max())}; give class numbers from 0 to "
            f"{classes - 1}"
        )
    return found.long()


def features_as_teacher(
    features: Any, labels: Any = None, *, classes: int | None = None, seed: int = 0
) -> FeatureTeacher:
    """Class probabilities of every training example, from the others alone; nothing is trained.

    They are the evidence of :func:`saln.judge_labels`: the leave-one-out filter of the labels on
    the features' Gram matrix (ridge regression) and the neighbors' votes, with temperatures by
    the likelihood of the given labels. Where beliefs took the place of noisy labels
    (``beliefs.rounds`` above 0), an example's own label has a part in what the others believe of
    themselves, and in nothing else.

    Args:
        features: A :class:`saln.FeatureStore`, or numbers (n, d). Best those of a good frozen
            network.
        labels: As in :func:`saln.judge_labels`; the store's own when None.
        classes: C; by default the store's names, else up to the highest class that occurs.
        seed: Decides the sample that numbers are chosen with, above 5,000 rows.

    Returns:
        The teacher. Above 64 classes each example holds its 32 likeliest, and all others have
        equal shares of the rest.

    Raises:
        InputError: As :func:`saln.judge_labels`; fewer ``classes`` than the labels have.
    """
    beliefs, outcome, kept = judge_with_evidence(features, labels, seed=seed)
    named = getattr(features, "class_names", None) if labels is None else None
    least = int(beliefs.classes.max()) + 1
    count = max(least, len(named or ())) if classes is None else as_whole(classes, "classes", 1)
    if count < least:
        raise InputError(
            f"classes={count} is not allowed: the highest label is {least - 1}; "
            f"give {least} or more"
        )
    occurs = np.zeros(count, dtype=bool)
    occurs[beliefs.classes] = True
    held = beliefs.classes[outcome.evidence.classes]
    own = beliefs.probabilities.data.reshape(held.shape)
    left = 1.0 - own.sum(axis=1, dtype=np.float64)
    where = slice(None) if kept is None else kept
    return FeatureTeacher(
        beliefs,
        count,
        beliefs.seconds["total"],
        _over_all(len(beliefs), where, held, (own, left), occurs),
        _over_all(len(beliefs), where, held, _others(outcome), occurs),
    )


def _others(outcome: Outcome) -> Shares:
    """``Q`` of the classes that the evidence holds, (n, m), and of all others together, (n,)."""
    evidence = outcome.evidence
    found = np.empty(evidence.scores.shape, dtype=np.float32)
    left = np.empty(len(found))
    for start in range(0, len(found), BLOCK_ROWS):
        part = slice(start, start + BLOCK_ROWS)
        found[part], left[part] = outcome.judged.joint.probabilities(evidence, part)
    return found, left


def _over_all(
    count: int,
    where: slice | Places,
    columns: npt.NDArray[np.integer[Any]],
    known: Shares,
    occurs: npt.NDArray[np.bool_],
) -> ClassShares:
    """Shares of the examples that have features among all; of others each class is as likely."""
    total, width = int(occurs.sum()), columns.shape[1]
    number = np.min_scalar_type(len(occurs))
    everywhere = np.tile(np.flatnonzero(occurs)[:width].astype(number), (count, 1))
    shares = np.full((count, width), 1 / total, dtype=np.float32)
    beside = np.full(count, 1 / total, dtype=np.float32)
    everywhere[where], shares[where] = columns, known[0]
    beside[where] = known[1].clip(0.0) / max(total - width, 1)
    return ClassShares(everywhere, shares, beside, occurs)
