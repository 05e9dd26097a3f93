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
    _HOMES = {
        "saln.report.catalog": ("register",),
        "saln.report.page": ("write_joined", "write_report"),
        "saln.report.reported_run": ("ReportedRun",),
        "saln.report.values": ("Bars", "Figure", "IntervalCurve", "Table"),
    }
    __getattr__, __dir__ = lazy_names(__name__, _HOMES)

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
