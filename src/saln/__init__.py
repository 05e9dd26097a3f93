"""SALN: choose, from every batch of candidates, the few examples worth a gradient.

Data flows one way, and so do imports::

    data -> features -> spectral -> labels -> selection -> loading -> training -> experiments
    -> report

    dataset -> features (once, cached) -> similarity graph -> selector -> batches -> learner
                                                                ^
                          the learner's and the reference's outputs, for those that need them

The names below are loaded when they are first used, so that ``import saln`` is quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from saln import testing
    from saln.features.extraction import extract_features
    from saln.features.from_arrays import write_store
    from saln.features.store import FeatureStore
    from saln.labels.beliefs import LabelBeliefs
    from saln.labels.judge import judge_labels, label_sums
    from saln.loading.filter_schedule import FilterSchedule
    from saln.loading.learner_selected import LearnerSelected
    from saln.loading.selected_batches import SelectedBatches
    from saln.loading.selected_stream import SelectedStream
    from saln.loading.stream_pass import StreamBatch
    from saln.selection import (
        JEST,
        RS2,
        SALN,
        BatchCoherence,
        Candidates,
        Coherence,
        FacilityLocation,
        ImageTextJEST,
        InfoBatch,
        KCenter,
        PairEmbeddings,
        RHOLoss,
        Selection,
        Selector,
        TopLoss,
        Uniform,
    )
    from saln.selection.coherence import label_beliefs, suspicious_labels
    from saln.spectral import FiedlerResult, fiedler

__version__ = "0.1.0"

__all__ = [
    "JEST",
    "RS2",
    "SALN",
    "BatchCoherence",
    "Candidates",
    "Coherence",
    "FacilityLocation",
    "FeatureStore",
    "FiedlerResult",
    "FilterSchedule",
    "ImageTextJEST",
    "InfoBatch",
    "KCenter",
    "LabelBeliefs",
    "LearnerSelected",
    "PairEmbeddings",
    "RHOLoss",
    "SelectedBatches",
    "SelectedStream",
    "Selection",
    "Selector",
    "StreamBatch",
    "TopLoss",
    "Uniform",
    "extract_features",
    "fiedler",
    "judge_labels",
    "label_beliefs",
    "label_sums",
    "select",
    "suspicious_labels",
    "testing",
    "write_store",
]

_HOMES = {
    "JEST": "saln.selection.jest",
    "LabelBeliefs": "saln.labels.beliefs",
    "RS2": "saln.selection.rs2",
    "SALN": "saln.selection.saln_selector",
    "BatchCoherence": "saln.selection.coherence",
    "Candidates": "saln.selection.candidates",
    "FacilityLocation": "saln.selection.facility_location",
    "Coherence": "saln.selection.coherence",
    "FeatureStore": "saln.features.store",
    "FiedlerResult": "saln.spectral.fiedler",
    "FilterSchedule": "saln.loading.filter_schedule",
    "ImageTextJEST": "saln.selection.jest",
    "InfoBatch": "saln.selection.infobatch",
    "KCenter": "saln.selection.k_center",
    "LearnerSelected": "saln.loading.learner_selected",
    "PairEmbeddings": "saln.selection.candidates",
    "RHOLoss": "saln.selection.rho_loss",
    "SelectedBatches": "saln.loading.selected_batches",
    "SelectedStream": "saln.loading.selected_stream",
    "Selection": "saln.selection.candidates",
    "Selector": "saln.selection.contract",
    "StreamBatch": "saln.loading.stream_pass",
    "TopLoss": "saln.selection.top_loss",
    "Uniform": "saln.selection.uniform",
    "extract_features": "saln.features.extraction",
    "fiedler": "saln.spectral.fiedler",
    "judge_labels": "saln.labels.judge",
    "label_beliefs": "saln.selection.coherence",
    "label_sums": "saln.labels.judge",
    "select": "saln.curation.select",
    "suspicious_labels": "saln.selection.coherence",
    "write_store": "saln.features.from_arrays",
}


def __getattr__(name: str) -> Any:
    if name == "testing":
        return importlib.import_module("saln.testing")
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'saln' has no attribute {name!r}")
    return getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
