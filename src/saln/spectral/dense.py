"""The dense eigensolver: for small n, for repeated eigenvalues, and as the fallback."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from scipy import linalg
from torch import Tensor

from saln.spectral.graph import SimilarityGraph
from saln.threads import one_linear_algebra_thread

# Below this a second thread gains LAPACK nothing.
_ONE_THREAD_BELOW = 512


def dense_pairs(graph: SimilarityGraph, count: int) -> tuple[Tensor, Tensor]:
    """The lowest eigenpairs of the graph's operator beside its kernel, by LAPACK.

    The kernel is moved above the spectrum, so what is left at the bottom is exact
    beside it even where 0 is repeated. Gives at most n - 1 values, ascending, float64 (count,),
    and unit vectors as rows (count, n).
    """
    similarity, diagonal, kernel = graph.dense()[0], graph.diagonal[0], graph.kernel[0]
    # Above every eigenvalue, by Gershgorin's circles.
    above = float((diagonal.abs() + similarity.abs().sum(-1)).amax()) + 1.0
    matrix = (above * kernel)[:, None] * kernel - (similarity + similarity.mT) / 2
    matrix.diagonal().add_(diagonal)
    if matrix.device.type == "cpu":
        few = one_linear_algebra_thread() if len(matrix) < _ONE_THREAD_BELOW else nullcontext()
        options = {"overwrite_a": True, "check_finite": False}
        with few:
            values, vectors = linalg.eigh(matrix.numpy(), subset_by_index=(0, count - 1), **options)
        return torch.from_numpy(values), torch.from_numpy(vectors).mT.contiguous()
    all_values, all_vectors = torch.linalg.eigh(matrix)
    return all_values[:count], all_vectors[:, :count].mT.contiguous()
