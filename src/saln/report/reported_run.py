"""A finished run as its report is drawn from it: read once, checked once."""

from __future__ import annotations

import functools
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from saln.errors import DataError, InputError
from saln.experiments.kept_examples import ArmChoices, SeedExamples, read_choices, read_examples
from saln.experiments.progress_file import Record, read_finished
from saln.experiments.rows import EpochRow, Summary
from saln.experiments.run_folder import ANEW, RunFolder, held, read_settings
from saln.files import read_signed

# What is not what was written, and what to do; names are relative to the run folder.
_CURES = {
    "checkpoints": "put the file back, or remove it to draw the report without its weights",
    "choices": "put the file back, or remove the folder choices to draw the report without it",
    "labels.json": "put the file back, or remove it to leave the labels out of the report",
}


class Chosen(NamedTuple):
    """All choices of a run: by seed its examples, and by seed and arm what was chosen of them."""

    examples: Mapping[int, SeedExamples]
    choices: Mapping[int, Mapping[str, ArmChoices]]
    truth: bool  # whether it is known which labels are wrong

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms that every seed has."""
        first, *others = self.choices.values()
        return tuple(arm for arm in first if all(arm in other for other in others))


@dataclass(frozen=True)
class ReportedRun:
    """What figures and tables are made of.

    Attributes:
        folder: The run folder.
        summary: What ``summary.json`` holds.
        rows: Those of ``epochs.jsonl``, in their order.
        preset: The named settings that the run began from.
        environment: What it ran on, with its command.
        record: The checksums of its files; None where nobody can check them.
    """

    folder: Path
    summary: Summary
    rows: Sequence[EpochRow] = ()
    preset: str | None = None
    environment: Mapping[str, Any] = field(default_factory=dict)
    record: Record | None = None

    @property
    def command(self) -> str:
        """How it was called, as far as that is known."""
        # Whatever it is: the file may be damaged, and the page is drawn all the same.
        command = self.environment.get("command")
        if isinstance(command, list) and all(isinstance(part, str) for part in command):
            return shlex.join(command)
        return "environment.json, which says it, is damaged; the settings are in config.json"

    @property
    def facts(self) -> dict[str, Any]:
        """What it ran on."""
        return {name: value for name, value in self.environment.items() if name != "command"}

    @functools.cached_property
    def chosen(self) -> Chosen | None:
        """What the arms chose; None for a run that keeps none of it."""
        examples: dict[int, SeedExamples] = {}
        choices: dict[int, dict[str, ArmChoices]] = {}
        folder, arms = self.folder, self.summary.finished
        for seed in self.summary.seeds:
            of_seed = read_examples(folder, seed)
            if of_seed is not None:
                examples[seed], total = of_seed, len(of_seed.labels)
                chosen = {arm: read_choices(folder, arm, seed, total) for arm in arms}
                choices[seed] = {arm: each for arm, each in chosen.items() if each is not None}
        return Chosen(examples, choices, self.summary.knows_truth) if examples else None

    @functools.cached_property
    def final_weights(self) -> dict[str, npt.NDArray[np.float32]]:
        """Arm -> float32, (classes, d), of the first seed; none for arms without a checkpoint."""
        import torch  # a second or two, for a page that may have no checkpoints

        weights = {}
        for arm in self.summary.finished:
            path = RunFolder(self.folder).checkpoint(arm, self.summary.seeds[0])
            if not path.exists():
                continue
            try:
                state = torch.load(path, map_location="cpu", weights_only=True)
                heads = [
                    value.flatten(1)  # a head may be a convolution of one pixel
                    for value in state.values()
                    if value.ndim >= 2 and len(value) == self.summary.classes
                ]
            except Exception as error:  # a broken file raises anything from EOFError to KeyError
                raise DataError(
                    f"{path} cannot be read ({type(error).__name__}); {_CURES['checkpoints']}"
                ) from error
            if heads:
                weights[arm] = heads[-1].float().numpy()
        return weights

    @functools.cached_property
    def left_out(self) -> tuple[str, ...]:
        """The files that are missing, and the images that are damaged."""
        names = []
        for name in () if self.record is None else self.record.files:
            kind = name.split("/")[0]
            unread = kind == "checkpoints" and not name.endswith(f"-seed{self.summary.seeds[0]}.pt")
            if self.record is None or unread or kind not in _CURES:
                continue
            damaged, image = self.record.is_damaged(name), name.endswith(".webp")
            # One image is one batch of the gallery; weights or choices are a whole section.
            if damaged and not image:
                raise DataError(f"{self.folder / name} is not what was written; {_CURES[kind]}")
            if damaged or not (self.folder / name).exists():
                names.append(name)
        return tuple(names)


def read_run(folder: Path) -> ReportedRun:
    """Reads a finished run, else InputError; rows and summary that are damaged are made anew."""
    folder = folder.expanduser()
    files = RunFolder(folder)
    if not (files.config.exists() or files.progress.exists()):
        raise InputError(f"{folder} holds no run; give a folder that 'saln compare' wrote")
    finished = read_finished(folder)
    if finished is None:
        raise InputError(
            f"{folder} holds a run that was not finished, for it has no summary.json; finish it "
            f"with 'saln compare --resume --out {shlex.quote(str(folder))}'"
        )
    settings = read_settings(folder)
    # Nobody may be at work on the run while its files are written anew.
    if not finished.is_whole(folder):
        with held(folder):
            finished.mend(folder)
    try:
        environment = read_signed(files.environment, ANEW, must=False)
    except DataError:  # nothing but what the run ran on is lost, and the page says so
        environment = {}
    return ReportedRun(
        folder, finished.summary, finished.rows, settings.preset, environment, finished.record
    )
