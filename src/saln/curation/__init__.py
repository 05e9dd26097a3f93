"""Choosing once, offline, what a data set keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saln._lazy import lazy_names

if TYPE_CHECKING:
    from saln.curation.array_source import ArraySource
    from saln.curation.offline_selection import SelectionResult, SelectOptions, select
else:
    __getattr__, __dir__ = lazy_names(__name__)

__all__ = ["ArraySource", "SelectOptions", "SelectionResult", "select"]
