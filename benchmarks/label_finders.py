"""How well are wrong labels found, and how many are there? Coherence beside cleanlab."""

from __future__ import annotations

import time
import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from probe_data import ProbeData
from sklearn.metrics import roc_auc_score

from saln.features.neighbours import neighbour_table
from saln.selection.coherence import NEIGHBOURS, LabelBeliefs, label_beliefs

__all__ = ["FINDERS", "beliefs_about", "finder_row"]

FINDERS = ("coherence", "cleanlab")

Row = dict[str, Any]
Labels = NDArray[np.int64]


def beliefs_about(data: ProbeData, labels: Labels) -> tuple[LabelBeliefs, float]:
    """Beliefs about the labels, and the seconds that they took, neighbour table included."""
    table = neighbour_table(data.store, NEIGHBOURS)
    started = time.perf_counter()
    beliefs = label_beliefs(
        torch.from_numpy(np.array(table.indices)),
        torch.from_numpy(np.array(table.similarities)),
        torch.from_numpy(labels),
        data.n_classes,
    )
    return beliefs, table.seconds + time.perf_counter() - started


def cleanlab_quality(data: ProbeData, labels: Labels) -> tuple[NDArray[np.float64], float, float]:
    """The label quality of cleanlab, its estimate of the share of wrong labels, and the seconds.

    As its documentation does: probabilities of a logistic regression out of sample, five
    folds, on the same features, standardised; self-confidence; confident joint.
    """
    from cleanlab.count import estimate_joint
    from cleanlab.rank import get_label_quality_scores
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    started = time.perf_counter()
    rows = (data.train - data.train.mean(axis=0)) / (data.train.std(axis=0) + 1e-6)
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        probabilities = cross_val_predict(
            LogisticRegression(C=0.01, max_iter=100), rows, labels, cv=folds, method="predict_proba"
        )
        quality = np.asarray(get_label_quality_scores(labels, probabilities), dtype=np.float64)
        joint = estimate_joint(labels, probabilities)
    return quality, 1.0 - float(np.trace(joint)), time.perf_counter() - started


def finder_row(data: ProbeData, labels: Labels, about: dict[str, Any], finder: str) -> Row:
    """How well a finder ranks the wrong labels; no AUROC where none is wrong.

    Args:
        data: Features and true labels.
        labels: The labels to judge.
        about: What the row is about.
        finder: One of :data:`FINDERS`.
    """
    wrong = labels != data.labels
    if finder == "coherence":
        beliefs, seconds = beliefs_about(data, labels)
        quality, estimate = beliefs.confidence.numpy(), beliefs.noise_rate
    else:
        quality, estimate, seconds = cleanlab_quality(data, labels)
    return {
        **about,
        "finder": finder,
        "auroc": float(roc_auc_score(wrong, -quality)) if wrong.any() else None,
        "estimated_noise_rate": estimate,
        "seconds": round(seconds, 3),
    }
