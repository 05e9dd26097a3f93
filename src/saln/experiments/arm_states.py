"""``resume/``: what arms in progress go on from, and the reference model of their seed.

A state is a file of ``torch.save`` with its checksum after it, which ``torch.load`` passes over.
So state and checksum come to the disk in one step, and a changed byte is noticed before it
changes a row.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import xxhash

from saln.errors import DataError
from saln.experiments.rows import EpochRow
from saln.experiments.run_folder import RunFolder
from saln.files import write_with

_MARK = b"\nsaln xxh3-128 "  # tells a state without a checksum from one that was cut
_TAIL = len(_MARK) + 32
_BLOCK = 2**20


class DamagedStateError(DataError):
    """A state is not what was written. What it holds can be made anew by training again."""


@dataclass
class ArmStates:
    """Keeps one state an arm and seed, that after its last durable epoch, with its rows."""

    folder: RunFolder
    checked: bool  # whether states carry checksums; an earlier version wrote none
    # What was found damaged and is made anew, a line each.
    damaged: list[str] = field(default_factory=list)

    def load(self, arm: str, seed: int, *, device: torch.device) -> dict[str, Any] | None:
        """The arm's last durable state; None before one. A damaged one is removed and said."""
        path = self.folder.state(arm, seed)
        return self._load(path, device, f"{arm}, seed {seed}, begins")

    def rows(self, arm: str, seed: int) -> list[EpochRow]:
        """The rows of an arm in progress; none where its state is damaged or not there."""
        state = self.load(arm, seed, device=torch.device("cpu"))
        return [] if state is None else [EpochRow.from_json(row) for row in state["rows"]]

    def save(self, rows: Sequence[EpochRow], state: Mapping[str, Any]) -> None:
        """Keeps the state that an arm goes on from; ``rows`` are all of the arm."""
        # torch.load takes plain values alone, since it runs no code of the file.
        plain = {**state, "rows": [row.to_json() for row in rows]}
        _write(self.folder.state(*rows[-1].key), lambda beside: torch.save(plain, beside))

    def reference(self, seed: int) -> dict[str, Any] | None:
        """What :meth:`save_reference` kept for the seed; None where it is damaged."""
        what = f"the reference model of seed {seed} is trained"
        return self._load(self.folder.reference(seed), torch.device("cpu"), what)

    def save_reference(self, seed: int, content: Mapping[str, Any]) -> None:
        """Keeps the reference model's outputs and costs until the seed's arms are done."""
        _write(self.folder.reference(seed), lambda beside: torch.save(content, beside))

    def sign(self) -> None:
        """Gives what an earlier version left the checksums that this one asks for."""
        for path in () if self.checked else self.folder.resume.glob("*.pt"):
            _write(path, functools.partial(Path.write_bytes, data=path.read_bytes()))
        self.checked = True  # from here on one without is damaged

    def _load(self, path: Path, device: torch.device, what: str) -> dict[str, Any] | None:
        if not path.exists():
            return None
        try:
            return _read(path, device, checked=self.checked)
        except DamagedStateError as error:
            # Training again gives the same state: nothing is lost but its seconds.
            self.damaged.append(f"{error}: {what} anew")
            path.unlink()
            return None


def _write(path: Path, write: Callable[[Path], object]) -> None:
    """Writes a state with its checksum durably; they are renamed to their place together."""

    def write_both(beside: Path) -> None:
        write(beside)
        checksum = _checksum(beside, beside.stat().st_size)
        with beside.open("ab") as stream:
            stream.write(_MARK + checksum)

    write_with(path, write_both, durable=True)


def _checksum(path: Path, length: int) -> bytes:
    digest = xxhash.xxh3_128()
    with path.open("rb") as stream:
        while length > 0 and (block := stream.read(min(_BLOCK, length))):
            digest.update(block)
            length -= len(block)
    return digest.hexdigest().encode()


def _read(path: Path, device: torch.device, *, checked: bool) -> dict[str, Any]:
    """Reads a state, which carries a checksum where ``checked``."""
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            # torch reads the index at the file's end, and passes over what follows it.
            stream.seek(max(0, size - _TAIL), os.SEEK_SET)
            tail = stream.read()
        whole = not checked or tail == _MARK + _checksum(path, size - _TAIL)
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
