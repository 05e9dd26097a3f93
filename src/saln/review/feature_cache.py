"""Feature rows by what the images hold: a file that moved or has a new label costs nothing.

::

    CACHE/NETWORK-SIZEpx-HASH/        one folder a network, its weights and its image size
        facts.bin                     sizes, thumbnails and how much images vary, by their hashes
        PART/keys.npy                 the hashes of some images, in order
        PART/features-.../            their feature store; its first row is that of a black image

A part is a store that :func:`saln.extract_features` makes, so a killed run goes on after the
shards that were done. What is damaged counts as not there.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from saln.data.image_sources import ImageSource
from saln.errors import DataError
from saln.features.backbones import Network
from saln.features.dataset_features import default_cache_dir
from saln.features.extraction import Progress, extract_features
from saln.features.store import FeatureStore
from saln.files import npy_bytes, remove, slug, write_bytes
from saln.messages import parameter
from saln.review.example_checks import CheckedImages, ImageFacts, problems

# Images of one part. Another set of images reuses an earlier part only if it has all of them.
PART_ROWS = 8192
# Small, since a kill costs one shard: a photo takes some hundredths of a second.
SHARD_ROWS = 128
KEYS, FACTS = "keys.npy", "facts.bin"


def default_review_cache() -> Path:
    """Where these features are kept when nobody says where."""
    return default_cache_dir().with_name("review")


@dataclass(frozen=True)
class FeatureRows:
    """Features of reviewed examples."""

    features: npt.NDArray[np.float16]  # (n, d); NaN where one cannot be read
    problems: list[str]  # (n,): what is wrong with each; empty where nothing is
    computed: int  # How many went through the network in this call
    seconds: float  # That this call took
    thumbnails: npt.NDArray[np.uint8] | None = None  # (n, s, s): gray; None but of images


@dataclass(frozen=True)
class _AfterBlack:
    """Some images as a data set: first a black one, so that a store is never without a row."""

    images: CheckedImages
    rows: Sequence[int]
    keys: Sequence[str]  # of those rows

    def __len__(self) -> int:
        return len(self.rows) + 1

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return self.images.load(self.rows[index - 1]) if index else Image.new("RGB", (8, 8)), 0

    def name_of(self, index: int) -> str:
        return self.images.name_of(self.rows[index - 1]) if index else "a black image"

    def fingerprint(self) -> str:
        return _digest(self.keys)


@dataclass
class _Held:
    """What the cache holds: of each key its part and row, keys that could not be read, parts."""

    places: dict[str, tuple[int, int]] = field(default_factory=dict)
    broken: set[str] = field(default_factory=set)
    stores: list[FeatureStore] = field(default_factory=list)
    unfinished: list[list[str]] = field(default_factory=list)

    def add(self, store: FeatureStore, keys: Sequence[str]) -> None:
        """Takes up a part."""
        lost = {entry.row for entry in store.skipped}
        for row, key in enumerate(keys, start=1):
            if row in lost:
                self.broken.add(key)
            else:
                self.places[key] = (len(self.stores), row)
        self.stores.append(store)


class PartsMeter:
    """Says how far all parts together are, from how far each one is."""

    def __init__(self, total: int, progress: Callable[[Progress], None] | None) -> None:
        self.total, self.progress = total, progress
        self.done = self.computed = self.part = self.last = 0
        self.started = time.perf_counter()

    def begin(self, part: int) -> None:
        """A part of ``part`` images begins."""
        self.done, self.computed = self.done + self.part, self.computed + self.last
        self.part, self.last = part, 0

    def __call__(self, now: Progress) -> None:
        """Says so, from how far the part is."""
        self.last = min(now.rows_computed, self.part)  # less the black image
        if self.progress is not None:
            computed = self.computed + self.last
            speed = computed / max(time.perf_counter() - self.started, 1e-9)
            at = self.done + min(now.rows_done, self.part)
            self.progress(Progress(at, self.total, computed, speed))


class FeatureCache:
    """The features that one network has made of images, whichever data sets they were of.

    ``folder`` is that of all networks; ``options`` are those of :func:`saln.extract_features`:
    ``device``, ``batch_size``, ``workers``.
    """

    def __init__(self, folder: Path, network: Network, **options: Any) -> None:
        # What is done to images too: it is no part of the weights.
        made_by = f"{network.identity()} {network.preprocessing}"
        digest = hashlib.blake2b(made_by.encode(), digest_size=6).hexdigest()
        self.folder = folder / f"{slug(network.name, 60)}-{network.image_size}px-{digest}"
        self.network = network
        self.options = options

    def rows(
        self,
        images: ImageSource,
        keys: Sequence[str],
        *,
        strict: bool = False,
        progress: Callable[[Progress], None] | None = None,
    ) -> FeatureRows:
        """The features of n images, computed where they are not held.

        ``keys`` are hashes of what they hold, empty where nothing can be read; ``progress`` is
        called after every batch with how far all that is missing is. DataError for a disk that
        cannot be written to and, where it is ``strict``, for an image that cannot be read.
        """
        started = time.perf_counter()
        held = self._held()
        unreadable: dict[int, str] = {}
        missing: dict[str, int] = {}  # of images that are the same, one is looked at
        for row, key in enumerate(keys):
            # What could not be read before is tried again: a disk may have been away.
            if not key or (key in held.broken and key not in held.places):
                reason = _reason(images, row)
                if reason and strict:
                    raise DataError(
                        f"{images.name_of(row)} cannot be read as an image ({reason}); repair or "
                        f"remove it, or give {parameter('unreadable', 'skip')}"
                    )
                if reason or not key:
                    unreadable[row] = reason or "it could not be read a moment ago"
                    continue
            if key not in held.places:
                missing.setdefault(key, row)
        checked = CheckedImages(images, keys, self.folder / FACTS)
        computed = self._compute(checked, missing, held, strict, progress)
        if missing:
            held = self._held()
        features = self._gathered(held, keys)
        for row in np.flatnonzero(np.isnan(features[:, 0])).tolist():
            if row not in unreadable:
                unreadable[row] = _reason(images, row) or "it changed while it was read"
        facts = _all_facts(checked, unreadable)
        found = problems(facts.sizes, unreadable)
        seconds = time.perf_counter() - started
        return FeatureRows(features, found, computed, seconds, facts.thumbnails)

    def _gathered(self, held: _Held, keys: Sequence[str]) -> npt.NDArray[np.float16]:
        """The features of some keys; NaN where there are none."""
        features = np.full((len(keys), self.network.width), np.nan, dtype=np.float16)
        places = np.array([held.places.get(key, (-1, -1)) for key in keys], dtype=np.int64)
        for number, store in enumerate(held.stores):
            mine = np.flatnonzero(places[:, 0] == number)
            if len(mine):
                features[mine] = store.features[places[mine, 1]]
        return features

    def _compute(
        self,
        images: CheckedImages,
        missing: dict[str, int],
        held: _Held,
        strict: bool,
        progress: Callable[[Progress], None] | None,
    ) -> int:
        """Makes the parts that are missing; gives the number of images computed."""
        parts, begun = [], set[str]()
        for part in held.unfinished:
            if all(key in missing and key not in begun for key in part):
                parts.append(part)
                begun.update(part)
        rest = [key for key in missing if key not in begun]
        parts += [rest[start : start + PART_ROWS] for start in range(0, len(rest), PART_ROWS)]
        meter = PartsMeter(sum(map(len, parts)), progress)
        for part in parts:
            meter.begin(len(part))
            if held.broken.intersection(part):  # what can be read by now is there as unreadable
                remove(self._folder(part))
            self._make(images, [missing[key] for key in part], part, strict, meter)
        return meter.computed + meter.last

    def _make(
        self,
        images: CheckedImages,
        rows: list[int],
        keys: list[str],
        strict: bool,
        progress: Callable[[Progress], None],
    ) -> None:
        """Makes one part, or what of it is left to do."""
        folder = self._folder(keys)
        unreadable: Literal["raise", "skip"] = "raise" if strict else "skip"

        def make() -> None:
            # First: by them a killed run is gone on with, whatever images came or went since.
            write_bytes(folder / KEYS, npy_bytes(np.array(keys, dtype="S32")))
            extract_features(
                _AfterBlack(images, rows, keys), self.network, cache_dir=folder, name="features",
                shard_rows=SHARD_ROWS, unreadable=unreadable, progress=progress, **self.options,
            )  # fmt: skip

        with _unsaid():
            try:
                make()
            except DataError:
                if _readable(folder):  # what is wrong is not the part
                    raise
                remove(folder)
                make()

    def _folder(self, keys: Sequence[str]) -> Path:
        """Of the part of these images."""
        return self.folder / _digest(keys)[:16]

    def _held(self) -> _Held:
        """Reads the parts; damaged ones are passed over."""
        held = _Held()
        for folder in sorted(self.folder.glob("*/")):
            keys = _load(folder / KEYS)
            if keys is None or keys.dtype != np.dtype("S32") or keys.ndim != 1:
                continue
            names = [key.decode("ascii", "replace") for key in keys.tolist()]
            try:
                (path,) = folder.glob("features-*/")
                store = FeatureStore.open(path)
            except (DataError, ValueError):  # unfinished, or damaged: to be made
                held.unfinished.append(names)
                continue
            if store.features.shape == (len(names) + 1, self.network.width):
                held.add(store, names)
        return held


def _all_facts(checked: CheckedImages, unreadable: dict[int, str]) -> ImageFacts:
    """What is known of the images; what was lost of it, but not their features, is made again."""
    facts = checked.facts()
    lost = set(np.flatnonzero(np.isnan(facts.sizes[:, 0])).tolist()) - set(unreadable)
    for row in lost:
        with contextlib.suppress(DataError):  # it was read a moment ago, or in an earlier run
            checked.load(row)
    return checked.facts() if lost else facts


def _digest(keys: Sequence[str]) -> str:
    return hashlib.blake2b("\n".join(keys).encode(), digest_size=16).hexdigest()


def _load(path: Path) -> Any:
    try:
        return np.load(path, allow_pickle=False)
    except Exception:  # a broken file raises anything from EOFError to RuntimeError
        return None


def _readable(folder: Path) -> bool:
    """Whether a part is what was written, as far as it was."""
    from saln.features.manifest import read_manifest

    try:
        return all(read_manifest(path) is not None for path in folder.glob("features-*/"))
    except DataError:
        return False


def _reason(images: ImageSource, row: int) -> str:
    """Why an image cannot be read; empty where it can."""
    try:
        images.load(row)
    except Exception as error:  # decoders raise many kinds; all mean the same here
        cause = error.__cause__ or error
        return " ".join(str(cause).split()) or type(cause).__name__
    return ""


@contextlib.contextmanager
def _unsaid() -> Iterator[None]:
    """Leaves out what an extraction says of images that it skips: here they are listed."""
    logger = logging.getLogger("saln.features.extraction")

    def others(record: logging.LogRecord) -> bool:
        return "could not be read" not in record.msg

    logger.addFilter(others)
    try:
        yield
    finally:
        logger.removeFilter(others)
