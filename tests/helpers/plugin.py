"""A package of somebody else with selectors, installed in a folder of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import saln

SELECTOR = '''
from typing import Annotated

import torch

from saln.selection import Bounds, Selection, Selector


class Longest(Selector):
    """Keeps the candidates whose features are longest."""

    requires = frozenset({"features"})
    summary = "the longest features; costs cached features"

    def __init__(self, power: Annotated[float, Bounds(above=0)] = 2.0, *, reverse: bool = False):
        self.power, self.reverse = float(power), reverse

    def choose(self, candidates, k, generator):
        features = candidates.need("features").double()
        scores = features.abs().pow(self.power).sum(dim=1) * (-1 if self.reverse else 1)
        order = torch.argsort(scores, descending=True, stable=True)
        return Selection(order[:k].cpu(), scores=scores.float().cpu())
'''
ENTRY_POINTS = """
[saln.selectors]
longest = long_selectors:Longest
broken = long_selectors:Missing
gone = no_such_module:Thing
number = long_selectors:torch
jest = long_selectors:Longest
"""


def install(folder: Path) -> Path:
    """Writes the package ``long-selectors``, as pip leaves it; gives the folder to import from."""
    place = folder / "site"
    facts = place / "long_selectors-1.0.dist-info"
    facts.mkdir(parents=True)
    (place / "long_selectors.py").write_text(SELECTOR)
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: long-selectors\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text(ENTRY_POINTS)
    return place


def run_python(place: Path, code: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Runs code where the package is installed."""
    script = cwd / "script.py"
    script.write_text(code)
    parts = [str(place), str(Path(saln.__file__).parents[1]), str(Path(__file__).parents[1])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(parts)}
    return subprocess.run(
        [sys.executable, str(script)],
        env=environment, cwd=cwd, capture_output=True, text=True, check=False,
    )  # fmt: skip
