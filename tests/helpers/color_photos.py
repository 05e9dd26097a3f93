"""Pictures of three colors with known wrong labels, and what `saln labels` wrote of them."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from PIL import Image

COLORS = {"blue": (20, 30, 200), "green": (30, 180, 40), "red": (210, 40, 30)}


def picture(color: tuple[int, int, int], random: np.random.Generator) -> Image.Image:
    """Noise around a color: what tells the classes apart is plain, and no two are the same."""
    noise = random.normal(0, 25, (12, 12, 3))
    return Image.fromarray((np.array(color) + noise).clip(0, 255).astype(np.uint8))


def save_colors(root: Path) -> Path:
    """30 pictures of each of three colors; the first two of each lie in the next one's folder."""
    random = np.random.default_rng(0)
    names = list(COLORS)
    for number, name in enumerate(names):
        for count in range(30):
            folder = root / (names[(number + 1) % 3] if count < 2 else name)
            folder.mkdir(parents=True, exist_ok=True)
            picture(COLORS[name], random).save(folder / f"{name}-{count}.png")
    return root


def listed(folder: Path) -> list[dict[str, str]]:
    """The rows of labels.csv in the folder of a review."""
    with (folder / "labels.csv").open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))
