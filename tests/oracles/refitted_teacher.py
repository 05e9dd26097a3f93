"""What the others say of each example: refitted without it, with votes counted one by one."""

from __future__ import annotations

import numpy as np
from oracles.refitted_label_filter import refitted_scores


def refitted_teacher(rows, labels, classes, numbers, neighbors):
    """Probabilities of the classes by all other examples: (n, C).

    ``numbers`` are those that evidence is joined by: penalty, t, b and one level a class;
    ``neighbors`` the indices and cosines of each example's nearest.
    """
    penalty, t, b, levels = numbers
    signal = np.eye(classes)[labels]
    scores = refitted_scores(rows, signal, penalty)
    n = len(rows)
    # The others hold one less of the example's own class: by that alone they must not tell it.
    scores += (signal - signal.mean(axis=0)) / (n - 1)
    votes = np.zeros((n, classes))
    for i in range(n):
        for j, cosine in zip(*(part[i] for part in neighbors), strict=True):
            votes[i, labels[j]] += max(float(cosine), 0.0) ** 4
        votes[i] = (votes[i] / votes[i].sum() + 0.05 / classes) / 1.05
    linked = scores + 0.2 * np.log(np.maximum(scores, 0) + 0.1)
    logits = t * linked + b * np.log(votes) + levels
    found = np.exp(logits - logits.max(axis=1, keepdims=True))
    return found / found.sum(axis=1, keepdims=True)
