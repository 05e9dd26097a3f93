"""What every arm chose, kept in the run folder for the report.

::

    choices/
      examples-seed0.npz      labels, true_labels: int32, (N,); class_names
      saln-seed0.npz          kept: uint8, (epochs, ceil(N / 8)), the bits of each epoch
                              facts.NAME: float32, one number a choice, in order
                              shown.EPOCH.STEP.{indices, positions, scores}: whole batches
      epoch1-step0.webp       those batches' images, 16 tiles a row
      doubted-labels.webp     one row: the images whose labels are believed least

The first seed's batches are shown, a few of the first, the middle and the last epoch.
Every arm but `standard` has the same candidates in them.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from saln.data.datasets import Examples
from saln.errors import DataError
from saln.experiments.run_folder import RunFolder
from saln.files import read_npz, write_npz, write_with
from saln.selection.candidates import Candidates, Selection

SHEET_COLUMNS = 16
# Larger batches show their first candidates; the order is shuffled, so that is a fair part.
SHOWN_CANDIDATES = 256
# Enough to tell what is on a photo, and 160 of them in about 200 kB.
LARGEST_TILE = 56

_Content = TypeVar("_Content")


class Shown(NamedTuple):
    """One batch as a selector saw it."""

    epoch: int  # From 1
    step: int  # Within the epoch, from 0
    indices: npt.NDArray[np.int64]  # int64, (n,): the candidates
    positions: npt.NDArray[np.int64]  # int64, (k,): those kept
    scores: npt.NDArray[np.float32] | None  # float32, (n,), or None


class ArmChoices(NamedTuple):
    """What an arm chose with one seed."""

    kept: npt.NDArray[np.bool_]  # bool, (epochs, N)
    # Name -> float32, one number a choice (:attr:`Selection.facts`)
    facts: dict[str, npt.NDArray[np.float32]]
    shown: tuple[Shown, ...]  # Whole batches; empty for `standard` and for all seeds but the first


class SeedExamples(NamedTuple):
    """The training examples of a seed: labels (N,) as trained on and as they are."""

    labels: npt.NDArray[np.int32]
    true_labels: npt.NDArray[np.int32]
    class_names: tuple[str, ...]


class ChoiceRecord:
    """Notes what an arm chooses while it trains; costs next to nothing a step.

    ``steps`` are the choices in each epoch, 0 where everything is kept; ``show`` keeps whole
    batches for the gallery.
    """

    def __init__(self, examples: int, steps: Sequence[int], *, show: bool) -> None:
        self.ends = np.cumsum(steps)
        self.kept = np.zeros((len(steps), examples), dtype=np.bool_)
        self.facts: dict[str, list[float]] = {}
        self.shown: list[Shown] = []
        self.choices = 0
        # The first, the middle and the last of the epochs in which anything is chosen.
        epochs = [epoch for epoch, count in enumerate(steps, start=1) if count] if show else []
        self.wanted = {
            (epoch, step)
            for epoch in {*epochs[:1], *epochs[(len(epochs) - 1) // 2 :][:1], *epochs[-1:]}
            for step in {0, 1, steps[epoch - 1] // 2}
        }

    def choice(self, candidates: Candidates, selection: Selection) -> None:
        """Takes one choice; for :meth:`Selector.watch`."""
        # A selector counts no epochs; the choices so far say which one this is.
        epoch = int(np.searchsorted(self.ends, self.choices, side="right")) + 1
        step = self.choices - (int(self.ends[epoch - 2]) if epoch > 1 else 0)
        self.choices += 1
        for name, value in selection.facts.items():
            self.facts.setdefault(name, []).append(float(value))
        if (epoch, step) in self.wanted:  # whole batches are kept of few steps: they are large
            scores = selection.scores
            self.shown.append(
                Shown(
                    epoch,
                    step,
                    candidates.indices.cpu().numpy(),
                    selection.positions.numpy(),
                    None if scores is None else scores.float().cpu().numpy(),
                )
            )

    def end_epoch(self, epoch: int, indices: npt.NDArray[np.int64]) -> None:
        """Takes what got a gradient in an epoch, from 1."""
        self.kept[epoch - 1, indices] = True

    def state_dict(self) -> dict[str, Any]:
        """The record so far, as tensors and plain values."""
        return {
            "choices": self.choices,
            **{name: torch.from_numpy(value) for name, value in self._arrays().items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from what :meth:`state_dict` gave."""
        arrays = {name: value.cpu().numpy() for name, value in state.items() if name != "choices"}
        before = _choices(arrays, self.kept.shape[1])
        self.choices = state["choices"]
        self.kept = before.kept
        self.facts = {name: value.tolist() for name, value in before.facts.items()}
        self.shown = list(before.shown)

    def save(self, folder: Path, arm: str, seed: int) -> None:
        """Writes the arm's file."""
        write_npz(RunFolder(folder).choices_of(arm, seed), self._arrays())

    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        arrays: dict[str, npt.NDArray[Any]] = {"kept": np.packbits(self.kept, axis=1)}
        for name, values in self.facts.items():
            # The first word tells them from the other arrays of the file.
            arrays[f"facts.{name}"] = np.asarray(values, dtype=np.float32)
        for batch in self.shown:
            key = f"shown.{batch.epoch}.{batch.step}"
            arrays[f"{key}.indices"] = batch.indices
            arrays[f"{key}.positions"] = batch.positions
            if batch.scores is not None:
                arrays[f"{key}.scores"] = batch.scores
        return arrays


def _choices(arrays: Mapping[str, npt.NDArray[Any]], examples: int) -> ArmChoices:
    kept = np.unpackbits(arrays["kept"], axis=1, count=examples).astype(np.bool_)
    facts = {name[6:]: arrays[name] for name in arrays if name.startswith("facts.")}
    # By epoch and step, whatever order the arrays lie in.
    keys = (re.fullmatch(r"shown\.(\d+)\.(\d+)\.indices", name) for name in arrays)
    batches = sorted((int(key[1]), int(key[2])) for key in keys if key)
    shown = []
    for epoch, step in batches:
        key = f"shown.{epoch}.{step}"
        arrays_of = arrays[f"{key}.indices"], arrays[f"{key}.positions"]
        shown.append(Shown(epoch, step, *arrays_of, arrays.get(f"{key}.scores")))
    return ArmChoices(kept, facts, tuple(shown))


def _read(path: Path, make: Callable[[dict[str, npt.NDArray[Any]]], _Content]) -> _Content | None:
    """What is made of a file's arrays; None where there is no file."""
    if not path.exists():
        return None
    aside = f"remove the folder {path.parent} to draw the report without what was chosen"
    cure = f"put the file back, or {aside}"
    arrays = read_npz(path, cure)
    try:
        return make(arrays)
    except Exception as error:  # other arrays raise anything from KeyError to struct.error
        raise DataError(f"{path} cannot be read ({type(error).__name__}); {cure}") from error


def read_examples(folder: Path, seed: int) -> SeedExamples | None:
    """The training examples of a run's seed; None where none were kept."""
    return _read(
        RunFolder(folder).examples(seed),
        lambda arrays: SeedExamples(
            arrays["labels"], arrays["true_labels"], tuple(map(str, arrays["class_names"]))
        ),
    )


def read_choices(folder: Path, arm: str, seed: int, examples: int) -> ArmChoices | None:
    """What an arm chose with a seed, of ``examples`` in all; None where it was not kept."""
    path = RunFolder(folder).choices_of(arm, seed)
    return _read(path, lambda arrays: _choices(arrays, examples))


def save_examples(
    folder: Path, seed: int, examples: Examples, class_names: tuple[str, ...]
) -> None:
    """Writes the labels of a seed, once."""
    path = RunFolder(folder).examples(seed)
    if path.exists():
        return
    arrays = {
        "labels": examples.labels.astype(np.int32),
        "true_labels": examples.true_labels.astype(np.int32),
        "class_names": np.asarray(class_names, dtype=np.str_),
    }
    write_npz(path, arrays)


def save_sheets(folder: Path, examples: Examples, shown: list[Shown]) -> None:
    """Writes the images of shown batches, once each: square tiles, row by row."""
    for batch in shown:
        path = RunFolder(folder).sheet(batch.epoch, batch.step)
        if not path.exists():
            _write_sheet(path, examples, batch.indices[:SHOWN_CANDIDATES].tolist())


def save_label_sheet(folder: Path, examples: Examples, doubted: Sequence[int]) -> None:
    """Writes the images of the examples whose labels are believed least, one row of them."""
    path = RunFolder(folder).label_sheet
    if doubted and not path.exists():
        _write_sheet(path, examples, doubted[:SHEET_COLUMNS])


def _write_sheet(path: Path, examples: Examples, indices: Sequence[int]) -> None:
    images = [examples.images.load(int(examples.rows[index])) for index in indices]
    tile = min(LARGEST_TILE, max(max(image.size) for image in images))
    rows = -(-len(images) // SHEET_COLUMNS)
    sheet = Image.new("RGB", (SHEET_COLUMNS * tile, rows * tile))
    for number, image in enumerate(images):
        # The middle square: tiles of photos of any shape lie in a grid.
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        square = image.resize((tile, tile), box=(left, top, left + side, top + side))
        row, column = divmod(number, SHEET_COLUMNS)
        sheet.paste(square, (column * tile, row * tile))
    # Small tiles are a few bytes anyway, and lossy edges would blur their neighbors.
    lossless = tile < 24
    save = functools.partial(sheet.save, format="WEBP", lossless=lossless, quality=75)
    write_with(path, save)
