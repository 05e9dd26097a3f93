"""Files that are whole or not there: written beside their place, then renamed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from saln.errors import DataError

__all__ = ["write_text", "write_with"]


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_with(path: Path, write: Callable[[Path], object], *, durable: bool = False) -> None:
    """Lets ``write`` write to a name beside ``path`` and renames that to ``path``.

    Args:
        path: Where the file shall be.
        write: Writes the file it is given.
        durable: Return only when the file outlives a power cut, not only a killed process.

    Raises:
        DataError: The disk is full or cannot be written to; ``path`` is as it was.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            write(beside)
            if durable:
                _flush(beside)
            beside.replace(path)
            if durable and os.name == "posix":  # elsewhere a folder cannot be opened
                _flush(path.parent)
        finally:
            beside.unlink(missing_ok=True)
    except (OSError, RuntimeError) as error:  # torch.save raises RuntimeError on a full disk
        raise DataError(
            f"{path} cannot be written ({error}); free some space or choose another folder"
        ) from error


def write_text(path: Path, text: str, *, durable: bool = False) -> None:
    """Writes UTF-8 text; see :func:`write_with`."""
    write_with(path, lambda beside: beside.write_text(text, encoding="utf-8"), durable=durable)
