"""Clusters of the features seeded by labels, and votes of neighbors, one example after another."""

from __future__ import annotations

import numpy as np


def clusters_by_class(rows, labels, classes, steps):
    """Spherical k-means from the class means, where large directions are evened: (n,)."""
    left, sizes, _ = np.linalg.svd(rows - rows.mean(axis=0), full_matrices=False)
    places = (left * sizes * (sizes[0] / sizes) ** 0.5)[:, :128]  # fourth root of eigenvalues
    places = [place / np.linalg.norm(place) for place in places]
    found = list(labels)
    for _ in range(steps):
        centers = []
        for c in range(classes):
            total = sum(place for place, own in zip(places, found, strict=True) if own == c)
            centers.append(total / np.linalg.norm(total))
        found = [int(np.argmax([place @ center for center in centers])) for place in places]
    return np.array(found)


def voted_classes(neighbors, similarities, labels, classes):
    """The class with the most votes, each the fourth power of its cosine: (n,)."""
    found = []
    for near, cosines in zip(neighbors, similarities, strict=True):
        votes = np.zeros(classes)
        for other, cosine in zip(near, cosines, strict=True):
            votes[labels[other]] += max(float(cosine), 0.0) ** 4
        found.append(int(votes.argmax()))
    return np.array(found)
