"""States of training on disk, with a checksum of themselves.

A state is a file of ``torch.save`` with its checksum after it, which ``torch.load`` passes over.
So state and checksum come to the disk in one step, and a changed byte is noticed before it
changes a row.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import xxhash

from saln.errors import DataError
from saln.files import write_with

_MARK = b"\nsaln xxh3-128 "  # tells a state without a checksum from one that was cut
_TAIL = len(_MARK) + 32
_BLOCK = 2**20


class DamagedStateError(DataError):
    """A state is not what was written. What it holds can be made anew by training again."""


def save_state(path: Path, content: Mapping[str, Any]) -> None:
    """Writes tensors and plain values durably.

    Raises:
        DataError: The disk is full or cannot be written to.
    """

    def write(beside: Path) -> None:
        # State and checksum are renamed to their place together.
        torch.save(content, beside)
        _append_checksum(beside)

    write_with(path, write, durable=True)


def sign_state(path: Path) -> None:
    """Adds the checksum to a state that an earlier version wrote without one."""

    def write(beside: Path) -> None:
        beside.write_bytes(path.read_bytes())
        _append_checksum(beside)

    write_with(path, write, durable=True)


def _append_checksum(path: Path) -> None:
    checksum = _checksum(path, path.stat().st_size)
    with path.open("ab") as stream:
        stream.write(_MARK + checksum)


def _checksum(path: Path, length: int) -> bytes:
    digest = xxhash.xxh3_128()
    with path.open("rb") as stream:
        while length and (block := stream.read(min(_BLOCK, length))):
            digest.update(block)
            length -= len(block)
    return digest.hexdigest().encode()


def load_state(path: Path, device: torch.device, *, checked: bool = True) -> dict[str, Any]:
    """Reads what :func:`save_state` wrote.

    Args:
        path: The file.
        device: Where tensors go.
        checked: It must carry a checksum. Earlier versions wrote none.

    Raises:
        DamagedStateError: It is not what was written.
        DataError: It cannot be read.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            # torch reads the index at the file's end, and passes over what follows it.
            stream.seek(max(0, size - _TAIL), os.SEEK_SET)
            tail = stream.read()
        whole = not checked or (
            tail.startswith(_MARK) and tail[len(_MARK) :] == _checksum(path, size - _TAIL)
        )
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror or error}); make it readable, or delete it, "
            "and what it holds is made anew from the start"
        ) from error
    if not whole:
        raise DamagedStateError(f"{path} is not what was written")
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # a broken file raises anything from EOFError to KeyError
        raise DamagedStateError(f"{path} cannot be read ({type(error).__name__})") from error
    if not isinstance(state, dict):
        raise DamagedStateError(f"{path} holds no state")
    return state
