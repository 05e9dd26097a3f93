"""What tests of comparisons share: someone who watches, and the rows that a run wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from saln.experiments.rows import EpochRow


class Quiet:
    """A reporter that says nothing and keeps the notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def begin(self, what: str, total: int) -> None:
        pass

    def advance(self, examples: int) -> None:
        pass

    def epoch(self, row: EpochRow, epochs: int) -> None:
        pass


def rows_of(path: Path) -> list[dict[str, Any]]:
    """The rows of a run folder."""
    return [json.loads(line) for line in (path / "epochs.jsonl").read_text().splitlines()]
