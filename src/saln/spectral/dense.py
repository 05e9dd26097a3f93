"""The dense eigensolver: for small n, for repeated eigenvalues, and as the fallback."""

from __future__ import annotations

import torch
from scipy import linalg
from torch import Tensor

from saln.spectral.graph import SimilarityGraph

__all__ = ["dense_pairs"]

# Up to here all pairs by torch cost less than a few by SciPy, whose BLAS has threads of its
# own that wait for torch's, by measurement.
_ALL_PAIRS = 128


def dense_pairs(graph: SimilarityGraph, item: int, count: int) -> tuple[Tensor, Tensor]:
    """The lowest eigenpairs of the graph's operator beside its kernel, by LAPACK.

    The kernel is moved above the spectrum, so what is left at the bottom is exact
    beside it even where 0 is repeated.

    Args:
        graph: The operator; n is at most ``DENSE_LIMIT``.
        item: Which batch of it.
        count: How many pairs, at most n - 1.

    Returns:
        Values float64 (count,), ascending, and unit vectors as rows (count, n).
    """
    similarity = graph.dense()[item]
    diagonal, kernel = graph.diagonal[item], graph.kernel[item]
    above = float((diagonal.abs() + similarity.abs().sum(-1)).amax()) + 1.0
    matrix = (above * kernel)[:, None] * kernel - (similarity + similarity.mT) / 2
    matrix.diagonal().add_(diagonal)
    if matrix.device.type == "cpu" and len(matrix) > _ALL_PAIRS:
        values, vectors = linalg.eigh(
            matrix.numpy(),
            subset_by_index=(0, count - 1),
            overwrite_a=True,
            check_finite=False,
        )
        return torch.from_numpy(values), torch.from_numpy(vectors).mT.contiguous()
    all_values, all_vectors = torch.linalg.eigh(matrix)
    return all_values[:count], all_vectors[:, :count].mT.contiguous()
