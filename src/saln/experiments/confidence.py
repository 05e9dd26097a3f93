"""How likely the training labels of one seed are right, for the arms that ask."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from saln.data.datasets import DataSet
from saln.experiments.reporter import Reporter
from saln.features.neighbours import NeighbourTable
from saln.selection.coherence import label_beliefs

__all__ = ["LabelConfidence", "judge_labels"]


@dataclass(frozen=True)
class LabelConfidence:
    """Attributes: float64 (N,) probabilities, and the seconds for them and the neighbours."""

    values: np.ndarray[Any, np.dtype[np.float64]]
    seconds: float


def judge_labels(
    neighbours: NeighbourTable, data: DataSet, seed: int, reporter: Reporter
) -> LabelConfidence:
    """Judges the labels as given, noise and all, by those of their neighbours."""
    started = time.perf_counter()
    beliefs = label_beliefs(
        torch.from_numpy(np.array(neighbours.indices)),
        torch.from_numpy(np.array(neighbours.similarities)),
        torch.from_numpy(data.train.labels),
        len(data.class_names),
    )
    seconds = neighbours.seconds + time.perf_counter() - started
    reporter.note(
        f"label coherence, seed {seed}: about {beliefs.noise_rate:.0%} of the training "
        "labels look wrong"
    )
    return LabelConfidence(beliefs.confidence.numpy(), seconds)
