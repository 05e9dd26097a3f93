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
    __getattr__, __dir__ = lazy_names(__name__)

__all__ = [
    "ReviewItems",
    "ReviewTable",
    "add_columns",
    "find_label_issues",
    "set_fiftyone_fields",
]
