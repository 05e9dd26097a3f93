"""SALN: find wrong labels, and train on the few examples of a batch worth a gradient.

Data flows one way, and so do imports::

    data -> features -> spectral -> labels -> selection -> loading -> training -> experiments
    -> report

    dataset -> features (once, cached) -> similarity graph -> selector -> batches -> learner
                                                                ^
                          the learner's and the reference's outputs, for those that need them

The names below are loaded when they are first used, so that ``import saln`` is quick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from saln._lazy import lazy_names

if TYPE_CHECKING:
    from saln import testing
    from saln.curation import select
    from saln.features import FeatureStore, extract_features, write_store
    from saln.labels import LabelBeliefs, features_as_teacher, judge_labels, label_sums
    from saln.loading import (
        FilterSchedule,
        LearnerSelected,
        SelectedBatches,
        SelectedStream,
        StreamBatch,
    )
    from saln.review import find_label_issues
    from saln.selection import (
        JEST,
        RS2,
        SALN,
        BalancedCurriculum,
        BatchCoherence,
        Candidates,
        CleanlabPruned,
        Coherence,
        Curriculum,
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
    from saln.selection.neighbor_beliefs import label_beliefs, suspicious_labels
    from saln.spectral import FiedlerResult, fiedler
else:
    __getattr__, __dir__ = lazy_names(__name__)

__version__ = "0.1.0"

__all__ = [
    "JEST",
    "RS2",
    "SALN",
    "BalancedCurriculum",
    "BatchCoherence",
    "Candidates",
    "CleanlabPruned",
    "Coherence",
    "Curriculum",
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
    "features_as_teacher",
    "fiedler",
    "find_label_issues",
    "judge_labels",
    "label_beliefs",
    "label_sums",
    "select",
    "suspicious_labels",
    "testing",
    "write_store",
]
