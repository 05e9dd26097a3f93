"""Labels that judges of labels get wrong, with what must come out: for every judge alike.

A case holds features, labels as given and which of them are right. :func:`small_classes`,
:func:`long_tailed`, :func:`copies` and :func:`by_image` are data that tell something;
:func:`telling_nothing` gives those that do not, of which no judge may say how many labels are
wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from saln.randomness import derive_seed

__all__ = ["LabelCase", "by_image", "copies", "long_tailed", "small_classes", "telling_nothing"]


@dataclass(frozen=True)
class LabelCase:
    """Labels to judge.

    Attributes:
        features: float32, (n, d).
        labels: int64, (n,): as given.
        right: bool, (n,): whether each label is right.
        marked: bool, (n,): the examples that the case is about: those of small classes, or
            copies.
        classes: How many classes there are.
    """

    features: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    right: npt.NDArray[np.bool_]
    marked: npt.NDArray[np.bool_]
    classes: int


def _random(*seed: object) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(derive_seed("label cases", *seed)))


def _clusters(
    sizes: Sequence[int], d: int, spread: float, random: np.random.Generator
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Features around a center a class, in random order; the labels; the centers."""
    centers = random.standard_normal((len(sizes), d))
    labels = random.permutation(np.repeat(np.arange(len(sizes)), sizes))
    features = centers[labels] + spread * random.standard_normal((len(labels), d))
    return features, labels, centers


def small_classes(
    sizes: Sequence[int] = (1, 2, 3),
    *,
    large: int = 10,
    rows: int = 60,
    noise: float = 0.0,
    wrongly: int = 0,
    d: int = 32,
    spread: float = 0.5,
    seed: int = 0,
) -> LabelCase:
    """Some classes of few examples, well apart from others and all with right labels: marked.

    Args:
        sizes: Examples of each small class.
        large: Large classes.
        rows: Examples of each.
        noise: The share of the large classes' labels that are wrong, among themselves.
        wrongly: So many examples of the first large class are labeled as the last small one.
        d: Features.
        spread: Within a class; between classes it is 1.
        seed: Decides all.
    """
    random = _random("small", seed)
    features, truth, _ = _clusters([*sizes, *[rows] * large], d, spread, random)
    small = len(sizes)
    labels = truth.copy()
    flipped = (truth >= small) & (random.random(len(truth)) < noise)
    shift = random.integers(1, max(large, 2), len(truth))
    labels[flipped] = small + (truth[flipped] - small + shift[flipped]) % large
    labels[np.flatnonzero(truth == small)[:wrongly]] = small - 1
    return LabelCase(
        features.astype(np.float32), labels, labels == truth, truth < small, small + large
    )


def long_tailed(
    *,
    classes: int = 10,
    most: int = 400,
    least: int = 4,
    d: int = 32,
    spread: float = 0.7,
    seed: int = 0,
) -> LabelCase:
    """Clean classes, each rarer than the one before by one factor; the rarest is marked."""
    random = _random("tail", seed)
    sizes = np.geomspace(most, least, classes).round().astype(int)
    features, labels, _ = _clusters(sizes.tolist(), d, spread, random)
    right = np.ones(len(labels), dtype=bool)
    return LabelCase(features.astype(np.float32), labels, right, labels == classes - 1, classes)


def copies(
    count: int,
    *,
    jitter: float = 0.001,
    wrong: bool = True,
    half: bool = False,
    pictures: int = 1,
    rows: int = 1000,
    classes: int = 10,
    noise: float = 0.0,
    d: int = 32,
    spread: float = 0.8,
    seed: int = 0,
) -> LabelCase:
    """Near copies of some pictures, all of a picture with one label: marked.

    Args:
        count: Copies of each picture.
        jitter: By how much copies differ; examples of a class do by ``spread``.
        wrong: Whether their label is.
        half: Give every second copy the right label.
        pictures: How many pictures are copied, each of a class of its own.
        rows: Other examples.
        classes: Of those.
        noise: The share of the others' labels that are wrong.
        d: Features.
        spread: Within a class; between classes it is 1.
        seed: Decides all.
    """
    random = _random("copies", seed)
    sizes = [rows // classes] * classes
    features, truth, centers = _clusters(sizes, d, spread, random)
    labels = truth.copy()
    flipped = random.random(len(truth)) < noise
    labels[flipped] = (truth[flipped] + random.integers(1, classes, flipped.sum())) % classes
    for picture in range(pictures):
        original = centers[picture] + spread * random.standard_normal(d)
        near = original + jitter * random.standard_normal((count, d))
        given = np.full(count, picture)
        if wrong:
            given[:: 2 if half else 1] = (picture + 4) % classes
        features = np.concatenate([features, near])
        truth = np.concatenate([truth, np.full(count, picture)])
        labels = np.concatenate([labels, given])
    marked = np.arange(len(labels)) >= sum(sizes)
    return LabelCase(features.astype(np.float32), labels, labels == truth, marked, classes)


def telling_nothing(rows: int = 120, classes: int = 3) -> dict[str, LabelCase]:
    """By name: features or labels of which nothing can be learned about wrong labels.

    Names begin with what tells nothing, ``features`` or ``labels``.
    """
    random = _random("nothing")
    labels = np.arange(rows) % classes
    rows_of_classes, _, _ = _clusters([rows // classes] * classes, 8, 0.3, random)
    drawn = random.standard_normal((rows, 8))
    few = np.where(np.arange(rows) % 20 == 0, 1.0, 0.0)[:, None] * drawn
    cases = {
        "features all 0": (np.zeros((rows, 8)), labels),
        "features all the same": (np.full((rows, 8), 0.1), labels),
        "features all the same row": (np.tile(drawn[:1], (rows, 1)), labels),
        "features that half precision makes 0": ((1e-30 * drawn).astype(np.float16), labels),
        "features nearly all 0": (few, labels),
        "features at random": (drawn, labels),
        "features in another order": (random.permutation(rows_of_classes), labels),
        "labels a class each": (drawn, np.arange(rows)),
        "labels nearly a class each": (drawn, np.where(np.arange(rows) < 9, 0, np.arange(rows))),
    }
    return {
        name: LabelCase(
            features.astype(np.float32),
            given,
            np.ones(rows, dtype=bool),
            np.zeros(rows, dtype=bool),
            int(given.max()) + 1,
        )
        for name, (features, given) in cases.items()
    }


def by_image(
    n: int = 1500, classes: int = 6, d: int = 48, seed: int = 0
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Clusters, and labels that a linear model of 40 of them and a third of the features gives."""
    random = np.random.default_rng(seed)
    truth = random.integers(0, classes, n)
    rows = random.normal(size=(classes, d))[truth] + 1.5 * random.normal(size=(n, d))
    part = np.c_[rows[:, : d // 3], np.ones(n)]
    labels = (part @ np.linalg.pinv(part[:40]) @ np.eye(classes)[truth[:40]]).argmax(axis=1)
    return rows, labels, labels == truth
