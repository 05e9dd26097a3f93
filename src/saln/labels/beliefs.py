"""What is believed of labels, with everything that a person or a program asks of it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.sparse
import torch
from torch import Tensor

from saln.errors import InputError
from saln.messages import not_allowed

# Odds beyond this are as good as certain: log-odds stay finite.
CERTAIN = 1e-15

Places = npt.NDArray[np.int64]


class LabelIssue(NamedTuple):
    """A label that is believed to be wrong.

    Attributes:
        example: Its row.
        given: The name of its label.
        believed: The name of the likeliest other class.
        confidence: The probability that the given label is right.
        copies: The rows that lie as good as at the same place, itself left out.
    """

    example: int
    given: str
    believed: str
    confidence: float
    copies: tuple[int, ...]


class LabelEvidence(NamedTuple):
    """Why something is believed of an example.

    Attributes:
        given: The name of its label; None where it is unknown.
        classes: The likeliest classes by name, each with its probability, likeliest first.
        neighbors: The nearest examples: row, cosine, name of the label (None: unknown).
        copies: The rows that lie as good as at the same place, whose labels were not asked.
    """

    given: str | None
    classes: tuple[tuple[str, float], ...]
    neighbors: tuple[tuple[int, float, str | None], ...]
    copies: tuple[int, ...]


@dataclass(frozen=True)
class LabelBeliefs:
    """What all the other examples make of each label.

    Attributes:
        confidence: float64, (n,): the probability that the given label is right; of a soft label
            the mean probability of its classes; NaN where there is no label or no features.
        believed: int64, (n,): the likeliest class; -1 where there are no features.
        probabilities: CSR, (n, C): of each class that occurs. Of more than 64 classes each
            example holds the 32 likeliest.
        classes: int64, (C,): the labels that occur: the columns of ``probabilities``.
        names: One name a column.
        transition: float64, (C, C): row c: how labels of class c come out. CSR, with what was
            seen alone, for more than 2,048 classes.
        noise_rate: The estimated share of wrong labels, by the noise that the clearest examples
            show, or by the features' clusters where mistakes follow the image; NaN where the
            features tell nothing.
        noise_interval: Where it lies, with 95% confidence.
        informative: Whether the features tell classes apart well enough to judge labels by. If
            not, nothing is doubted.
        message: What a person should know, in words; empty when all is well.
        groups: Near duplicates: rows that have one voice together and none about each other.
        neighbors: int32, (n, k): the nearest, themselves left out; k = 0 without a table.
        similarities: float32, (n, k): their cosines.
        penalty: The filter's, as a share of the features' variance; chosen by likelihood.
        rounds: How often beliefs took the place of labels, with gain.
        seconds: Of each part, and ``total``.
    """

    confidence: Tensor
    believed: Tensor
    probabilities: scipy.sparse.csr_array
    classes: Places
    names: tuple[str, ...]
    transition: Any
    noise_rate: float
    noise_interval: tuple[float, float]
    informative: bool
    message: str
    groups: tuple[Places, ...]
    neighbors: npt.NDArray[np.int32]
    similarities: npt.NDArray[np.float32]
    penalty: float
    rounds: int
    seconds: dict[str, float]
    given: Places = field(repr=False)  # places of classes; -1: none
    again: Callable[[Any, Any], LabelBeliefs] = field(repr=False)

    def __len__(self) -> int:
        return len(self.confidence)

    @property
    def suspicious(self) -> Tensor:
        """bool, (n,): labels that are more likely wrong than right."""
        return torch.from_numpy(self.given >= 0) & (self.confidence < 0.5)

    def issues(self, top: int | None = 100) -> list[LabelIssue]:
        """The labels that are believed to be wrong, the least likely first.

        Args:
            top: How many at most; None for all.

        Raises:
            InputError: ``top`` is below 1.
        """
        if top is not None and top < 1:
            raise InputError(f"top={top} is not allowed; give at least 1, or None for all")
        doubted = self.suspicious.nonzero().flatten()
        order = doubted[torch.argsort(self.confidence[doubted], stable=True)][:top]
        copies = self._copies()
        return [
            LabelIssue(
                row,
                self.names[int(self.given[row])],
                self.names[self._other(row)],
                float(self.confidence[row]),
                copies.get(row, ()),
            )
            for row in order.tolist()
        ]

    def evidence(self, example: int, top: int = 5) -> LabelEvidence:
        """Why something is believed of an example.

        Args:
            example: Its row.
            top: How many classes and neighbors at most.

        Raises:
            InputError: There is no such row.
        """
        if not 0 <= example < len(self):
            raise InputError(f"example {example} is not allowed; give 0 to {len(self) - 1}, a row")
        held = self.probabilities[[example]]
        order = np.argsort(-held.data, kind="stable")[:top]
        classes = tuple((self.names[held.indices[i]], float(held.data[i])) for i in order)
        near = tuple(
            (int(row), float(similarity), self._name(int(row)))
            for row, similarity in zip(
                self.neighbors[example][:top], self.similarities[example][:top], strict=True
            )
            if row >= 0
        )
        copies = self._copies().get(example, ())
        return LabelEvidence(self._name(example), classes, near, copies)

    def update(self, features: Any, labels: Any = None) -> LabelBeliefs:
        """Beliefs after more examples came, as if all had been judged at once.

        The sums over the earlier examples are kept. The examples themselves are read again, to
        be judged with the new ones, and must still be there.

        Args:
            features: As :func:`saln.judge_labels`: of the new examples alone.
            labels: Theirs, of the same kind as before.

        Returns:
            Beliefs about all examples: the earlier ones, then the new ones.

        Raises:
            InputError: Features of another width, or labels of another kind.
        """
        return self.again(features, labels)

    def with_noise_rate(self, noise_rate: float) -> LabelBeliefs:
        """The same beliefs where the share of wrong labels is known, by an audit for example.

        The odds of all labels are multiplied by one number, so that this share of the labels is
        more likely wrong than right. The order of the labels, and ``transition``, stay. Where the
        features tell nothing, there is nothing to multiply, and no label is doubted.

        Args:
            noise_rate: The share, in [0, 1).

        Raises:
            InputError: Another number.
        """
        check_noise_rate(noise_rate)
        if not self.informative:
            return self
        odds = self._odds()
        moved = self._moved(odds - np.quantile(odds, noise_rate))
        return replace(
            moved,
            noise_rate=noise_rate,
            noise_interval=(noise_rate, noise_rate),
            message="",
            again=functools.partial(_again_with, self.again, noise_rate),
        )

    def with_label_rates(self, rates: npt.NDArray[np.float64]) -> LabelBeliefs:
        """The same beliefs where the share of wrong labels is known of each label's examples.

        As :meth:`with_noise_rate`, with a number for each label: the order stays among examples
        with the same label. Shares, interval and message are not changed.

        Args:
            rates: (C,): shares in [0, 1), in the order of ``classes``.

        Raises:
            InputError: For other shares, or another number of them.
        """
        if len(rates) != len(self.classes):
            raise InputError(
                f"{len(rates)} rates do not fit {len(self.classes)} classes; give one for each"
            )
        for rate in rates.tolist():
            check_noise_rate(rate)
        odds, given = self._odds(), self.given[self._labeled()]
        order = np.argsort(given, kind="stable")
        for members in np.split(order, np.flatnonzero(np.diff(given[order])) + 1):
            odds[members] -= np.quantile(odds[members], rates[given[members[0]]])
        return self._moved(odds)

    def _labeled(self) -> Places:
        """The rows that have features and a label."""
        return np.flatnonzero((np.diff(self.probabilities.indptr) > 0) & (self.given >= 0))

    def _odds(self) -> npt.NDArray[np.float64]:
        """The log-odds that each label is right."""
        odds: npt.NDArray[np.float64] = torch.logit(
            self.confidence[torch.from_numpy(self._labeled())], eps=CERTAIN
        ).numpy()
        return odds

    def _moved(self, odds: npt.NDArray[np.float64]) -> LabelBeliefs:
        """The same beliefs with other log-odds of the labels."""
        held = np.diff(self.probabilities.indptr) > 0  # each of these rows holds as many classes
        columns = self.probabilities.indices.reshape(int(held.sum()), -1)
        shares = self.probabilities.data.reshape(columns.shape).copy()
        given, confidence = self.given[held], self.confidence.numpy().copy()
        labeled = np.flatnonzero(given >= 0)
        right = confidence[held][labeled]
        moved = torch.sigmoid(torch.from_numpy(odds)).numpy()
        # What the label loses goes to the other classes in proportion.
        scale = (1.0 - moved) / (1.0 - right).clip(CERTAIN)
        own = columns[labeled] == given[labeled][:, None]
        shares[labeled] = np.where(own, moved[:, None], shares[labeled] * scale[:, None])
        confidence[np.flatnonzero(held)[labeled]] = moved
        believed = self.believed.numpy().copy()
        likeliest = shares.argmax(axis=1)[:, None]
        believed[held] = self.classes[np.take_along_axis(columns, likeliest, axis=1)[:, 0]]
        return replace(
            self,
            confidence=torch.from_numpy(confidence),
            believed=torch.from_numpy(believed),
            probabilities=scipy.sparse.csr_array(
                (shares.ravel(), self.probabilities.indices, self.probabilities.indptr),
                shape=self.probabilities.shape,
            ),
        )

    def _other(self, row: int) -> int:
        """The place of the likeliest class that is not the label."""
        held = self.probabilities[[row]]
        likely = np.where(held.indices == self.given[row], -1.0, held.data)
        return int(held.indices[int(likely.argmax())])

    def _name(self, row: int) -> str | None:
        return self.names[int(self.given[row])] if self.given[row] >= 0 else None

    def _copies(self) -> dict[int, tuple[int, ...]]:
        return {
            int(row): tuple(int(other) for other in group if other != row)
            for group in self.groups
            for row in group
        }


def check_noise_rate(noise_rate: float) -> None:
    """Refuses what is no share of wrong labels."""
    if not 0 <= noise_rate < 1:
        raise not_allowed("noise_rate", noise_rate, "a share in [0, 1)")


def _again_with(
    again: Callable[[Any, Any], LabelBeliefs], noise_rate: float, features: Any, labels: Any
) -> LabelBeliefs:
    return again(features, labels).with_noise_rate(noise_rate)
