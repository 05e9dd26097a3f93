"""What a run says, as tables, figures and one page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saln._lazy import lazy_names

if TYPE_CHECKING:
    from saln.report.catalog import register
    from saln.report.page import write_joined, write_report
    from saln.report.reported_run import ReportedRun
    from saln.report.values import Bars, Figure, IntervalCurve, Table
else:
    __getattr__, __dir__ = lazy_names(__name__)

__all__ = [
    "Bars",
    "Figure",
    "IntervalCurve",
    "ReportedRun",
    "Table",
    "register",
    "write_joined",
    "write_report",
]
