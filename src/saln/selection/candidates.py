"""What a selector takes and gives, and how n, k and f hang together."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import Tensor

from saln.data.arguments import as_array, as_labels, as_whole
from saln.errors import InputError

# Types that int64 holds without loss; bool is a mask, which no index is.
_WHOLE = frozenset({torch.int8, torch.int16, torch.int32, torch.uint8, torch.uint16, torch.uint32})
# Fields that hold class numbers; these and positions are whole, all others are floating.
CLASS_NUMBERS = frozenset({"labels", "believed"})
WHOLE_NUMBERS = CLASS_NUMBERS | {"neighbors"}


def _as_tensor(values: Any, name: str) -> Tensor:
    """Values that somebody gave for a field, as a tensor; labels as class numbers."""
    array = as_array(values, f"candidates' {name}")
    if name in CLASS_NUMBERS:
        return torch.from_numpy(as_labels(array, array.shape)[0])
    if array.dtype.kind not in "fiub":
        raise InputError(f"candidates' {name} are {array.dtype} {array.shape}; give numbers")
    # A copy, as arrays may be read-only, and torch says so of each.
    return torch.from_numpy(np.array(array))


@dataclass(frozen=True)
class PairEmbeddings:
    """The two embeddings of ``n`` pairs, such as images and their texts.

    The logit of image ``i`` with text ``j`` is ``scale * image[i] @ text[j] + bias``.

    Attributes:
        image: floating, (n, d), normalized where the model's own loss normalizes them.
        text: floating, (n, d), likewise.
        scale: The model's temperature, learned or fixed (SigLIP's ``exp(t')``, CLIP's
            ``exp(logit_scale)``); a number or a tensor of one.
        bias: SigLIP's learned bias; 0 for CLIP.
    """

    image: Tensor
    text: Tensor
    scale: Tensor | float = 1.0
    bias: Tensor | float = 0.0

    def __post_init__(self) -> None:
        if self.image.ndim != 2 or self.image.shape != self.text.shape:
            raise InputError(
                f"pair embeddings have shapes {tuple(self.image.shape)} and "
                f"{tuple(self.text.shape)}, expected (n, d) for both"
            )
        for name in ("scale", "bias"):
            value = torch.as_tensor(getattr(self, name)).detach()
            if value.numel() != 1 or not bool(torch.isfinite(value).all()):
                raise InputError(
                    f"the {name} of pair embeddings is {value.tolist()}; give one finite number"
                )

    def __len__(self) -> int:
        return len(self.image)


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """The ``n`` examples looked at for one step, and what is known of them.

    Arrays, lists and pandas' columns are taken as tensors; labels may be whole numbers of any
    type, (n, 1), or the classes' names, which are numbered in alphabetical order among the
    candidates.

    Attributes:
        indices: int64, (n,): positions in the data set.
        features: floating, (n, d): a frozen backbone's rows.
        labels: int64, (n,): the labels as given, right or wrong.
        learner_outputs: floating, (n, C): the learner's logits.
        reference_outputs: floating, (n, C): the reference model's logits.
        learner_losses: floating, (n,).
        reference_losses: floating, (n,).
        label_confidence: floating, (n,): how likely each label is right.
        believed: int64, (n,): the class that is believed by label and features.
        difficulty: floating, (n,): what the features as a teacher
            (:func:`saln.features_as_teacher`) lose on that class, at most 3.
        teacher_losses: floating, (n,): what they lose on the given label.
        teacher_outputs: floating, (n, C): the log of what they say of each class.
        neighbors: int64, (n, m): the nearest other examples by the features, nearest first:
            positions in the data set.
        learner_embeddings: The learner's two embeddings of ``n`` pairs.
        reference_embeddings: The reference model's.
    """

    indices: Tensor
    features: Tensor | None = None
    labels: Tensor | None = None
    learner_outputs: Tensor | None = None
    reference_outputs: Tensor | None = None
    learner_losses: Tensor | None = None
    reference_losses: Tensor | None = None
    label_confidence: Tensor | None = None
    believed: Tensor | None = None
    difficulty: Tensor | None = None
    teacher_losses: Tensor | None = None
    teacher_outputs: Tensor | None = None
    neighbors: Tensor | None = None
    learner_embeddings: PairEmbeddings | None = None
    reference_embeddings: PairEmbeddings | None = None

    def __post_init__(self) -> None:
        for known in fields(self):
            value = getattr(self, known.name)
            if value is not None and not isinstance(value, Tensor | PairEmbeddings):
                object.__setattr__(self, known.name, _as_tensor(value, known.name))
        # Labels of other types mean the same classes where they are whole numbers.
        for name in ("labels", "believed"):
            labels = getattr(self, name)
            if labels is not None and (labels.dtype != torch.int64 or labels.ndim != 1):
                numbers, _ = as_labels(labels, tuple(self.indices.shape))
                object.__setattr__(self, name, torch.from_numpy(numbers).to(labels.device))
        for name in ("indices", "neighbors"):
            positions = getattr(self, name)
            if positions is not None and positions.dtype in _WHOLE:
                object.__setattr__(self, name, positions.long())
        if self.indices.ndim != 1 or self.indices.dtype != torch.int64:
            raise InputError(
                f"candidates' indices are {self.indices.dtype} {tuple(self.indices.shape)}, "
                "expected int64 (n,); indices lose digits in a float tensor"
            )
        # Every field has a row an index: a field of another length would pair wrong examples.
        for known in fields(self):
            for value in self._tensors(known.name):
                if value.ndim == 0 or len(value) != len(self):
                    raise InputError(
                        f"candidates' {known.name} has shape {tuple(value.shape)}, expected "
                        f"{len(self)} rows, one for each index"
                    )

    def __len__(self) -> int:
        return len(self.indices)

    def at(self, positions: Tensor) -> Candidates:
        """The candidates at some positions, int64 (m,), in that order."""
        taken: dict[str, Any] = {}
        for name, value in vars(self).items():
            if isinstance(value, PairEmbeddings):
                pairs = {"image": value.image[positions], "text": value.text[positions]}
                taken[name] = replace(value, **pairs)
            elif value is not None:
                taken[name] = value[positions]
        return Candidates(**taken)

    def _tensors(self, name: str) -> tuple[Tensor, ...]:
        value: Tensor | PairEmbeddings | None = getattr(self, name)
        if isinstance(value, PairEmbeddings):
            return value.image, value.text
        return () if value is None else (value,)

    def tensors(self, name: str) -> tuple[Tensor, ...]:
        """The tensors of a field that must be there: two for embeddings, one for others.

        Raises:
            InputError: The field is None.
        """
        found = self._tensors(name)
        if not found:
            raise InputError(
                f"the candidates lack {name}, which the selector requires; "
                f"give Candidates({name}=...) or another selector"
            )
        return found

    def need(self, name: str) -> Tensor:
        """A field that must be there and is one tensor.

        Raises:
            InputError: The field is None.
        """
        return self.tensors(name)[0]

    def need_embeddings(self, name: str) -> PairEmbeddings:
        """``learner_embeddings`` or ``reference_embeddings``, which must be there.

        Raises:
            InputError: The field is None.
        """
        self.tensors(name)
        value: PairEmbeddings = getattr(self, name)
        return value


@dataclass(frozen=True)
class Selection:
    """The kept positions.

    Attributes:
        positions: int64, (k,), distinct, on the CPU: positions among the candidates.
        weights: floating, (k,): loss weights of the kept examples; None for equal ones.
        scores: floating, (n,): what the selector made of every candidate, for the
            report; None where it makes nothing of them.
        facts: Name -> a number about the choice as a whole, for the report.
    """

    positions: Tensor
    weights: Tensor | None = None
    scores: Tensor | None = None
    facts: Mapping[str, float] = field(default_factory=dict)


def exact_ratio(filter_ratio: float | Fraction) -> Fraction:
    """The ratio that was written: 0.8 is 4/5; InputError outside [0, 1)."""
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


def as_ratio(value: Any) -> float | Fraction:
    """A filter ratio that somebody gave: a number of Python or NumPy, a tensor, a fraction.

    Gives a float where it names the ratio exactly, else the fraction; InputError outside [0,
    1).
    """
    number = value
    if isinstance(value, Tensor) and value.numel() == 1:
        number = value.numpy(force=True).reshape(())[()]
    plain = isinstance(number, int | float | np.number | Fraction) and not isinstance(number, bool)
    if not plain or isinstance(number, np.complexfloating):
        raise InputError(
            f"filter ratio {value!r} is not allowed; give the share to drop as a number in [0, 1)"
        )
    # float32's 0.8 is 0.800000011920929 as float64: its own shortest decimal is what was meant.
    exact = exact_ratio(number if isinstance(number, Fraction) else float(str(number)))
    return float(exact) if exact_ratio(float(exact)) == exact else exact


def kept_count(n: int, filter_ratio: float | Fraction) -> int:
    """``k = floor(n (1 - f))``, exactly: n = 10 and f = 0.8 give 2, not the 1 of floats.

    Raises:
        InputError: ``filter_ratio`` is outside [0, 1).
    """
    return math.floor(n * (1 - exact_ratio(filter_ratio)))


def candidates_needed(k: int, filter_ratio: float | Fraction) -> int:
    """The smallest ``n`` with ``kept_count(n, f) == k``, that is ``ceil(k / (1 - f))``.

    Raises:
        InputError: ``filter_ratio`` is outside [0, 1), or ``k`` is below 1.
    """
    k = k if isinstance(k, int) else as_whole(k, "batch_size", 1)
    if k < 1:
        raise InputError(f"batch size {k} is not allowed; give at least 1")
    return math.ceil(k / (1 - exact_ratio(filter_ratio)))
