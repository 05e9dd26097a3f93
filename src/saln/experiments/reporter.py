"""What a comparison tells the people who watch it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from saln.experiments.rows import EpochRow
from saln.features.extraction import Progress


class Reporter(Protocol):
    """Shows a person what happens."""

    def note(self, text: str) -> None:
        """Something worth a line."""

    def begin(self, what: str, total: int) -> None:
        """A stage of ``total`` examples begins."""

    def advance(self, examples: int) -> None:
        """``examples`` more are done."""

    def epoch(self, row: EpochRow, epochs: int) -> None:
        """An epoch is done."""


@dataclass
class FeatureProgress:
    """Tells a reporter how far an extraction is; ``rows`` counts what was computed."""

    reporter: Reporter
    title: str
    rows: int = 0
    begun: bool = False

    def __call__(self, progress: Progress) -> None:
        """Takes the place of ``progress`` in :func:`saln.extract_features`."""
        if not self.begun:
            self.begun = True
            # What earlier runs have done is no part of this one's speed.
            self.reporter.begin(self.title, progress.rows - progress.rows_done)
        # What came since the last call: a batch, or several where the disk was slow.
        self.reporter.advance(progress.rows_computed - self.rows)
        self.rows = progress.rows_computed
