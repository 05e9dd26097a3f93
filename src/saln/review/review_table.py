"""What is believed of every label of a data set, a row an example: the file that people open."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

# What may be decided of an example. The new label of ``believe`` and ``relabel`` stands in the
# column ``label``; ``keep`` says that the given label is right; ``drop`` takes the example out.
DECISIONS = ("believe", "keep", "relabel", "drop")
# The columns of labels.csv and labels.parquet, in this order. Unknown numbers are empty.
COLUMNS = (
    *("id", "split", "given", "believed", "probability", "margin", "group", "outlier"),
    *("problem", "decision", "label", "key"),
)
# The columns of decisions.csv, which the page saves and ``saln labels apply`` takes; ``review``
# is the absolute path of the folder that the page lies in. More columns are allowed.
DECISION_COLUMNS = ("id", "split", "given", "decision", "label", "key", "review")


@dataclass(frozen=True)
class ReviewTable:
    """One row an example, in the order of :class:`~saln.review.review_items.ReviewItems`.

    Attributes:
        dataset: The data set's specification, with absolute paths.
        task: ``"classes"``, ``"multi-label"`` (labels joined by ``;``) or ``"regression"``.
        class_names: One name a class; empty for regression.
        ids: (n,): distinct.
        splits: (n,).
        given: (n,): the label as text; empty where there is none.
        believed: (n,): the likeliest label as text; empty where nothing is believed.
        probability: float64, (n,): that the given label is right; NaN where there is none, or no
            features.
        margin: float64, (n,): probability of the given label less that of the likeliest other,
            from -1 to 1; NaN as above.
        group: int64, (n,): the number of its group of near duplicates, from 0; -1: in none.
        outlier: float64, (n,): from 0 (among its like) to 1 (like nothing else); NaN unknown.
        problem: (n,): what is wrong with the example itself, such as ``"unreadable: ..."``,
            ``"tiny"``, ``"blank"``; empty where nothing is.
        contradicting: int32, (n, 3): rows of the nearest examples that carry another label than
            this one, nearest first; -1 where there are fewer.
        decision: (n,): one of :data:`DECISIONS`, or empty: undecided.
        label: (n,): the label that the decision leads to; empty where undecided or dropped.
        keys: (n,): hashes of the examples' content.
        noise_rate: The estimated share of wrong labels; NaN unknown.
        noise_interval: Where it lies, with 95% confidence.
        informative: Whether the features tell the classes apart well enough to doubt labels.
        message: What a person should know, in words; empty when all is well.
    """

    dataset: str
    task: str
    class_names: tuple[str, ...]
    ids: Sequence[str]
    splits: Sequence[str]
    given: Sequence[str]
    believed: Sequence[str]
    probability: npt.NDArray[np.float64]
    margin: npt.NDArray[np.float64]
    group: npt.NDArray[np.int64]
    outlier: npt.NDArray[np.float64]
    problem: Sequence[str]
    contradicting: npt.NDArray[np.int32]
    decision: Sequence[str]
    label: Sequence[str]
    keys: Sequence[str]
    noise_rate: float
    noise_interval: tuple[float, float]
    informative: bool
    message: str

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def suspects(self) -> npt.NDArray[np.int64]:
        """(m,): rows whose label is more likely wrong than right, undecided, worst first."""
        undecided = np.array([not decision for decision in self.decision], dtype=bool)
        rows = np.flatnonzero((self.probability < 0.5) & undecided)
        worst_first: npt.NDArray[np.int64] = rows[np.argsort(self.probability[rows], kind="stable")]
        return worst_first
