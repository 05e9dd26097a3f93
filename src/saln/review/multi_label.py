"""Which labels of examples that may have several are wrong or missing, class by class.

Each class is a question with two answers, judged as :func:`saln.judge_labels` judges two classes.
All of them share what does not depend on the labels: spectrum, neighbors, copies, leverages.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from saln.errors import InputError
from saln.features.neighbors import NeighborTable
from saln.labels.descriptions import Clock, Outcome, belief_columns, noise_interval
from saln.labels.evidence import NEIGHBOR_ROWS, Gatherer, find_neighbors
from saln.labels.feature_blocks import FeatureBlocks
from saln.labels.judge import judged_outcome
from saln.spectral.label_filter import LabelFilter, LabelSums, one_hot, transposed_product

# Classes that a message names.
NAMED = 5

Floats = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]


@dataclass(frozen=True)
class LabelSetBeliefs:
    """What all other examples make of each example's set of classes."""

    probabilities: npt.NDArray[np.float32]  # (n, C): that each class applies to each example
    # (n,): the probability that what is said of the least likely class, that it applies or that
    # it does not, is right. Below one half, a label is more likely wrong, or one more likely
    # missing, than not. NaN where no set is given.
    confidence: Floats
    doubted: Places  # (n,): that class; -1 where no set is given
    # The estimated share of sets that are not wholly right; NaN where features tell of no class.
    noise_rate: float
    noise_interval: tuple[float, float]  # Where it lies, with 95% confidence
    informative: bool  # Whether features separate any class well enough to doubt its labels
    message: str  # What a person should know, in words; empty when all is well
    groups: list[Places]  # Near duplicates: rows that say nothing of each other
    table: NeighborTable | None  # The nearest rows; None without


def judge_label_sets(
    features: Any,
    given: npt.ArrayLike,
    known: npt.ArrayLike | None = None,
    *,
    class_names: Sequence[str] | None = None,
) -> LabelSetBeliefs:
    """How likely each of an example's labels is right, and each that it lacks wrong to lack.

    By features (n, d), all finite, which classes each example has, bool (n, C), and whose sets are
    ``known``, bool (n,), all when None. The class names are for the message. InputError for not one
    row of classes a row of features, or no set.
    """
    rows = FeatureBlocks(features)
    sets = np.asarray(given, dtype=bool)
    is_known = np.ones(rows.n, dtype=bool) if known is None else np.asarray(known, dtype=bool)
    if sets.ndim != 2 or not sets.size or len(sets) != rows.n or is_known.shape != (rows.n,):
        raise InputError(
            f"{rows.n} rows of features and sets of classes {sets.shape}; give yes or no for each "
            "row and class, (n, C)"
        )
    if not is_known.any():
        raise InputError("no example has labels; give some")
    shared = _Shared(rows, is_known)
    n, classes = sets.shape
    probabilities = np.empty((n, classes), dtype=np.float32)
    confidence, doubted = np.full(n, np.inf), np.full(n, -1)
    unclear, anchors, all_right = [], n, 1.0
    for c in range(classes):
        right, applies, wrong, outcome = shared.judge(sets[:, c])
        probabilities[:, c] = applies
        lower = is_known & (right < confidence)
        confidence[lower], doubted[lower] = right[lower], c
        if outcome is not None and outcome.informative:
            anchors = min(anchors, outcome.judged.transition.anchors)
            all_right *= 1.0 - wrong
        else:
            unclear.append(str(c) if class_names is None else class_names[c])
    confidence[~is_known] = np.nan
    informative = len(unclear) < classes
    # Classes are judged apart: how many sets are wholly right is taken as the product.
    rate = 1.0 - all_right if informative else math.nan
    return LabelSetBeliefs(
        probabilities=probabilities,
        confidence=confidence,
        doubted=doubted,
        noise_rate=rate,
        noise_interval=noise_interval(rate, anchors, int(is_known.sum())),
        informative=informative,
        message=_message(unclear, classes),
        groups=shared.groups,
        table=shared.table,
    )


def _message(unclear: list[str], classes: int) -> str:
    if not unclear:
        return ""
    some = ", ".join(unclear[:NAMED]) + (", ..." if len(unclear) > NAMED else "")
    which = (
        "any class" if len(unclear) == classes else f"{len(unclear)} of {classes} classes ({some})"
    )
    return (
        f"these features say too little about {which} to doubt labels there; use the features of a "
        "stronger backbone"
    )


class _Shared:
    """What judging every class has in common."""

    def __init__(self, rows: FeatureBlocks, known: npt.NDArray[np.bool_]) -> None:
        self.rows, self.known = rows, known
        sums = LabelSums.of(rows.d, 2)
        every = np.where(known, 0, -1)
        for part, block in rows.blocks():
            sums.add(block, one_hot(every[part], 2))
        self.filter = LabelFilter(sums)
        self.table: NeighborTable | None = None
        self.groups: list[Places] = []
        if rows.n <= NEIGHBOR_ROWS:
            self.table, self.groups = find_neighbors(rows, self.filter)
        self.leverages: dict[tuple[float, ...], Tensor] = {}

    def judge(self, has: npt.NDArray[np.bool_]) -> tuple[Floats, Floats, float, Outcome | None]:
        """Judges one class: that what is given is right, (n,), and that it applies, (n,).

        Also the share of wrong ones, and how that came: None where the class is given to all or
        to none, and nothing can be said.
        """
        labels = np.where(self.known, has.astype(np.int64), -1)
        counts = np.bincount(labels[self.known], minlength=2)
        if counts.min() == 0:
            return np.ones(len(has)), np.full(len(has), float(counts[0] == 0)), 0.0, None
        signal = one_hot(labels, 2)
        products = torch.zeros(self.rows.d, 2, dtype=torch.float64)
        for part, block in self.rows.blocks():
            products += transposed_product(signal[part], block)
        self.filter.signal(products, torch.from_numpy(counts).double())
        gatherer = _ClassGatherer(self, labels)
        outcome = judged_outcome(gatherer, Clock(), 0)
        columns = belief_columns(gatherer, outcome)
        applies = columns.shares[:, 1].astype(np.float64)
        right = np.where(self.known, columns.confidence, 1.0)
        return right, applies, columns.wrong, outcome


class _ClassGatherer(Gatherer):
    """Evidence about one class; leverages are those of all classes."""

    def __init__(self, shared: _Shared, labels: Places) -> None:
        super().__init__(shared.rows, labels, 2, shared.filter, shared.table, shared.groups)
        self.shared = shared

    def leverages(self, which: Places, penalties: list[float]) -> Tensor:
        """Of some examples: (b, penalties); a sample is the same for every class."""
        key = (len(which), *penalties)
        if key not in self.shared.leverages:
            self.shared.leverages[key] = super().leverages(which, penalties)
        return self.shared.leverages[key]
