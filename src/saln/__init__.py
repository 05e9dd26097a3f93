"""SALN: choose, from every batch of candidates, the few examples worth a gradient.

Data flows one way, and so do imports::

    data -> features -> spectral -> selection -> loading -> training -> experiments -> report

    dataset -> features (once, cached) -> similarity graph -> selector -> batches -> learner
                                                                ^
                          the learner's and the reference's outputs, for those that need them

The names below are loaded when they are first used, so that ``import saln`` is quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from saln.features.store import FeatureStore
    from saln.loading.batches import SelectedBatches
    from saln.selection import (
        JEST,
        SALN,
        BatchCoherence,
        Candidates,
        Coherence,
        Selection,
        Selector,
        Uniform,
    )
    from saln.selection.coherence import label_beliefs, suspicious_labels
    from saln.spectral import FiedlerResult, fiedler

__version__ = "0.1.0"

__all__ = [
    "JEST",
    "SALN",
    "BatchCoherence",
    "Candidates",
    "Coherence",
    "FeatureStore",
    "FiedlerResult",
    "SelectedBatches",
    "Selection",
    "Selector",
    "Uniform",
    "fiedler",
    "label_beliefs",
    "suspicious_labels",
]

_HOMES = {
    "JEST": "saln.selection.jest",
    "SALN": "saln.selection.saln",
    "BatchCoherence": "saln.selection.coherence",
    "Candidates": "saln.selection.candidates",
    "Coherence": "saln.selection.coherence",
    "FeatureStore": "saln.features.store",
    "FiedlerResult": "saln.spectral.fiedler",
    "SelectedBatches": "saln.loading.batches",
    "Selection": "saln.selection.candidates",
    "Selector": "saln.selection.contract",
    "Uniform": "saln.selection.uniform",
    "fiedler": "saln.spectral.fiedler",
    "label_beliefs": "saln.selection.coherence",
    "suspicious_labels": "saln.selection.coherence",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'saln' has no attribute {name!r}")
    return getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
