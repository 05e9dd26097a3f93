"""Coherence by its definition: slow loops in float64, written apart from the library."""

from __future__ import annotations

import math

import numpy as np
from scipy.optimize import brentq
from scipy.stats import binomtest, norm

LEVEL_OF_ONE_SE = float(norm.cdf(1) - norm.cdf(-1))


def neighbors(features: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest by cosine of mean-centered features; of equals the lower index first."""
    rows = [[float(value) for value in row] for row in features]
    n, d = len(rows), len(rows[0])
    mean = [math.fsum(row[c] for row in rows) / n for c in range(d)]
    centered = [[row[c] - mean[c] for c in range(d)] for row in rows]
    length = [math.sqrt(math.fsum(value * value for value in row)) for row in centered]
    indices, similarities = [], []
    for i in range(n):
        found = []
        for j in range(n):
            if j == i:
                continue
            product = math.fsum(a * b for a, b in zip(centered[i], centered[j], strict=True))
            ok = length[i] > 1e-9 and length[j] > 1e-9
            cosine = product / (length[i] * length[j]) if ok else 0.0
            found.append((-round(cosine, 9), j))
        found.sort()
        indices.append([j for _, j in found[:k]])
        similarities.append([-value for value, _ in found[:k]])
    return np.array(indices), np.array(similarities)


def pictures(indices: np.ndarray, similarities: np.ndarray, labels: np.ndarray) -> list[int]:
    """The picture of each example, as the first example that is a copy of it."""
    n = len(labels)
    first = list(range(n))
    if n < 2:
        return first
    near = 0.02 * float(np.median(1 - similarities[:, -1]))
    if near <= 1e-6:
        return first
    changed = True
    while changed:
        changed = False
        for i in range(n):
            for j, s in zip(indices[i], similarities[i], strict=True):
                if 1 - s < near and labels[i] == labels[j] and first[i] != first[j]:
                    first[i] = first[j] = min(first[i], first[j])
                    changed = True
    return first


def graph(
    indices: np.ndarray, similarities: np.ndarray, labels: np.ndarray
) -> tuple[list[int], list[list[tuple[int, float]]]]:
    """The picture of each example, from 0, and the neighbors of each picture, with weights."""
    first = pictures(indices, similarities, labels)
    names = sorted(set(first))
    picture = [names.index(one) for one in first]
    k = indices.shape[1]

    def nearest(pairs: list[tuple[int, int, float]]) -> list[dict[int, float]]:
        found: list[dict[int, float]] = [{} for _ in names]
        for a, b, weight in pairs:
            if a != b:
                found[a][b] = max(found[a].get(b, 0.0), weight)
        return found

    pairs = [
        (picture[i], picture[j], max(float(s), 0.0))
        for i in range(len(labels))
        for j, s in zip(indices[i], similarities[i], strict=True)
    ]
    found = nearest(pairs)
    few = [2 * len(found[a]) < k and picture.count(a) > 1 for a in range(len(names))]
    known = [(a, b, weight) for a in range(len(names)) for b, weight in found[a].items()]
    found = nearest(known + [(b, a, weight) for a, b, weight in known if few[b]])
    rows = [sorted(one.items(), key=lambda item: (-item[1], item[0]))[:k] for one in found]
    return picture, rows


def strangeness(
    rows: list[list[tuple[int, float]]], labels: list[int], reach: float
) -> list[float]:
    """How much each picture is too far away, and its class too small, to be voted for."""
    nearness = [math.fsum(w for _, w in row) / max(len(row), 1) for row in rows]
    strange = []
    for i, row in enumerate(rows):
        usual = math.fsum(nearness[j] for j, _ in row) / max(len(row), 1)
        far = 1 - nearness[i] / (reach * usual) if nearness[i] < reach * usual else 0.0
        empty = max(0.0, 1 - (labels.count(labels[i]) - 1) / max(len(row), 1))
        strange.append(far * empty)
    return strange


def disagree(margin: list[float], majority: list[int], labels: list[int], share: float) -> tuple:
    """Of the share with the widest margins, how many are labeled otherwise, and of how many."""
    widest = sorted(range(len(labels)), key=lambda i: -margin[i])[: math.ceil(share * len(labels))]
    return sum(1 for i in widest if labels[i] != majority[i]), len(widest)


def beliefs(
    indices: np.ndarray,
    similarities: np.ndarray,
    labels: np.ndarray,
    classes: int,
    shared_noise: float = 0.0,
    rounds: int = 3,
    calibrated: bool = True,
) -> tuple[np.ndarray, np.ndarray, float, np.ndarray]:
    """Posterior (n, C), transition (C, C), the share of wrong labels, the believed classes (n,).

    Entry by entry; every class is one that occurs. What is believed is the label or a class that
    a neighbor may be of.
    """
    picture, rows = graph(indices, similarities, labels)
    m = len(rows)
    given = [int(labels[picture.index(a)]) for a in range(m)]
    reach, alone = (0.7, 0.003) if calibrated else (0.6, 0.0005)
    strange = strangeness(rows, given, reach)
    strange_if_clean = strangeness(rows, given, 1.0)
    totals = [math.fsum(weight for _, weight in row) for row in rows]
    heard = [a for a in range(m) if totals[a] > 0]
    belief = [{given[a]: 1.0} for a in range(m)]
    transition, wrong = np.eye(classes), 0.0
    after = np.zeros((m, classes))
    after[np.arange(m), given] = 1.0
    shares: list[dict[int, float]] = [{} for _ in range(m)]
    for _ in range(rounds if heard else 0):
        shares = [dict.fromkeys([given[a]], 0.0) for a in range(m)]
        for a in heard:
            for c in {c for j, w in rows[a] if w > 0 for c in belief[j]}:
                said = math.fsum(w * belief[j].get(c, 0.0) for j, w in rows[a])
                shares[a][c] = said / totals[a]
        majority, margin = [0] * m, [0.0] * m
        for a in range(m):
            ordered = sorted((-round(share, 9), c) for c, share in shares[a].items())
            majority[a] = ordered[0][1]
            second = -ordered[1][0] if len(ordered) > 1 else 0.0
            margin[a] = round(-ordered[0][0] - second, 9) * (1 - strange[a])
        right = confident_total = 0
        counts = np.zeros((classes, classes))
        for c in range(classes):
            members = sorted((a for a in heard if majority[a] == c), key=lambda a: -margin[a])
            confident = members[: math.ceil(0.1 * len(members))]
            for b in range(classes):
                counts[c, b] = sum(1 for a in confident if given[a] == b)
            right += sum(1 for a in confident if given[a] == c)
            confident_total += len(confident)
        wrong = 1 - right / confident_total
        for c in range(classes):
            seen = counts[c].sum() + shared_noise
            for b in range(classes):
                alike = 1 - wrong if b == c else wrong / (classes - 1)
                share = (counts[c, b] + shared_noise * alike) / seen if seen else float(b == c)
                transition[c, b] = (share + 0.02 / classes) / 1.02
        sub = [[values[a] for a in heard] for values in (margin, majority, given)]
        clean = 0.0
        if not calibrated:
            no, of = disagree(*sub, 0.4)
            clean = max(0.0, 1 - no / of / 0.12)
        after = np.zeros((m, classes))
        for a in range(m):
            y = given[a]
            far = strange[a] + clean * (strange_if_clean[a] - strange[a])
            one = 1.0 if a in heard else 0.0
            votes = [(one * (1 - far) * shares[a].get(c, 0.0)) for c in range(classes)]
            votes[y] += one * far
            said = [((vote + 0.05 / classes) / (one + 0.05)) ** 4 for vote in votes]
            least = 0.4 ** (given.count(y) - 1) * (alone + clean * (0.3 - alone))
            said[y] = max(said[y], least * max(said[c] for c in shares[a]))
            said = [said[c] * transition[c, y] for c in range(classes)]
            after[a] = [value / math.fsum(said) for value in said]
            belief[a] = {c: after[a, c] for c in shares[a] if after[a, c] >= 1e-6}
    if calibrated and heard:
        hits, of = disagree(*sub, 0.1)
        wrong = hits / of
        upper = binomtest(hits, of).proportion_ci(LEVEL_OF_ONE_SE, method="wilson").high
        after = with_doubt(after, np.array(given), upper)
    rows_of = list(labels)
    for a in range(m):
        size = list(picture).count(a)
        if classes > 1 and not rows[a] and 1 < size <= rows_of.count(given[a]) / 2:
            after[a, given[a]] = min(after[a, given[a]], 0.5)
    likely = [max([given[a], *shares[a]], key=lambda c: after[a, c]) for a in range(m)]
    return after[picture], transition, wrong, np.array(likely)[picture]


def with_doubt(posterior: np.ndarray, labels: np.ndarray, doubt: float) -> np.ndarray:
    """The posteriors with the odds of the labels times what brings the mean doubt down to it."""
    own = np.eye(posterior.shape[1], dtype=bool)[labels]

    def raised(log_odds: float) -> np.ndarray:
        weights = np.where(own, posterior * math.exp(log_odds), posterior)
        return weights / weights.sum(axis=1, keepdims=True)

    def surplus(log_odds: float) -> float:
        return float(1 - raised(log_odds)[own].mean() - doubt)

    return posterior if surplus(0.0) <= 0 else raised(brentq(surplus, 0.0, 200.0, xtol=1e-12))


def keep_probabilities(confidence: np.ndarray, k: int) -> dict[frozenset[int], float]:
    """The law of the kept set: draws without replacement, each in proportion to what is left."""
    law = {frozenset(): 1.0}
    for _ in range(k):
        longer: dict[frozenset[int], float] = {}
        for kept, probability in law.items():
            left = [i for i in range(len(confidence)) if i not in kept]
            total = math.fsum(confidence[i] for i in left)
            for i in left:
                key = kept | {i}
                longer[key] = longer.get(key, 0.0) + probability * confidence[i] / total
        law = longer
    return law
