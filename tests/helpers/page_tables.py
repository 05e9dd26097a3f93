"""Tables and items of a review, drawn at random: what a page shows, with what it should say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from saln.review import ReviewItems, ReviewTable

__all__ = ["CLASSES", "HOSTILE", "drawn_review", "shown_ids", "suspects"]

CLASSES = ("ant", "bee", "cat", "dog")
# Names that are markup, or that make a CSV file difficult.
HOSTILE = (
    "</script><script>alert(1)</script>",
    'a "quoted", comma',
    "Zürich 猫 🐈",
    "<b>&amp;</b>",
)


def drawn_review(
    n: int,
    class_names: Sequence[str],
    *,
    seed: int = 0,
    given: np.ndarray | None = None,
    believed: np.ndarray | None = None,
    **columns: Any,
) -> tuple[ReviewTable, ReviewItems]:
    """About a tenth of the labels is doubted; copies, outliers and problems are among the rest."""
    random = np.random.default_rng(seed)
    classes = len(class_names)
    given = random.integers(classes, size=n) if given is None else given
    doubted = random.random(n) < 0.1
    if believed is None:
        believed = np.where(doubted, (given + random.integers(1, classes, size=n)) % classes, given)
    doubted = given != believed
    probability = np.where(doubted, random.random(n) ** 2 / 2, 1 - random.random(n) ** 3 / 2)
    probability[random.random(n) < 0.02] = np.nan
    group = np.where(random.random(n) < 0.1, random.integers(max(1, n // 12), size=n), -1)
    contradicting = np.full((n, 3), -1)
    for row in range(min(n, 5000)):
        others = np.flatnonzero(given == believed[row])[:400]
        count = min(len(others), 3)
        contradicting[row, :count] = random.choice(others, count, replace=False)
    contradicting[given == believed] = -1
    splits = random.choice(["train", "test"], size=n, p=[0.8, 0.2]).tolist()
    names = np.array(class_names, dtype=object)
    keys = [f"{row:032x}" for row in range(n)]
    ids = columns.pop("ids", None) or [f"photos/{row:06d}.jpg" for row in range(n)]
    values: dict[str, Any] = {
        "dataset": "folder:/photos", "task": "classes", "class_names": tuple(class_names),
        "ids": ids, "splits": splits, "given": names[given].tolist(),
        "believed": names[believed].tolist(), "probability": probability,
        "margin": 2 * probability - 1, "group": group.astype(np.int64),
        "outlier": random.random(n), "problem": [""] * n,
        "contradicting": contradicting.astype(np.int32), "decision": [""] * n,
        "label": [""] * n, "keys": keys, "noise_rate": 0.1, "noise_interval": (0.08, 0.12),
        "informative": True, "message": "",
    }  # fmt: skip
    problem = values["problem"]
    for row in range(0, n, 97):
        problem[row] = ("tiny", "blank", "unreadable: the file is cut short")[row % 3]
    images, texts = columns.pop("images", None), columns.pop("texts", None)
    table = ReviewTable(**(values | columns))
    items = ReviewItems(
        table.dataset, table.class_names, table.ids, table.splits,
        np.asarray(given, dtype=np.int64), keys, images=images, texts=texts,
    )  # fmt: skip
    return table, items


def suspects(table: ReviewTable) -> list[int]:
    """The rows whose labels look wrong, worst first."""
    return table.suspects.tolist()


def shown_ids(page: Any) -> list[str]:
    """The names of the examples that are in the document, in their order."""
    return page.locator(".card .where").evaluate_all("all => all.map((e) => e.title)")
