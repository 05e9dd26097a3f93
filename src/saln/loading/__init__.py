"""Batches whose examples were chosen, before or after they are loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saln._lazy import lazy_names

if TYPE_CHECKING:
    from saln.loading.filter_schedule import FilterSchedule
    from saln.loading.learner_selected import LearnerSelected, LearnerSelectedOptions
    from saln.loading.selected_batches import SelectedBatches, SelectedBatchesOptions
    from saln.loading.selected_stream import SelectedStream, SelectedStreamOptions
    from saln.loading.stream_pass import StreamBatch
else:
    _HOMES = {
        "saln.loading.filter_schedule": ("FilterSchedule",),
        "saln.loading.learner_selected": ("LearnerSelected", "LearnerSelectedOptions"),
        "saln.loading.selected_batches": ("SelectedBatches", "SelectedBatchesOptions"),
        "saln.loading.selected_stream": ("SelectedStream", "SelectedStreamOptions"),
        "saln.loading.stream_pass": ("StreamBatch",),
    }
    __getattr__, __dir__ = lazy_names(__name__, _HOMES)

__all__ = [
    "FilterSchedule",
    "LearnerSelected",
    "LearnerSelectedOptions",
    "SelectedBatches",
    "SelectedBatchesOptions",
    "SelectedStream",
    "SelectedStreamOptions",
    "StreamBatch",
]
