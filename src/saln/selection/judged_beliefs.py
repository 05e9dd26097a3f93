"""Beliefs of :func:`saln.judge_labels` in the form that neighbors give theirs in."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from saln.labels.beliefs import LabelBeliefs
from saln.labels.judge import judge_labels
from saln.selection.neighbor_beliefs import MOST_CLASSES, NeighborBeliefs


def judged_beliefs(features: Any, labels: Any, classes: int) -> NeighborBeliefs:
    """What :func:`saln.judge_labels` believes, as :func:`saln.label_beliefs` would say it.

    ``labels`` are int, (n,): below ``classes``, of which not all need occur; -1 where there is
    none. Confidence is 0 where there is no label or there are no features. Raises as
    ``judge_labels``.
    """
    return as_neighbor_beliefs(judge_labels(features, labels), classes)


def as_neighbor_beliefs(judged: LabelBeliefs, classes: int) -> NeighborBeliefs:
    """What was judged, as :func:`saln.label_beliefs` would say it."""
    transition = torch.eye(classes if classes <= MOST_CLASSES else 0, dtype=torch.float64)
    if len(transition):
        found = judged.transition
        dense = found if isinstance(found, torch.Tensor) else torch.from_numpy(found.toarray())
        # A class that does not occur keeps its 1.
        there = torch.from_numpy(np.asarray(judged.classes))
        transition[there[:, None], there] = dense.double()
    return NeighborBeliefs(
        # NaN: nothing to judge; what has no label is never the better one.
        judged.confidence.nan_to_num(nan=0.0),
        judged.believed,
        transition,
        judged.noise_rate,
        None if judged.informative else judged.message,
    )
