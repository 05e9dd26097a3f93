"""Whether a run knows which of its labels are wrong. What is not known is never shown as 0."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

UNKNOWN = "unknown"


def knows_truth(summary: Mapping[str, Any]) -> bool:
    """Only of labels that were replaced on purpose is it known that they are wrong."""
    return bool(summary["label_noise"] > 0)


def noise_text(summary: Mapping[str, Any]) -> str:
    """The share of wrong labels, or that it is unknown."""
    return f"{100 * summary['label_noise']:.0f}%" if knows_truth(summary) else "unknown"
