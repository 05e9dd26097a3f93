"""Comparisons: what to run, running it, and what the rows say."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saln._lazy import lazy_names

if TYPE_CHECKING:
    from saln.experiments.config import Config, load_preset
    from saln.experiments.run import compare
    from saln.experiments.statistics import mean_interval, paired_difference
    from saln.experiments.summary import summarize
else:
    __getattr__, __dir__ = lazy_names(__name__)

__all__ = ["Config", "compare", "load_preset", "mean_interval", "paired_difference", "summarize"]
