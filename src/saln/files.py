"""Files that are whole or not there: written beside their place, then renamed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from saln.errors import DataError

__all__ = ["write_text", "write_with"]


def write_with(path: Path, write: Callable[[Path], object]) -> None:
    """Lets ``write`` write to a name beside ``path`` and renames that to ``path``.

    Raises:
        DataError: The disk is full or cannot be written to; ``path`` is as it was.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            write(beside)
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
    except (OSError, RuntimeError) as error:  # torch.save raises RuntimeError on a full disk
        raise DataError(
            f"{path} cannot be written ({error}); free some space or choose another folder"
        ) from error


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text."""
    write_with(path, lambda beside: beside.write_text(text, encoding="utf-8"))
