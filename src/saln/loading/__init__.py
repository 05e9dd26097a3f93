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
    __getattr__, __dir__ = lazy_names(__name__)

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
