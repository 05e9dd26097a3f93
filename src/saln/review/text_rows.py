"""Feature rows of texts, kept by what the texts say.

::

    CACHE/text-ENCODER-HASH/
        KEYS.npz                      some texts' hashes and rows

An encoder that reads each text by itself goes on after the parts that were done. TF-IDF, whose
rows depend on all texts together, has one part for all.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from saln.errors import DataError, InputError
from saln.features.extraction import Progress
from saln.features.text_encoders import TextEncoder
from saln.files import read_npz, write_with
from saln.review.feature_cache import FeatureRows

# Texts of one part: what a kill costs at most.
PART_TEXTS = 4096
NO_TEXT = "no text"

Halves = npt.NDArray[np.float16]


def text_rows(
    texts: Sequence[str],
    keys: Sequence[str],
    encoder: TextEncoder,
    folder: Path,
    *,
    progress: Callable[[Progress], None] | None = None,
) -> FeatureRows:
    """The features of texts, computed where they are not kept.

    Args:
        texts: n texts; those without a letter get no features.
        keys: (n,): hashes of what they say.
        encoder: What makes features of them.
        folder: That of all encoders.
        progress: Called after every batch with how far all that is missing is.

    Raises:
        InputError: There is no text with a letter.
        DataError: The disk cannot be written to.
    """
    started = time.perf_counter()
    problems = ["" if text.strip() else NO_TEXT for text in texts]
    said = [row for row, problem in enumerate(problems) if not problem]
    if not said:
        raise InputError(f"there is no text in any of {len(texts):,} rows; give another column")
    slug = re.sub(r"[^a-z0-9]+", "-", encoder.name.lower()).strip("-")[-60:]
    kept = folder / f"text-{slug}-{encoder.identity[:12]}"
    by = _by_itself if encoder.by_itself else _together
    found, computed = by(texts, keys, said, encoder, kept, progress)
    features = np.full((len(texts), found.shape[1]), np.nan, dtype=np.float16)
    features[said] = found
    return FeatureRows(features, problems, computed, time.perf_counter() - started)


def _together(
    texts: Sequence[str],
    keys: Sequence[str],
    said: list[int],
    encoder: TextEncoder,
    folder: Path,
    progress: Callable[[Progress], None] | None,
) -> tuple[Halves, int]:
    """The rows of all texts that say something, and how many were computed."""
    path = _part(folder, [keys[row] for row in said])
    try:
        (rows,) = read_npz(path, "").values()
        if len(rows) == len(said):
            return rows, 0
    except (DataError, ValueError):  # not there, or damaged: to be made
        pass
    found = encoder.encode([texts[row] for row in said], progress).astype(np.float16)
    _save(path, rows=found)
    return found, len(said)


def _by_itself(
    texts: Sequence[str],
    keys: Sequence[str],
    said: list[int],
    encoder: TextEncoder,
    folder: Path,
    progress: Callable[[Progress], None] | None,
) -> tuple[Halves, int]:
    """As :func:`_together`; only new texts are read, each once."""
    held = _held(folder)
    first: dict[str, int] = {}
    for row in said:
        if keys[row] not in held:
            first.setdefault(keys[row], row)
    missing = list(first)
    started, done = time.perf_counter(), 0

    def tell(now: Progress) -> None:
        at = done + now.rows_computed
        if progress is not None:
            speed = at / max(time.perf_counter() - started, 1e-9)
            progress(Progress(at, len(missing), at, speed))

    for start in range(0, len(missing), PART_TEXTS):
        part = missing[start : start + PART_TEXTS]
        rows = encoder.encode([texts[first[key]] for key in part], tell).astype(np.float16)
        _save(_part(folder, part), keys=np.array(part, dtype="S32"), rows=rows)
        held.update(zip(part, rows, strict=True))
        done += len(part)
    return np.stack([held[keys[row]] for row in said]), len(missing)


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


def _save(path: Path, **arrays: Any) -> None:
    def write(beside: Path) -> None:
        with beside.open("wb") as stream:  # given a name, numpy would add .npz to it
            np.savez(stream, allow_pickle=False, **arrays)

    write_with(path, write)
