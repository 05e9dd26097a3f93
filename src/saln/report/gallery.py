"""The gallery: batches as the selectors saw them (figures 7 and 8 of the paper)."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from saln.experiments.kept_examples import SHEET_COLUMNS, SHOWN_CANDIDATES, Shown
from saln.experiments.run_folder import RunFolder
from saln.report.label_section import LabelDoubts
from saln.report.reported_run import Chosen

# Tiles of fewer pixels are shown as squares, not as a blur.
SMALL_TILE = 24
# Of the labels that are believed least, on the first screen.
SHOWN_THUMBNAILS = 8


class Candidate(NamedTuple):
    """One candidate in a batch.

    ``tile`` is its place on the batch's sheet, ``example`` its number in the training data; the
    labels, as trained on and as it is, are positions in the class names.
    """

    tile: int
    example: int
    label: int
    true_label: int
    score: float | None
    kept: bool


class ShownBatch(NamedTuple):
    """A shown batch: highest score first, kept before dropped."""

    arm: str
    epoch: int
    step: int
    candidates: tuple[Candidate, ...]
    left_out: int


class Gallery(NamedTuple):
    """What the page browses.

    ``sheets`` has a data URI for "EPOCH-STEP", with ``columns`` tiles in each of ``rows``; where
    tiles are ``small``, they are shown as squares. ``left_out`` are files of damaged images.
    """

    class_names: tuple[str, ...]
    sheets: dict[str, str]
    columns: int
    rows: dict[str, int]
    small: bool
    batches: tuple[ShownBatch, ...]
    left_out: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """As plain values for the page's script."""
        return {**self._asdict(), "batches": [batch._asdict() for batch in self.batches]}


def _batch(arm: str, shown: Shown, labels: list[int], true_labels: list[int]) -> ShownBatch:
    kept = set(shown.positions.tolist())
    candidates = []
    for position, index in enumerate(shown.indices[:SHOWN_CANDIDATES].tolist()):
        # Four digits are what a person reads, and keep the page small.
        score = None if shown.scores is None else float(f"{shown.scores[position]:.4g}")
        candidates.append(
            Candidate(position, index, labels[index], true_labels[index], score, position in kept)
        )
    # What the selector liked best comes first, on both sides of its line.
    candidates.sort(key=lambda one: (not one.kept, -(one.score or 0.0), one.tile))
    left_out = max(0, len(shown.indices) - SHOWN_CANDIDATES)
    return ShownBatch(arm, shown.epoch, shown.step, tuple(candidates), left_out)


def make_gallery(folder: Path, chosen: Chosen, damaged: Sequence[str] = ()) -> Gallery | None:
    """The batches whose images are there, of the seed that keeps them; None without any.

    ``damaged`` are files, relative to the folder, whose images are not what was written. They, and
    those that are no images, are left out.
    """
    batches: list[ShownBatch] = []
    sheets: dict[str, str] = {}
    rows: dict[str, int] = {}
    left_out = set(damaged)
    small = False
    names: tuple[str, ...] = ()
    for seed, arms in chosen.choices.items():
        examples = chosen.examples[seed]
        labels, true_labels = examples.labels.tolist(), examples.true_labels.tolist()
        for arm, choices in arms.items():
            for shown in choices.shown:
                path = RunFolder(folder).sheet(shown.epoch, shown.step)
                name = path.relative_to(folder).as_posix()
                if name in left_out or not path.exists():
                    continue
                key = f"{shown.epoch}-{shown.step}"
                if key not in sheets:  # the arms share it, having the same candidates
                    sheet = _read_sheet(path)
                    if sheet is None:
                        left_out.add(name)
                        continue
                    # Of all sheets alike: a page with both would look broken.
                    sheets[key], small = sheet[0], small or sheet[1]
                    rows[key] = -(-min(len(shown.indices), SHOWN_CANDIDATES) // SHEET_COLUMNS)
                batches.append(_batch(arm, shown, labels, true_labels))
                names = examples.class_names
    if not batches:
        return None
    out = tuple(sorted(left_out))
    return Gallery(names, sheets, SHEET_COLUMNS, rows, small, tuple(batches), out)


def doubted_thumbnails(
    folder: Path, doubts: LabelDoubts | None, damaged: Sequence[str] = ()
) -> dict[str, Any] | None:
    """The images of the labels believed least, for the first screen; None without any."""
    path = RunFolder(folder).label_sheet
    if doubts is None or not path.exists() or RunFolder(folder).name_of(path) in damaged:
        return None
    sheet = _read_sheet(path)
    if sheet is None:
        return None
    names = doubts.classes
    return {
        "sheet": sheet[0],
        "columns": SHEET_COLUMNS,
        "small": sheet[1],
        "labels": [
            {"given": names[each.given], "believed": names[each.believed], "wrong": each.wrong}
            for each in doubts.labels[:SHOWN_THUMBNAILS]
        ],
    }


def _read_sheet(path: Path) -> tuple[str, bool] | None:
    """A sheet as a data URI, and whether its tiles are small; None where it is no image."""
    try:
        content = path.read_bytes()
        with Image.open(io.BytesIO(content), formats=["WEBP"]) as image:
            image.load()
            uri = "data:image/webp;base64," + base64.b64encode(content).decode()
            return uri, image.width // SHEET_COLUMNS < SMALL_TILE
    except Exception:  # Pillow raises anything for a broken file; the page says what is left out
        return None
