"""Feature rows of texts, kept by what the texts say.

::

    CACHE/text-ENCODER-HASH/
        KEYS.npz                      some texts' hashes and rows

An encoder that reads each text by itself goes on after the parts that were done. TF-IDF, whose
rows depend on all texts together, has one part for all.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from saln.errors import DataError, InputError
from saln.features.extraction import Progress
from saln.features.text_encoders import TextEncoder
from saln.files import read_npz, slug, write_npz
from saln.review.feature_cache import FeatureRows, PartsMeter

# Texts of one part: what a kill costs at most.
PART_TEXTS = 4096
NO_TEXT = "no text"

Halves = npt.NDArray[np.float16]
Watch = Callable[[Progress], None] | None


def text_rows(
    texts: Sequence[str],
    keys: Sequence[str],
    encoder: TextEncoder,
    folder: Path,
    *,
    progress: Watch = None,
) -> FeatureRows:
    """The features of n texts, of which ``keys`` are hashes, computed where they are not kept.

    Texts without a letter get none; InputError where all are. ``folder`` is that of all encoders;
    DataError where it cannot be written to. ``progress`` is called after every batch with how far
    all that is missing is.
    """
    started = time.perf_counter()
    problems = ["" if text.strip() else NO_TEXT for text in texts]
    said = [row for row, problem in enumerate(problems) if not problem]
    if not said:
        raise InputError(f"there is no text in any of {len(texts):,} rows; give another column")
    kept = folder / f"text-{slug(encoder.name, 60)}-{encoder.identity[:12]}"
    rows = _by_itself if encoder.by_itself else _together
    found, computed = rows(
        [texts[row] for row in said], [keys[row] for row in said], encoder, kept, progress
    )
    features = np.full((len(texts), found.shape[1]), np.nan, dtype=np.float16)
    features[said] = found
    return FeatureRows(features, problems, computed, time.perf_counter() - started)


def _together(
    texts: list[str], keys: list[str], encoder: TextEncoder, folder: Path, progress: Watch
) -> tuple[Halves, int]:
    """The rows of texts that say something, and how many were computed."""
    path = _part(folder, keys)
    try:
        (rows,) = read_npz(path, "").values()
        if len(rows) == len(texts):
            return rows, 0
    except (DataError, ValueError):  # not there, or damaged: to be made
        pass
    found = encoder.encode(texts, progress).astype(np.float16)
    write_npz(path, {"rows": found}, compressed=False)
    return found, len(texts)


def _by_itself(
    texts: list[str], keys: list[str], encoder: TextEncoder, folder: Path, progress: Watch
) -> tuple[Halves, int]:
    """As :func:`_together`; only new texts are read, each once."""
    held = _held(folder)
    new = {key: text for key, text in zip(keys, texts, strict=True) if key not in held}
    missing = list(new)
    meter = PartsMeter(len(missing), progress)
    for start in range(0, len(missing), PART_TEXTS):
        part = missing[start : start + PART_TEXTS]
        meter.begin(len(part))
        rows = encoder.encode([new[key] for key in part], meter).astype(np.float16)
        arrays = {"keys": np.array(part, dtype="S32"), "rows": rows}
        write_npz(_part(folder, part), arrays, compressed=False)
        held.update(zip(part, rows, strict=True))
    return np.stack([held[key] for key in keys]), len(missing)


def _held(folder: Path) -> dict[str, Halves]:
    """The rows that are kept, by their keys; damaged parts are passed over."""
    held: dict[str, Halves] = {}
    for path in sorted(folder.glob("*.npz")):
        try:
            part = read_npz(path, "")
            names = [key.decode("ascii") for key in part["keys"].tolist()]
            held.update(zip(names, part["rows"], strict=True))
        except (DataError, KeyError, ValueError):
            continue
    return held


def _part(folder: Path, keys: Sequence[str]) -> Path:
    digest = hashlib.blake2b("\n".join(keys).encode(), digest_size=12)
    return folder / f"{digest.hexdigest()}.npz"
