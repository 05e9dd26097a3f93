"""What a selector is given and what it gives back, and how n, k and f hang together."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from fractions import Fraction

import torch
from torch import Tensor

from saln.errors import InputError

__all__ = ["Candidates", "Selection", "candidates_needed", "kept_count"]


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """The ``n`` examples looked at for one step, and what is known of them.

    Attributes:
        indices: int64, (n,): positions in the data set.
        features: floating, (n, d): a frozen backbone's rows.
        labels: int64, (n,): the labels as given, right or wrong.
        learner_outputs: floating, (n, C): the learner's logits.
        reference_outputs: floating, (n, C): the reference model's logits.
        learner_losses: floating, (n,).
        reference_losses: floating, (n,).
        label_confidence: floating, (n,): how likely each label is right.
    """

    indices: Tensor
    features: Tensor | None = None
    labels: Tensor | None = None
    learner_outputs: Tensor | None = None
    reference_outputs: Tensor | None = None
    learner_losses: Tensor | None = None
    reference_losses: Tensor | None = None
    label_confidence: Tensor | None = None

    def __post_init__(self) -> None:
        if self.indices.ndim != 1 or self.indices.dtype != torch.int64:
            raise InputError(
                f"candidates' indices are {self.indices.dtype} {tuple(self.indices.shape)}, "
                "expected int64 (n,); indices lose digits in a float tensor"
            )
        for field in fields(self):
            value: Tensor | None = getattr(self, field.name)
            if value is not None and (value.ndim == 0 or len(value) != len(self)):
                raise InputError(
                    f"candidates' {field.name} has shape {tuple(value.shape)}, expected "
                    f"{len(self)} rows, one for each index"
                )

    def __len__(self) -> int:
        return len(self.indices)

    def need(self, name: str) -> Tensor:
        """A field that must be there.

        Raises:
            InputError: The field is None.
        """
        value: Tensor | None = getattr(self, name)
        if value is None:
            raise InputError(
                f"the candidates lack {name}, which the selector requires; "
                f"give Candidates({name}=...) or another selector"
            )
        return value


@dataclass(frozen=True)
class Selection:
    """The kept positions.

    Attributes:
        positions: int64, (k,), distinct, on the CPU: positions among the candidates.
        weights: floating, (k,): loss weights of the kept examples; None for equal ones.
        scores: floating, (n,): what the selector made of every candidate, for the
            report; None where it makes nothing of them.
    """

    positions: Tensor
    weights: Tensor | None = None
    scores: Tensor | None = None


def _exact(filter_ratio: float | Fraction) -> Fraction:
    ratio = filter_ratio if isinstance(filter_ratio, Fraction) else None
    if ratio is None and math.isfinite(filter_ratio):
        # The shortest decimal that names the float: 0.8 is 4/5, not 3602879701896397 / 2**52.
        ratio = Fraction(repr(float(filter_ratio)))
    if ratio is None or not 0 <= ratio < 1:
        raise InputError(
            f"filter ratio {filter_ratio} is not allowed; give the share to drop, "
            "in [0, 1): 0.8 keeps every fifth candidate"
        )
    return ratio


def kept_count(n: int, filter_ratio: float | Fraction) -> int:
    """``k = floor(n (1 - f))``, exactly: n = 10 and f = 0.8 give 2, not the 1 of floats.

    Raises:
        InputError: ``filter_ratio`` is outside [0, 1).
    """
    return math.floor(n * (1 - _exact(filter_ratio)))


def candidates_needed(k: int, filter_ratio: float | Fraction) -> int:
    """The smallest ``n`` with ``kept_count(n, f) == k``, that is ``ceil(k / (1 - f))``.

    Raises:
        InputError: ``filter_ratio`` is outside [0, 1), or ``k`` is below 1.
    """
    if k < 1:
        raise InputError(f"batch size {k} is not allowed; give at least 1")
    return math.ceil(k / (1 - _exact(filter_ratio)))
