"""The gallery: batches as the selectors saw them (figures 7 and 8 of the paper)."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import NamedTuple

from saln.errors import DataError
from saln.experiments.choices import SHEET_COLUMNS, SHOWN_CANDIDATES, Shown, sheet_path
from saln.report.chosen import Chosen

__all__ = ["Batch", "Candidate", "Gallery", "make_gallery"]


class Candidate(NamedTuple):
    """One candidate in a batch.

    Attributes:
        tile: Its place on the batch's sheet.
        example: Its number in the training data.
        label: As trained on: a position in the class names.
        true_label: As it is.
        score: What the selector made of it, or None.
        kept: Whether it got a gradient.
    """

    tile: int
    example: int
    label: int
    true_label: int
    score: float | None
    kept: bool


class Batch(NamedTuple):
    """A shown batch: highest score first, kept before dropped."""

    arm: str
    epoch: int
    step: int
    candidates: tuple[Candidate, ...]
    left_out: int


class Gallery(NamedTuple):
    """What the page browses.

    Attributes:
        class_names: One a label.
        sheets: "EPOCH-STEP" -> a data URI: tiles, row by row.
        columns: Tiles a row.
        rows: "EPOCH-STEP" -> rows of tiles.
        batches: All of them.
    """

    class_names: tuple[str, ...]
    sheets: dict[str, str]
    columns: int
    rows: dict[str, int]
    batches: tuple[Batch, ...]


def _batch(arm: str, shown: Shown, labels: list[int], true_labels: list[int]) -> Batch:
    kept = set(shown.positions.tolist())
    candidates = []
    for position, index in enumerate(shown.indices[:SHOWN_CANDIDATES].tolist()):
        score = None if shown.scores is None else float(f"{shown.scores[position]:.4g}")
        candidates.append(
            Candidate(position, index, labels[index], true_labels[index], score, position in kept)
        )
    candidates.sort(key=lambda one: (not one.kept, -(one.score or 0.0), one.tile))
    left_out = max(0, len(shown.indices) - SHOWN_CANDIDATES)
    return Batch(arm, shown.epoch, shown.step, tuple(candidates), left_out)


def make_gallery(folder: Path, chosen: Chosen) -> Gallery | None:
    """The batches whose images are there, of the seed that keeps them; None without any.

    Raises:
        DataError: A sheet cannot be read.
    """
    batches: list[Batch] = []
    sheets: dict[str, str] = {}
    rows: dict[str, int] = {}
    names: tuple[str, ...] = ()
    for seed, arms in chosen.choices.items():
        examples = chosen.examples[seed]
        labels, true_labels = examples.labels.tolist(), examples.true_labels.tolist()
        for arm, choices in arms.items():
            for shown in choices.shown:
                path = sheet_path(folder, shown.epoch, shown.step)
                if not path.exists():
                    continue
                key = f"{shown.epoch}-{shown.step}"
                if key not in sheets:
                    try:
                        content = path.read_bytes()
                    except OSError as error:
                        raise DataError(
                            f"{path} cannot be read ({error}); put the file back, or remove it"
                        ) from error
                    sheets[key] = "data:image/webp;base64," + base64.b64encode(content).decode()
                    rows[key] = -(-min(len(shown.indices), SHOWN_CANDIDATES) // SHEET_COLUMNS)
                batches.append(_batch(arm, shown, labels, true_labels))
                names = examples.class_names
    return Gallery(names, sheets, SHEET_COLUMNS, rows, tuple(batches)) if batches else None
