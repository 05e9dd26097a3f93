"""Selectors: rules from candidates to kept positions.

``SELECTORS`` names each as on the command line; ``registry.py`` finds those of other packages,
too. :class:`ImageTextJEST` has no name there, as the command line trains classifiers.

What is not here, and why: BatchBALD (arXiv 1906.08158). It asks which *unlabeled*
examples to label next, by the mutual information between their unknown labels and the
weights. Here every label is known, so nothing is left to ask: BALD's score would only
measure how much the network's posterior disagrees, whatever the label says, and would
leave out the one thing that training knows and labelling does not.
And its price is of another order: joint entropies of ``k`` labels have ``C ** k`` terms
and are sampled, which its authors do for ``k`` up to about 10 (here ``k`` is 32 or more),
on top of tens of stochastic forward passes of every candidate in every step, and only for
networks with dropout to sample by.

Nor is PFB (arXiv 2506.23674). It drops the candidates whose features, those of the learner's
first layers, are dense; how it estimates that density was not to be had beyond its abstract.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from saln._lazy import lazy_names

if TYPE_CHECKING:
    from saln.selection.balanced_curriculum import BalancedCurriculum
    from saln.selection.candidates import (
        Candidates,
        PairEmbeddings,
        Selection,
        candidates_needed,
        kept_count,
    )
    from saln.selection.cleanlab_pruned import CleanlabPruned
    from saln.selection.coherence import BatchCoherence, Coherence
    from saln.selection.contract import Selector
    from saln.selection.curriculum import Curriculum
    from saln.selection.facility_location import FacilityLocation
    from saln.selection.hyperparameters import Bounds, check_hyperparameters
    from saln.selection.infobatch import InfoBatch
    from saln.selection.jest import JEST, ImageTextJEST, sigmoid_losses, softmax_losses
    from saln.selection.k_center import KCenter
    from saln.selection.registry import SELECTORS
    from saln.selection.rho_loss import RHOLoss
    from saln.selection.rs2 import RS2
    from saln.selection.saln_selector import SALN
    from saln.selection.top_loss import TopLoss
    from saln.selection.uniform import Uniform
else:
    __getattr__, __dir__ = lazy_names(__name__)

__all__ = [
    "JEST",
    "RS2",
    "SALN",
    "SELECTORS",
    "BalancedCurriculum",
    "BatchCoherence",
    "Bounds",
    "Candidates",
    "CleanlabPruned",
    "Coherence",
    "Curriculum",
    "FacilityLocation",
    "ImageTextJEST",
    "InfoBatch",
    "KCenter",
    "PairEmbeddings",
    "RHOLoss",
    "Selection",
    "Selector",
    "TopLoss",
    "Uniform",
    "candidates_needed",
    "check_hyperparameters",
    "kept_count",
    "sigmoid_losses",
    "softmax_losses",
]
