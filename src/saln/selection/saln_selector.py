"""The published criterion: the Fiedler vector of the batch's similarity graph."""

from __future__ import annotations

from typing import ClassVar

import torch

from saln.selection.candidates import Candidates, Selection
from saln.selection.contract import Selector
from saln.spectral import fiedler


class SALN(Selector):
    """Keeps the ``k`` candidates that the Fiedler vector weighs most (arXiv 2412.17069).

    The set of the paper's listing (section 3.6, algorithm 1): with ``S`` the cosine similarities
    and ``L = D - S``, the ``k`` largest ``|v|`` of the eigenvector of the second smallest
    eigenvalue of ``L``, for any features. Equal magnitudes go to the lower position.

    What to expect: on pooled features of an ImageNet network, similarities are positive
    and close to each other, the graph is nearly complete, and the vector sits on about one
    example, the one least like the others: its participation ratio is next to 1 from a
    few hundred candidates up (``benchmarks/fiedler.py`` prints it for real images). That
    example is kept first. The other ``k - 1`` are the largest of many tiny entries, which
    lie close together: the set is the listing's, but it says little about the examples,
    and a change of the features in their ninth digit may move its edge
    (:meth:`saln.FiedlerResult.determined` tells). Compare it with ``uniform``.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"features"})
    is_joint: ClassVar[bool] = True
    summary: ClassVar[str] = (
        "largest entries of the Fiedler vector (the paper's method); costs cached features"
    )

    def choose(self, candidates: Candidates, k: int, generator: torch.Generator) -> Selection:
        """Keeps the listing's set; nothing is random."""
        # Never all eigenvectors, and no n x n matrix but for few rows: see spectral/fiedler.py.
        result = fiedler(candidates.need("features"))
        facts = {
            "eigenvalue_gap": float(result.gap),
            "participation_ratio": float(result.participation_ratio),
        }
        return Selection(result.ranking()[:k], scores=result.vector.abs().cpu(), facts=facts)
