"""What a run says, as tables, figures and one page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saln._lazy import lazy_names

if TYPE_CHECKING:
    from saln.report.page import write_joined, write_report
else:
    _HOMES = {
        "saln.report.page": ("write_joined", "write_report"),
    }
    __getattr__, __dir__ = lazy_names(__name__, _HOMES)

__all__ = ["write_joined", "write_report"]
