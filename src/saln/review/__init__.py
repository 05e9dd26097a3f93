"""The labels of a whole data set on one page: judged, decided, repaired."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saln._lazy import lazy_names

if TYPE_CHECKING:
    from saln.review.exports import add_columns, set_fiftyone_fields
    from saln.review.find_issues import find_label_issues
    from saln.review.review_items import ReviewItems
    from saln.review.review_table import ReviewTable
else:
    _HOMES = {
        "saln.review.exports": ("add_columns", "set_fiftyone_fields"),
        "saln.review.find_issues": ("find_label_issues",),
        "saln.review.review_items": ("ReviewItems",),
        "saln.review.review_table": ("ReviewTable",),
    }
    __getattr__, __dir__ = lazy_names(__name__, _HOMES)

__all__ = [
    "ReviewItems",
    "ReviewTable",
    "add_columns",
    "find_label_issues",
    "set_fiftyone_fields",
]
