"""Tables of judged labels, made by hand: what is not named is unknown or empty."""

from __future__ import annotations

from typing import Any

import numpy as np

from saln.review import ReviewTable

__all__ = ["review_table"]


def review_table(ids: list[str], **columns: Any) -> ReviewTable:
    n = len(ids)
    texts = ("splits", "given", "believed", "problem", "decision", "label", "keys")
    values: dict[str, Any] = {name: [""] * n for name in texts}
    for name in ("probability", "margin", "outlier"):
        columns[name] = np.asarray(columns.get(name, [np.nan] * n), dtype=np.float64)
    columns["group"] = np.asarray(columns.get("group", [-1] * n), dtype=np.int64)
    values |= {
        "dataset": "folder:/photos", "task": "classes", "class_names": ("cat", "dog"),
        "contradicting": np.full((n, 3), -1, dtype=np.int32), "noise_rate": np.nan,
        "noise_interval": (np.nan, np.nan), "informative": True, "message": "",
    }  # fmt: skip
    return ReviewTable(ids=ids, **(values | columns))
