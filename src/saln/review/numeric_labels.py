r"""Which numbers of a regression are wrong, by what all other examples make of each.

Ridge regression says of each example what a fit without it would, exactly and without fitting
again (:mod:`saln.spectral.label_filter`). Its residuals are a mixture: those of right numbers lie
around 0, those of wrong ones farther, or as if the number belonged to another example. Where that
finds wrong ones, what is expected takes their place, and all is done again while the given numbers
get likelier by it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.sparse
import torch

from saln.errors import InputError
from saln.features.neighbors import NeighborTable
from saln.labels.evidence import NEIGHBOR_ROWS, find_neighbors
from saln.labels.feature_blocks import FeatureBlocks, batches
from saln.spectral.label_filter import FULL_LEVERAGE, LabelFilter, LabelSums, transposed_product

# Penalties, as shares of the sum of the eigenvalues.
PENALTIES = tuple(10.0 ** (step / 2) for step in range(-12, 3))
# Expected numbers take the place of doubted ones while that gains so much likelihood, so often.
GAIN = 5e-3
ROUNDS = 4
# Of the mean error of the median, what features must explain.
INFORMATIVE = 0.02
# Errors count for no more than this, where a usual deviation from the median is 1.
FARTHEST = 3.0
# Numbers without which nothing can be said of how right ones scatter.
FEWEST = 10
# Makes a median absolute deviation the standard deviation of a normal distribution.
NORMAL = 1.4826
# Wrong numbers scatter at least this many times as wide as right ones, and as half of all do.
WIDER = 2.0
SPREAD = 1.0 / NORMAL
# More of the numbers are never called wrong: the others would be those to doubt.
MOST = 0.5
STEPS = 500
STILL = 1e-10

Floats = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]


@dataclass(frozen=True)
class NumberBeliefs:
    """What all other examples make of each number."""

    confidence: Floats  # (n,): the probability that the given number is right; NaN without one
    expected: Floats  # (n,): the number by the others alone
    scale: float  # How far right numbers lie from what is expected: a standard deviation
    noise_rate: float  # The estimated share of wrong numbers; NaN where the features tell nothing
    noise_interval: tuple[float, float]  # Where it lies, with 95% confidence
    # Whether the features predict the numbers better than their median does; else none is doubted.
    informative: bool
    message: str  # What a person should know, in words; empty when all is well
    penalty: float  # The ridge's, as a share of the features' variance
    groups: list[Places]  # Near duplicates: rows that say nothing of each other
    table: NeighborTable | None  # The nearest rows; None without


def judge_numbers(features: Any, numbers: npt.ArrayLike) -> NumberBeliefs:
    """How likely each of n numbers is right, by all the others; NaN is unknown.

    Features are (n, d), all finite. InputError for not one number a row, an infinite one, or fewer
    than ten.
    """
    rows = FeatureBlocks(features)
    given = np.asarray(numbers, dtype=np.float64)
    if given.shape != (rows.n,) or np.isinf(given).any():
        raise InputError(
            f"{rows.n} rows of features and numbers {given.shape}; give one finite number a row, "
            "NaN where it is unknown"
        )
    known = np.isfinite(given)
    if known.sum() < FEWEST:
        raise InputError(f"{int(known.sum())} numbers are too few; give at least {FEWEST}")
    # Wrong numbers may be of any size: mean and standard deviation would be theirs.
    middle = float(np.median(given[known]))
    size = NORMAL * float(np.median(np.abs(given[known] - middle)))
    size = size or float(given[known].std()) or 1.0
    ridge = _Ridge(rows, (given - middle) / size)
    best = _rounds(ridge, known)
    mixture, informative = best.mixture, bool(best.gain > INFORMATIVE)
    confidence = np.full(rows.n, np.nan)
    confidence[known] = best.right if informative else 1.0
    between = mixture.interval(best.residuals, ridge.given[known])
    message = (
        "these features predict the numbers little better than their median does, so no number "
        "is doubted; use the features of a stronger backbone"
    )
    return NumberBeliefs(
        confidence=confidence,
        expected=best.expected * size + middle,
        scale=mixture.right * size,
        noise_rate=float(1.0 - best.right.mean()) if informative else math.nan,
        noise_interval=between if informative else (math.nan, math.nan),
        informative=informative,
        message="" if informative else message,
        penalty=best.penalty,
        groups=ridge.groups,
        table=ridge.table,
    )


class _Mixture(NamedTuple):
    """Right numbers, normal around what is expected, and two kinds of wrong ones.

    Those of ``far`` lie around what is expected, too, by a Cauchy distribution: a slip, however
    large. Those of ``other`` have nothing to do with it, and lie as numbers do in this data set,
    by another: one that belongs to another example.
    """

    far: float
    other: float
    right: float
    wrong: float
    likelihood: float

    def densities(self, residuals: Floats, numbers: Floats) -> tuple[Floats, Floats, Floats]:
        """Of right, far and other numbers, each with its share."""
        right = np.exp(-0.5 * (residuals / self.right) ** 2) / (self.right * math.sqrt(2 * math.pi))
        far, other = _cauchy(residuals, self.wrong), _cauchy(numbers, 1.0)
        return (1 - self.far - self.other) * right, self.far * far, self.other * other

    def interval(self, residuals: Floats, numbers: Floats) -> tuple[float, float]:
        """The share of wrong ones with 95% confidence, by how much likelihood it costs to move."""
        right, far, other = self.densities(residuals, numbers)
        share = self.far + self.other
        slope = ((far + other) / share - right / (1 - share)) / np.maximum(
            right + far + other, 1e-300
        )
        error = 1.96 / math.sqrt(max(float((slope**2).sum()), 1e-12))
        return max(0.0, share - error), min(1.0, share + error)


def _cauchy(values: Floats, scale: float) -> Floats:
    return np.asarray(1.0 / (math.pi * scale * (1.0 + (values / scale) ** 2)))


def fit_mixture(residuals: Floats, numbers: Floats) -> tuple[_Mixture, Floats]:
    """The likeliest mixture, by expectation and maximization; and how likely each is right.

    By how far n numbers are from what is expected, and themselves, around 0 and of size 1.
    """
    right = max(NORMAL * float(np.median(np.abs(residuals))), 1e-9)
    mixture = _Mixture(0.05, 0.05, right, max(1.0, 3 * right), -math.inf)
    of_right = np.ones(len(residuals))
    for _ in range(STEPS):
        one, far, other = mixture.densities(residuals, numbers)
        total = np.maximum(one + far + other, 1e-300)
        likelihood, of_right = float(np.log(total).mean()), one / total
        if likelihood - mixture.likelihood < STILL:
            break
        right = math.sqrt(float(of_right @ residuals**2) / max(float(of_right.sum()), 1e-9))
        # Of a Cauchy distribution: far residuals count less the farther they are.
        of_far = far / total
        heard = of_far * 2.0 / (1.0 + (residuals / mixture.wrong) ** 2)
        wrong = math.sqrt(float(heard @ residuals**2) / max(float(of_far.sum()), 1e-9))
        right = max(right, 1e-9)
        shares = [max(float(part.mean()), 1e-4) for part in (of_far, other / total)]
        scale = min(1.0, MOST / sum(shares))
        wrong = max(wrong, WIDER * right, SPREAD)
        mixture = _Mixture(scale * shares[0], scale * shares[1], right, wrong, likelihood)
    return mixture, of_right


class _Round(NamedTuple):
    """What a round of judging gives: ``right`` and ``residuals`` are of known numbers alone."""

    penalty: float
    expected: Floats
    residuals: Floats
    mixture: _Mixture
    right: Floats
    gain: float  # of what the median is wrong by, the share that features explain


def _rounds(ridge: _Ridge, known: npt.NDArray[np.bool_]) -> _Round:
    """Expected numbers in the place of doubted ones, while given ones get likelier by that."""
    given = ridge.given[known]
    best: _Round | None = None
    cut = bool((np.abs(given) <= FARTHEST).all())  # whether there is nothing to cut off
    for _ in range(ROUNDS + 2):
        heard = np.ones(len(given)) if best is None else best.right
        penalty, expected, leverage = ridge.left_out(heard)
        # An example with a high leverage is predicted less well by the others.
        residuals = (given - expected[known]) * np.sqrt(1.0 - leverage[known])
        mixture, right = fit_mixture(residuals, given)
        error = float(_off(given - expected[known]).mean())
        gain = 1.0 - error / max(float(_off(given).mean()), 1e-300)
        if best is not None and mixture.likelihood < best.mixture.likelihood + GAIN:
            break
        # Whether features tell anything is known before expected numbers are among the given.
        gain = gain if best is None else best.gain
        best = _Round(penalty, expected, residuals, mixture, right, gain)
        if gain <= INFORMATIVE and not cut:
            # A few numbers that are far too large, such as ten times the right ones, can be all
            # that a fit by squares follows. Taken for less, they leave it to the others.
            cut, best = True, None
            ridge.speak(known, np.clip(given, -FARTHEST, FARTHEST))
            continue
        if gain <= INFORMATIVE:
            break
        ridge.speak(known, right * given + (1.0 - right) * expected[known])
    if best is None:
        raise InputError("no round of judging was asked for")
    return best


class _Ridge:
    """Ridge regression with a free constant, left-out predictions for every penalty at once.

    What is ``given`` are n numbers around 0 and of size 1; NaN where unknown.
    """

    def __init__(self, rows: FeatureBlocks, given: Floats) -> None:
        self.rows, self.given = rows, given
        self.signal = _signal(given)
        sums = LabelSums.of(rows.d, 1)
        for part, block in rows.blocks():
            sums.add(block, self.signal[part])
        self.filter = LabelFilter(sums)
        self.table: NeighborTable | None = None
        self.groups: list[Places] = []
        if rows.n <= NEIGHBOR_ROWS:
            self.table, self.groups = find_neighbors(rows, self.filter)
        grouped = np.zeros(rows.n, dtype=bool)
        for group in self.groups:
            grouped[group] = True
        self.single = ~grouped

    def speak(self, known: npt.NDArray[np.bool_], numbers: Floats) -> None:
        """Puts other numbers in the place of the known ones."""
        every = np.full(self.rows.n, np.nan)
        every[known] = numbers
        self.signal = _signal(every)
        products = torch.zeros(self.rows.d, 1, dtype=torch.float64)
        for part, block in self.rows.blocks():
            products += transposed_product(self.signal[part], block)
        self.filter.signal(products, torch.tensor([numbers.sum()], dtype=torch.float64))

    def left_out(self, heard: Floats) -> tuple[float, Floats, Floats]:
        """What the others predict, under the penalty whose left-out error is least.

        The error of each known number counts for what is ``heard`` of it. Gives the penalty, as a
        share; what is expected, (n,); the leverages, (n,).
        """
        penalties = np.array(PENALTIES) * self.filter.scale
        gains = 1.0 / (self.filter.values[:, None] + torch.from_numpy(penalties))
        expected = np.empty((self.rows.n, len(penalties)))
        leverage = np.empty_like(expected)
        spoken = np.asarray(self.signal.sum(axis=1)).ravel()
        known = np.diff(self.signal.indptr) > 0
        for part, block in self.rows.blocks():
            z = self.filter.project(block).double()
            smoothed = (z @ (self.filter.coefficients * gains) + self.filter.shares).numpy()
            weight = (z.square() @ gains + 1.0 / self.filter.count).numpy()
            weight = np.minimum(weight, FULL_LEVERAGE) * known[part, None]
            expected[part] = (smoothed - weight * spoken[part, None]) / (1.0 - weight)
            leverage[part] = weight
        # Copies predict each other too well to choose by, where there are others.
        chosen = known & self.single if (known & self.single).sum() >= FEWEST else known
        weights = np.zeros(self.rows.n)
        weights[known] = heard
        errors = weights[chosen] @ _off(self.given[chosen, None] - expected[chosen])
        best = int(errors.argmin())
        found = expected[:, best].copy()
        self._without_groups(found, float(penalties[best]))
        return PENALTIES[best], found, leverage[:, best].copy()

    def _without_groups(self, expected: Floats, penalty: float) -> None:
        """Puts what all but its group say of each near duplicate in its place."""
        weights = self.filter.weights(penalty)
        for which, inside in batches(np.empty(0, dtype=np.int64), self.groups, 4096):
            block = self.rows.take(which).double()
            smoothed = self.filter.smoothed(block, weights)
            for part in inside:
                alone = self.filter.without_group(
                    block[part], smoothed[part], self.signal[which[part]], penalty
                )
                expected[which[part]] = alone[:, 0].numpy()


def _off(errors: Floats) -> Floats:
    """Sizes of errors; of how far off the farthest are, nothing shall depend."""
    return np.minimum(np.abs(errors), FARTHEST)


def _signal(numbers: Floats) -> Any:
    """Numbers as a signal of one column, CSR; a known 0 is held, what is NaN is not."""
    known = np.isfinite(numbers)
    indptr = np.concatenate([[0], np.cumsum(known)])
    columns = np.zeros(int(known.sum()), dtype=np.int64)
    return scipy.sparse.csr_array((numbers[known], columns, indptr), shape=(len(numbers), 1))
