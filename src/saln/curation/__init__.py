"""Choosing once, offline, what a data set keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saln._lazy import lazy_names

if TYPE_CHECKING:
    from saln.curation.offline_selection import SelectionResult, select
else:
    _HOMES = {"saln.curation.offline_selection": ("SelectionResult", "select")}
    __getattr__, __dir__ = lazy_names(__name__, _HOMES)

__all__ = ["SelectionResult", "select"]
