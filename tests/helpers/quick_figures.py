"""Figures that are not drawn: most tests of a run look at its rows, tables and files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from saln.report import page
from saln.report.drawing import Drawn
from saln.report.values import Drawing


def outlined(figure: Drawing, arms: tuple[str, ...]) -> Drawn:
    """In place of a drawing what it would show, as a checksum: other values, another page."""
    shown = hashlib.sha256(repr((figure, arms)).encode("utf-8", "backslashreplace")).hexdigest()
    return Drawn(f"<svg><desc>{figure.name} {shown}</desc></svg>", f"%PDF {shown}".encode())


@contextmanager
def not_drawn(*, but: str = "") -> Iterator[None]:
    """Within it reports are written without matplotlib, which takes two seconds for each.

    The figure whose name is ``but`` is drawn.
    """
    drawn = page.draw

    def chosen(figure: Drawing, arms: tuple[str, ...]) -> Drawn:
        return (drawn if figure.name == but else outlined)(figure, arms)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page, "draw", chosen)
        yield
