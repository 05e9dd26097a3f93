"""Which labels are wrong: beliefs about every label, from all the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saln._lazy import lazy_names

if TYPE_CHECKING:
    from saln.labels.beliefs import LabelBeliefs
    from saln.labels.judge import judge_labels, label_sums
    from saln.labels.teacher import FeatureTeacher, features_as_teacher
    from saln.spectral.label_filter import LabelSums
else:
    __getattr__, __dir__ = lazy_names(__name__)

__all__ = [
    "FeatureTeacher",
    "LabelBeliefs",
    "LabelSums",
    "features_as_teacher",
    "judge_labels",
    "label_sums",
]
