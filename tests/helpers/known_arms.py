"""The arms that come with SALN."""

from __future__ import annotations

from saln.experiments.arm import STANDARD, Arm, read_arm
from saln.selection import SELECTORS


def known_arms() -> dict[str, Arm]:
    """Name -> arm."""
    return {name: read_arm(name) for name in (STANDARD.name, *SELECTORS)}
