"""``saln labels`` killed at random moments: nothing is half-written, and nothing is lost."""

from __future__ import annotations

import os

import numpy as np
import pytest
from helpers.killed_reviews import trials
from PIL import Image


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_killed_reviews_go_on_and_end_as_one_left_alone(tmp_path, warm):
    random = np.random.default_rng(0)
    for number in range(120):
        folder = tmp_path / "photos" / "abc"[number % 3]
        folder.mkdir(parents=True, exist_ok=True)
        level = np.array([40, 120, 200])[number % 3] + random.normal(0, 20, (9, 9, 3))
        Image.fromarray(level.clip(0, 255).astype(np.uint8)).save(folder / f"{number}.png")
    found = trials(tmp_path, warm, kills=5, seed=0)
    assert found.early >= 2  # most kills came before the end
    assert (found.broken, found.status, found.same) == (0, 0, True)
    assert found.computed_last < 120  # what was done before the kills was kept
