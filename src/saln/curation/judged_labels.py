"""Beliefs about the labels of the whole input, formed once and kept with the unfinished work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from saln.curation.checked_files import CheckedFiles
from saln.curation.feature_sources import Source, StoreSource, bad_row, check_finite
from saln.curation.partition import BELIEF
from saln.errors import DataError, InputError
from saln.features.from_arrays import write_store
from saln.features.store import FeatureStore
from saln.files import npy_bytes
from saln.messages import Placeholder, parameter
from saln.selection.cleanlab_pruned import beliefs_by_cleanlab
from saln.selection.coherence import Judge
from saln.selection.judged_beliefs import judged_beliefs
from saln.selection.neighbor_beliefs import NeighborBeliefs, store_beliefs, suspicious_labels

# How many labels ``OUT.labels.json`` lists at most.
LISTED = 1000


def judge(
    source: Source, files: CheckedFiles, kept: dict[str, Path], who: Judge = "labels"
) -> tuple[Path, dict[str, Any]]:
    """Forms beliefs about all labels, or takes those that a run before has formed.

    What is whole in the folder of ``files`` is ``kept``. Parts that were chosen by beliefs
    which are lost are taken out of it: beliefs that are formed anew may differ in a last digit.
    Gives the ``.npy`` with (n,) of ``BELIEF``, and what ``OUT.labels.json`` holds. Raises
    InputError where there are no labels, DataError for a label or a row of features that is
    none.
    """
    if "beliefs" in kept and "labels" in kept:
        labels: dict[str, Any] = json.loads(files.read(kept["labels"]))
        return kept["beliefs"], labels
    # Beliefs that are formed anew may differ in a last digit: no part may mix both.
    files.drop(*kept.values())
    kept.clear()
    given = source.labels()
    if given is None:
        raise InputError(
            f"coherence requires labels; give {parameter('labels_column', Placeholder('NAME'))}"
        )
    if not isinstance(source, StoreSource) and source.class_names is None and given.min() < 0:
        row = int((given < 0).argmax())
        raise bad_row(source.path, 0, row, f"its label is {given[row]}, which is no class")
    # The classes that are there, numbered anew: a number of a million asks for no such matrix.
    known = np.flatnonzero(given >= 0)
    classes, numbers = np.unique(given[known], return_inverse=True)
    if len(classes) == len(known) > 1:
        raise InputError(
            f"every row of {source.path} has a label of its own, so that none tells anything about "
            f"another; give {parameter('labels_column', Placeholder('NAME'))} of one with classes"
        )
    codes = np.full(len(given), -1, dtype=np.int64)  # -1 stays where there is no label
    codes[known] = numbers
    # What is learned is kept with the unfinished work; nothing is written beside a user's store.
    store = _store(source, files, codes)
    if who == "labels":
        beliefs = judged_beliefs(store, codes, len(classes))
    elif who == "cleanlab":
        beliefs = beliefs_by_cleanlab(store, codes, len(classes))
    else:
        beliefs = store_beliefs(store, codes, keep=False)
    believed = beliefs.believed.numpy()
    both = np.empty(len(given), dtype=BELIEF)
    both["confidence"] = beliefs.confidence.numpy()
    both["believed"] = np.where(believed < 0, -1, classes[believed])  # in the input's numbers
    names = classes.tolist()
    if source.class_names is not None:
        names = [source.class_names[number] for number in names]
    labels = _listing(source, beliefs, codes, names)
    if who != "neighbors":
        labels = {"judge": who, **labels}
    text = json.dumps(labels, default=str)  # ids may be dates, decimals or bytes
    file = files.write("beliefs", "npy", npy_bytes(both))
    files.write("labels", "json", text.encode())
    return file, json.loads(text)  # as a later run reads it, so that both write the same


def _listing(
    source: Source,
    beliefs: NeighborBeliefs,
    codes: npt.NDArray[np.int64],
    names: list[Any],
) -> dict[str, Any]:
    """The labels that are least believed, and what is made of all."""
    given = torch.from_numpy(codes)
    suspicious = suspicious_labels(beliefs, given, LISTED)
    ids = source.ids([entry.example for entry in suspicious])  # in one pass over the input
    listed = []
    for place, entry in enumerate(suspicious):
        row = {
            "row": entry.example,
            "label": names[entry.given],
            "believed": names[entry.believed],
            "confidence": entry.confidence,
        }
        listed.append(row if ids is None else {**row, "id": ids[place]})
    return {
        # No rate is better than one that nothing supports.
        "estimated_noise_rate": None if beliefs.tells_nothing else beliefs.noise_rate,
        "tells_nothing": beliefs.tells_nothing,
        "rows": len(source),
        "doubted": int(((beliefs.believed != given) & (given >= 0)).sum()),  # unknown: none
        "classes": names,
        "transition": beliefs.transition.tolist(),
        "labels": listed,
    }


class _Table:
    """A source's features as an array that is read in parts, for :func:`write_store`."""

    def __init__(self, source: Source) -> None:
        self.source = source
        width = self[:1].shape[1]
        self.shape = (len(source), width)
        self.ndim = 2
        self.size = len(source) * width

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, part: slice) -> npt.NDArray[Any]:
        rows = np.arange(*part.indices(len(self)))
        features = self.source.read(rows).features
        if features is None:
            raise InputError("labels are judged by features; give them, not their number alone")
        check_finite(self.source.path, rows, features)
        return features


def _store(source: Source, files: CheckedFiles, codes: npt.NDArray[np.int64]) -> FeatureStore:
    """A source's own store, or one of its features among the unfinished work."""
    if isinstance(source, StoreSource):
        return source.store
    folder, table = files.folder / "features", _Table(source)
    try:
        return write_store(folder, table, codes, name=source.path.name)
    except DataError:  # a damaged one; what else is wrong is so the second time, too
        files.drop(folder)
        return write_store(folder, table, codes, name=source.path.name)
