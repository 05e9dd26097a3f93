"""Which labels confident learning doubts: cleanlab's rule, on probabilities made of features.

The best that the rule can be given of frozen features: a logistic regression whose regularization
is the likeliest for labels that it has not seen. Without that it fits wrong labels, and the rule
finds few.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from saln._extras import optional_import
from saln.labels.descriptions import kept_rows
from saln.labels.feature_blocks import FeatureBlocks
from saln.labels.logistic_regression import LogisticRegression
from saln.randomness import derive_generator

FOLDS = 5
ITERATIONS = 150
# Inverse regularizations, from the strongest on, while held-out labels get likelier.
STRENGTHS = tuple(10.0 ** (step / 2) for step in range(-11, 5))


class ConfidentLearning(NamedTuple):
    """What it says of n labels; classes are the numbers that occur, in order."""

    doubted: npt.NDArray[np.bool_]  # bool, (n,)
    probabilities: npt.NDArray[np.float64]  # float64, (n, C); 0 where there are no features
    classes: npt.NDArray[np.int64]  # int64, (C,)


def confident_learning(features: Any, labels: npt.NDArray[np.int64]) -> ConfidentLearning:
    """Labels that cleanlab's ``find_label_issues`` (arXiv 1911.00068) prunes.

    Args:
        features: As :func:`saln.judge_labels` takes them; all in memory at once.
        labels: int64, (n,): class numbers; negative ones are unknown, and not doubted.

    Raises:
        MissingExtraError: cleanlab is not installed.
    """
    with optional_import("cleanlab", "the rule of cleanlab", instead="use coherence"):
        from cleanlab.filter import find_label_issues
    rows = FeatureBlocks(features)
    where = np.arange(rows.given)[kept_rows(rows)]
    known = np.flatnonzero(labels[where] >= 0)
    where = where[known]
    classes, places = np.unique(labels[where], return_inverse=True)
    doubted = np.zeros(len(labels), dtype=bool)
    probabilities = np.zeros((len(labels), len(classes)))
    if len(classes) < 2:  # nothing to tell apart
        return ConfidentLearning(doubted, probabilities, classes)
    given = torch.from_numpy(places.astype(np.int64))
    table = torch.cat([block.float() for _, block in rows.blocks()])[torch.from_numpy(known)]
    # In place: features of a large data set are in memory once.
    table -= table.mean(dim=0)
    table /= table.std(dim=0, unbiased=False) + 1e-6
    found = held_out_probabilities(table, given, len(classes)).numpy()
    probabilities[where] = found
    doubted[where] = find_label_issues(places, found, n_jobs=1)
    return ConfidentLearning(doubted, probabilities, classes)


def held_out_probabilities(rows: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Of each example by a regression that has not seen its label: float64, (n, C).

    Args:
        rows: float32, (n, d), standardized.
        labels: int64, (n,): in [0, C).
        classes: C.
    """
    folds = _folds(labels)

    def fitted(strength: float, fold: int) -> Tensor:
        seen = folds != fold
        model = LogisticRegression(strength, ITERATIONS).fit(rows[seen], labels[seen], classes)
        return model.predict_proba(rows[~seen])

    own = labels[folds == 0]
    best, first, likeliest = STRENGTHS[0], Tensor(), -torch.inf
    for strength in STRENGTHS:
        found = fitted(strength, 0)
        likelihood = float(found[torch.arange(len(own)), own].clamp_min(1e-12).log().mean())
        # It has one peak: weaker regularization only fits more of the wrong labels.
        if likelihood < likeliest:
            break
        best, first, likeliest = strength, found, likelihood
    probabilities = torch.empty(len(labels), classes, dtype=torch.float64)
    for fold in range(FOLDS):
        probabilities[folds == fold] = first if fold == 0 else fitted(best, fold)
    return probabilities / probabilities.sum(dim=1, keepdim=True)


def _folds(labels: Tensor) -> Tensor:
    """In which fold each example is held out: every class is spread over all of them."""
    shuffled = torch.randperm(len(labels), generator=derive_generator("folds"))
    order = shuffled[torch.argsort(labels[shuffled], stable=True)]
    folds = torch.empty_like(labels)
    folds[order] = torch.arange(len(labels)) % FOLDS
    return folds
