"""Ridge regression with a free constant, fitted anew without each example: by definition."""

from __future__ import annotations

import numpy as np


def fitted(rows, signal, penalty):
    """Coefficients (d, C) and constant (C,) of the least squares with ``penalty * |w|^2``."""
    mean, level = rows.mean(axis=0), signal.mean(axis=0)
    centered = rows - mean
    # As an ordinary least-squares problem: no normal equations.
    left = np.vstack([centered, np.sqrt(penalty) * np.eye(rows.shape[1])])
    right = np.vstack([signal - level, np.zeros((rows.shape[1], signal.shape[1]))])
    weights = np.linalg.lstsq(left, right, rcond=None)[0]
    return weights, level - mean @ weights


def refitted_scores(rows, signal, penalty, groups=None):
    """What a fit without example i, or without its whole group, says of i: (n, C).

    ``signal`` has rows of zeros for examples without a label; ``groups`` is a number an example.
    """
    groups = np.arange(len(rows)) if groups is None else groups
    labeled = signal.any(axis=1)
    found = np.empty(signal.shape)
    for i in range(len(rows)):
        others = labeled & (groups != groups[i])
        weights, constant = fitted(rows[others], signal[others], penalty)
        found[i] = rows[i] @ weights + constant
    return found
