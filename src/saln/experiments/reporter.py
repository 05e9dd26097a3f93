"""What a comparison tells the people who watch it."""

from __future__ import annotations

from typing import Any, Protocol

__all__ = ["Reporter"]


class Reporter(Protocol):
    """Told what happens, for people who watch."""

    def note(self, text: str) -> None:
        """Something worth a line."""

    def begin(self, what: str, total: int) -> None:
        """A stage of ``total`` examples begins."""

    def advance(self, examples: int) -> None:
        """So many more examples are done."""

    def epoch(self, row: dict[str, Any], epochs: int) -> None:
        """An epoch is done."""
