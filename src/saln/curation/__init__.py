"""Choosing once, offline, what a data set keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saln._lazy import lazy_names

if TYPE_CHECKING:
    from saln.curation.array_source import ArraySource
    from saln.curation.offline_selection import SelectionResult, SelectOptions, select
else:
    _HOMES = {
        "saln.curation.array_source": ("ArraySource",),
        "saln.curation.offline_selection": ("SelectOptions", "SelectionResult", "select"),
    }
    __getattr__, __dir__ = lazy_names(__name__, _HOMES)

__all__ = ["ArraySource", "SelectOptions", "SelectionResult", "select"]
