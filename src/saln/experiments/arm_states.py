"""``resume/``: what arms in progress go on from, and the reference model of their seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from saln.experiments.rows import EpochRow
from saln.experiments.run_folder import RunFolder
from saln.experiments.state_files import DamagedStateError, load_state, save_state, sign_state


class ArmStates:
    """Keeps one state an arm and seed, that after its last durable epoch, with its rows.

    Args:
        folder: The run's.
        checked: Whether states carry checksums; an earlier version wrote none.

    Attributes:
        damaged: What was found damaged and is made anew, a line each.
    """

    def __init__(self, folder: RunFolder, *, checked: bool) -> None:
        self.folder = folder
        self.checked = checked
        self.damaged: list[str] = []

    def load(self, arm: str, seed: int, *, device: torch.device) -> dict[str, Any] | None:
        """The state after the arm's last durable epoch; None before its first.

        None, too, where the state is damaged: it is removed, and said in ``damaged``.

        Raises:
            DataError: The file cannot be read.
        """
        path = self.folder.state(arm, seed)
        return self._load(path, device, f"{arm}, seed {seed}, begins")

    def rows(self, arm: str, seed: int) -> list[EpochRow]:
        """The rows of an arm in progress; none where its state is damaged or not there."""
        state = self.load(arm, seed, device=torch.device("cpu"))
        return [] if state is None else [EpochRow.from_json(row) for row in state["rows"]]

    def save(self, rows: Sequence[EpochRow], state: Mapping[str, Any]) -> None:
        """Keeps the state that an arm goes on from; ``rows`` are all of the arm."""
        arm, seed = rows[-1].key
        # torch.load takes plain values alone, since it runs no code of the file.
        plain = [row.to_json() for row in rows]
        save_state(self.folder.state(arm, seed), {**state, "rows": plain})

    def drop(self, arm: str, seed: int) -> None:
        """The arm is done."""
        self.folder.state(arm, seed).unlink(missing_ok=True)

    def reference(self, seed: int) -> dict[str, Any] | None:
        """What :meth:`save_reference` kept for the seed; None where it is damaged."""
        what = f"the reference model of seed {seed} is trained"
        return self._load(self.folder.reference(seed), torch.device("cpu"), what)

    def save_reference(self, seed: int, content: Mapping[str, Any]) -> None:
        """Keeps the reference model's outputs and costs until the seed's arms are done."""
        save_state(self.folder.reference(seed), content)

    def drop_reference(self, seed: int) -> None:
        """The seed's arms are done."""
        self.folder.reference(seed).unlink(missing_ok=True)

    def sign(self) -> None:
        """Gives what an earlier version left the checksums that this one asks for."""
        if not self.checked:
            for path in self.folder.resume.glob("*.pt"):
                sign_state(path)
            self.checked = True  # from here on one without is damaged

    def _load(self, path: Path, device: torch.device, what: str) -> dict[str, Any] | None:
        if not path.exists():
            return None
        try:
            return load_state(path, device, checked=self.checked)
        except DamagedStateError as error:
            # Training again gives the same state: nothing is lost but its seconds.
            self.damaged.append(f"{error}: {what} anew")
            path.unlink()
            return None
