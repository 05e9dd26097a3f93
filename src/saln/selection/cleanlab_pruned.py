"""Pruning by confident learning, then a uniform choice: the usual remedy for wrong labels."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch

from saln.labels.confident_learning import confident_learning
from saln.selection.candidates import Candidates, Selection
from saln.selection.contract import Selector
from saln.selection.neighbor_beliefs import MOST_CLASSES, NeighborBeliefs
from saln.selection.sampling import top_k


def beliefs_by_cleanlab(features: Any, labels: Any, classes: int) -> NeighborBeliefs:
    """What cleanlab makes of labels: confidence is 0 where it doubts one, else 1.

    ``labels`` are int, (n,): below ``classes``, of which not all need occur; -1 where there is
    none. Raises MissingExtraError without cleanlab.
    """
    given = np.asarray(labels, dtype=np.int64)
    found = confident_learning(features, given)
    likeliest = found.classes[found.probabilities.argmax(axis=1)]
    believed = np.where(found.doubted, likeliest, given)  # -1 of what has no label
    size = classes if classes <= MOST_CLASSES else 0
    transition = np.eye(size)
    if size:
        counts = np.zeros((size, size))
        known = given >= 0
        np.add.at(counts, (believed[known], given[known]), 1)
        total = counts.sum(axis=1, keepdims=True)
        transition = np.where(total > 0, counts / np.maximum(total, 1), transition)
    confidence = (~found.doubted & (given >= 0)).astype(np.float64)
    return NeighborBeliefs(
        torch.from_numpy(confidence),
        torch.from_numpy(believed),
        torch.from_numpy(transition),
        float(found.doubted.mean()),
    )


class CleanlabPruned(Selector):
    """Keeps ``k`` candidates whose labels are not doubted, each set of ``k`` equally likely.

    Whoever feeds the selector has cleanlab doubt them (Northcutt et al., Confident Learning, JAIR
    2021, arXiv 1911.00068), once for the whole data set, on held-out probabilities of a logistic
    regression on the features whose regularization is the likeliest. A confidence below 0.5 is a
    doubt. Where fewer than ``k`` are left, some of the doubted fill up the batch.
    """

    judge: ClassVar[str] = "cleanlab"
    requires: ClassVar[frozenset[str]] = frozenset({"label_confidence"})
    summary: ClassVar[str] = (
        "at random among labels that cleanlab does not doubt (arXiv 1911.00068); costs features "
        "and a cross-validated regression before the first step; needs the extra cleanlab"
    )

    def choose(self, candidates: Candidates, k: int, generator: torch.Generator) -> Selection:
        """Draws without replacement."""
        confidence = candidates.need("label_confidence")
        # Below 1: no draw puts a doubted one before one that is not.
        draw = torch.rand(len(candidates), generator=generator, dtype=torch.float64)
        keys = draw + (confidence >= 0.5).cpu()
        return Selection(top_k(keys, k), scores=confidence.cpu())
