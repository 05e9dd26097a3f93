"""Labels as a signal on the graph of the features' Gram matrix, smoothed by its spectrum.

With rows ``X`` less their mean, ``X'X = V diag(s) V'`` and ``Z = X V``, the filter
``s / (s + penalty)`` smooths the signal ``Y`` to ``P = mean(Y) + Z diag(1 / (s + penalty)) Z'Y``:
ridge regression with a free constant. What the *other* examples alone say of example i follows
without fitting again: ``(P_i - h_i Y_i) / (1 - h_i)`` with the leverage
``h_i = 1/n + sum_j Z_ij^2 / (s_j + penalty)``; of a group of examples that shall not speak for each
other, with their block of ``H`` in the place of ``h_i``. All it takes are sums over the examples:
they are made in parts, merged, and added to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse
import torch
from torch import Tensor

from saln.errors import InputError

# A leverage above this leaves nothing of the others to say, but for rounding.
FULL_LEVERAGE = 1.0 - 1e-9
# Columns of the Gram matrix that are made at once.
GRAM_COLUMNS = 128
Signal = Any  # a scipy.sparse.csr_array, (n, C)


@dataclass
class LabelSums:
    """Sums over labeled examples that tell the filter all that it needs.

    Attributes:
        count: How many examples they are of.
        total: float64, (d,): the sum of the rows.
        gram: float64, (d, d): the sum of each row's outer product with itself.
        products: float64, (d, C): the sum of each row times its signal.
        weights: float64, (C,): the sum of the signals: examples of each class.
    """

    count: float
    total: Tensor
    gram: Tensor
    products: Tensor
    weights: Tensor

    @classmethod
    def of(cls, width: int, classes: int) -> LabelSums:
        """Sums of nothing, over d = ``width`` features and C = ``classes``."""
        shapes = ((width,), (width, width), (width, classes), (classes,))
        return cls(0.0, *(torch.zeros(shape, dtype=torch.float64) for shape in shapes))

    @property
    def classes(self) -> int:
        """C."""
        return len(self.weights)

    def add(self, rows: Tensor, signal: Signal) -> None:
        """Adds examples; those whose signal is empty have no label, and are left out.

        Args:
            rows: floating, (b, d).
            signal: scipy.sparse CSR, (b, C): in each row what sums to 1, or nothing.

        Raises:
            InputError: Shapes that do not fit.
        """
        if rows.ndim != 2 or rows.shape[1] != len(self.total) or signal.shape[0] != len(rows):
            raise InputError(
                f"rows {tuple(rows.shape)} and labels {signal.shape} do not fit sums over "
                f"{len(self.total)} features"
            )
        if (more := signal.shape[1] - self.classes) > 0:
            self.products = torch.nn.functional.pad(self.products, (0, more))
            self.weights = torch.nn.functional.pad(self.weights, (0, more))
        labeled = np.diff(signal.indptr) > 0
        if not labeled.all():
            rows, signal = rows[torch.from_numpy(labeled)], signal[labeled]
        wide = rows.double()
        self.count += len(wide)
        self.total += wide.sum(dim=0)
        for start in range(0, wide.shape[1], GRAM_COLUMNS):
            # The matrix is symmetric: what lies below its diagonal is copied from above.
            own = slice(start, start + GRAM_COLUMNS)
            product = wide[:, own].T @ wide[:, start:]
            self.gram[own, start:] += product
            self.gram[own.stop :, own] += product[:, GRAM_COLUMNS:].T
        self.products[:, : signal.shape[1]] += transposed_product(signal, wide)
        sums = np.asarray(signal.sum(axis=0)).ravel()
        self.weights[: signal.shape[1]] += torch.from_numpy(sums)

    def renumbered(self, places: npt.NDArray[np.int64], classes: int) -> LabelSums:
        """The same sums with class c at ``places[c]`` of ``classes``."""
        found = LabelSums.of(len(self.total), classes)
        found.count, found.total, found.gram = self.count, self.total, self.gram
        found.products[:, torch.from_numpy(places)] = self.products
        found.weights[torch.from_numpy(places)] = self.weights
        return found

    def merge(self, other: LabelSums) -> LabelSums:
        """The sums over both parts' examples. Both are left alone.

        Raises:
            InputError: Rows of another width.
        """
        if len(self.total) != len(other.total):
            raise InputError(
                f"sums over {len(self.total)} and {len(other.total)} features cannot be merged; "
                "give parts of one data set's features"
            )
        merged = LabelSums.of(len(self.total), max(self.classes, other.classes))
        for part in (self, other):
            merged.count += part.count
            merged.total += part.total
            merged.gram += part.gram
            merged.products[:, : part.classes] += part.products
            merged.weights[: part.classes] += part.weights
        return merged


def transposed_product(signal: Signal, rows: Tensor) -> Tensor:
    """``rows' signal``, float64 (d, C), without a dense signal."""
    product = signal.T @ rows.double().numpy()
    return torch.from_numpy(np.ascontiguousarray(np.asarray(product).T))


class LabelFilter:
    """The filter of the sums of all labeled examples, for every penalty at once.

    ``values``, float64 (r,), are the eigenvalues ``s`` of the centered Gram matrix, largest first;
    those that are 0 but for rounding are left out, and r <= d. ``vectors`` are float64 (d, r).
    InputError where there is no labeled example.
    """

    def __init__(self, sums: LabelSums) -> None:
        if sums.count < 1:
            raise InputError("no example has a label; give at least one")
        self.count = sums.count
        self.mean: Tensor = sums.total / sums.count
        centered = sums.gram - sums.count * torch.outer(self.mean, self.mean)
        values, vectors = torch.linalg.eigh((centered + centered.T) / 2)
        values, vectors = values.flip(0), vectors.flip(1)
        # What is left of a direction in which nothing varies is the rounding of the sums.
        size = max(float(sums.gram.diagonal().sum()), 0.0)
        kept = values > len(values) * torch.finfo(torch.float64).eps * size
        self.values: Tensor = values[kept]
        self.vectors: Tensor = vectors[:, kept]
        self.signal(sums.products, sums.weights)

    def signal(self, products: Tensor, weights: Tensor) -> None:
        """Puts another signal of the same examples, summed as labels are, in their place."""
        self.shares: Tensor = weights / self.count
        self.coefficients: Tensor = self.vectors.T @ (products - torch.outer(self.mean, weights))

    @property
    def scale(self) -> float:
        """The sum of the eigenvalues, above 0: what penalties are measured by."""
        return max(float(self.values.sum()), torch.finfo(torch.float64).tiny)

    def project(self, rows: Tensor, width: int | None = None) -> Tensor:
        """``Z`` of some rows, its first columns, in the rows' own precision: (b, width)."""
        return (rows - self.mean.to(rows)) @ self.vectors[:, :width].to(rows)

    def leverages(self, rows: Tensor, penalties: Sequence[float]) -> Tensor:
        """How much each row's own label weighs in its smoothed one: (b, penalties)."""
        gains = torch.stack([1.0 / (self.values + penalty) for penalty in penalties], dim=1)
        return self.project(rows).square() @ gains.to(rows) + 1.0 / self.count

    def weights(self, penalty: float) -> Tensor:
        """What the features of a row weigh for each class: float64, (d, C)."""
        return self.vectors @ (self.coefficients / (self.values + penalty)[:, None])

    def smoothed(self, rows: Tensor, weights: Tensor) -> Tensor:
        """What :meth:`weights` make of the labels at rows, their own labels included: (b, C)."""
        return self.shares.to(rows) + (rows - self.mean.to(rows)) @ weights.to(rows)

    def alone(self, smoothed: Tensor, leverages: Tensor, signal: Signal) -> Tensor:
        """What the other examples alone say of some: ``(P - h Y) / (1 - h)``, (b, C).

        From what is :meth:`smoothed`, (b, C), the leverages of one penalty, (b,), and the signal,
        CSR (b, C), empty for what is not in the sums. Where the own label weighs all, it is the
        shares of the classes.
        """
        labeled = torch.from_numpy(np.diff(signal.indptr) > 0)
        own = torch.from_numpy(signal.toarray()).to(smoothed)
        weight = (leverages * labeled)[:, None].to(smoothed)
        full = weight > FULL_LEVERAGE
        found = (smoothed - weight * own) / (1.0 - weight).masked_fill(full, 1.0)
        return torch.where(full, self.shares.to(smoothed).expand_as(found), found)

    def without_group(
        self, rows: Tensor, smoothed: Tensor, signal: Signal, penalty: float
    ) -> Tensor:
        """What all but a group of examples say of its members: refitted without it, exactly.

        ``Q_g = P_g - H_gg (Y_g - Q_g)``: a fit to labels that it foretells itself is the fit
        without them. Members without a label have no part in ``H``. ``smoothed`` is (m, C), of
        :meth:`smoothed`, and the signal CSR.
        """
        labeled = torch.from_numpy(np.diff(signal.indptr) > 0)
        z = self.project(rows.double())
        hat = (1.0 / self.count + (z / (self.values + penalty)) @ z.T) * labeled
        left = torch.eye(len(z), dtype=torch.float64) - hat
        of_others = smoothed.double() - hat @ torch.from_numpy(signal.toarray()).double()
        found: Tensor = torch.linalg.lstsq(left, of_others, driver="gelsd").solution
        return found.to(smoothed)


def one_hot(labels: npt.NDArray[np.int64], classes: int) -> Signal:
    """Class numbers as a signal; negative ones are no label: CSR float64, (n, C)."""
    known = labels >= 0
    indptr = np.concatenate([[0], np.cumsum(known)])
    return scipy.sparse.csr_array(
        (np.ones(int(known.sum())), labels[known], indptr), shape=(len(labels), classes)
    )
