"""Data sets in the layout of Hugging Face: from the hub, or from local files."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from saln._extras import optional_import
from saln.data.arguments import expanded
from saln.data.dataset_registry import ImageSplit
from saln.data.decoding import EXTENSIONS
from saln.data.image_sources import TableImages
from saln.data.items import IMAGE_KEYS, LABEL_KEYS
from saln.errors import DataError, InputError
from saln.messages import parameter

logger = logging.getLogger(__name__)

# Of a column of texts these names say that they are files of images.
_PATH_KEYS = (*IMAGE_KEYS, "image_path", "img_path", "file_name", "filename", "filepath", "path")
# The files that a data set can be alone.
_READERS = {
    ".parquet": "parquet", ".csv": "csv", ".tsv": "csv", ".json": "json", ".jsonl": "json",
    ".arrow": "arrow",
}  # fmt: skip
# What nested lists hold when they are pixels.
_PIXELS = ("uint8", "uint16", "int16", "int32", "int64", "float32", "float64", "bool")
_OFFLINE = threading.RLock()


def load_splits(name: str, download: bool) -> tuple[dict[str, ImageSplit], tuple[str, ...]]:
    """Opens a data set and numbers its classes; ``download``: the hub may be asked.

    ``name`` is a path (a folder, one Parquet, CSV or JSON file, or what ``save_to_disk`` wrote),
    or a name on the hub. Gives the splits ``train`` and, where there are any, ``validation`` and
    ``test``, and the classes' names: those of the training split, in the order of the data set's
    own ``ClassLabel``, else sorted. Raises as :func:`open_tables`; InputError without images or
    labels that are classes, DataError for rows without a label.
    """
    splits, folder = open_tables(name, download)
    if "train" not in splits:
        raise InputError(
            f"hf:{name} has no split 'train', only {', '.join(map(str, splits))}; name it so"
        )
    # Other splits, such as "extra", have no part in a comparison.
    known = ("train", "validation", "test")
    kept = {str(kind): splits[kind] for kind in known if kind in splits}
    return _TableColumns(f"hf:{name}", kept, folder).splits()


def open_tables(name: str, download: bool) -> tuple[dict[str, Any], Path]:
    """The tables of all splits, as the package has them, and where paths in them begin.

    Raises InputError for a path that is not there, DataError for what cannot be loaded,
    MissingExtraError without the package ``datasets``.
    """
    there = os.path.exists  # False of names that no system allows, too
    # As the package does, a folder or file that is here comes before a name on the hub.
    local = name.startswith((".", "/", "~")) or there(name)
    path = expanded(name) if local else None
    if path is not None and not there(path):
        raise InputError(f"hf:{name[:200]} does not exist; give a folder that does, or a hub name")
    with optional_import("hf", f"hf:{name}"):
        import datasets
    splits = _open(name, path, download, datasets)
    folder = Path() if path is None else path if path.is_dir() else path.parent
    return splits, folder


def holds_images(name: str, download: bool) -> bool:
    """Whether the tables of a data set have a column of images; raises as :func:`open_tables`."""
    tables, folder = open_tables(name, download)
    table = next(iter(tables.values()))
    try:
        return bool(len(table) and _TableColumns(f"hf:{name}", tables, folder)._image(table))
    except InputError:
        return False


def label_column(name: str, tables: dict[str, Any]) -> str:
    """The column of classes of a data set of images; InputError where there is none."""
    first = next(iter(tables.values()))
    return _TableColumns(name, tables, Path())._label(tables.get("train", first))


def _open(name: str, path: Path | None, download: bool, datasets: Any) -> dict[str, Any]:
    """The splits as the package has them."""
    options: dict[str, Any] = {}
    what = name if path is None else str(path)
    if path is not None and path.is_file():
        kind = _READERS.get(path.suffix.lower())
        if kind is None:
            raise InputError(
                f"hf:{name} is a file of another kind; give one of {', '.join(_READERS)}, or a "
                "folder"
            )
        what, options = kind, {"data_files": {"train": str(path)}}
        if path.suffix.lower() == ".tsv":
            # The reader of CSV files takes tabs only when it is asked to.
            options["sep"] = "\t"
    saved = path is not None and any(
        (path / file).is_file() for file in ("dataset_dict.json", "state.json")
    )
    hidden, verbosity = datasets.are_progress_bars_disabled(), datasets.logging.get_verbosity()
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # the error below says it all
    try:
        with contextlib.nullcontext() if download else _offline(datasets):
            if saved:
                found = datasets.load_from_disk(str(path))
            else:
                config = datasets.DownloadConfig(local_files_only=not download and path is None)
                found = datasets.load_dataset(what, download_config=config, **options)
    except Exception as error:  # the library raises many kinds; all mean the same here
        cause = error.__cause__ or error
        said = " ".join((str(cause) or str(error) or "no message").split())
        reason = f"{type(cause).__name__}: {said[:200]}{'...' if len(said) > 200 else ''}"
        raise DataError(
            f"hf:{name} could not be loaded ({reason}); give a folder with Parquet files or "
            f"images, or a hub name with {parameter('download', True)}"
        ) from error
    finally:
        datasets.logging.set_verbosity(verbosity)
        if not hidden:
            datasets.enable_progress_bars()
    splits = dict(found) if isinstance(found, dict) else {"train": found}
    return {
        str(split): table if table._indices is None else table.flatten_indices()
        for split, table in splits.items()
    }


@contextlib.contextmanager
def _offline(datasets: Any) -> Iterator[None]:
    """Keeps the package from asking the hub, for the block alone.

    It reads HF_HUB_OFFLINE once, when it is imported: that would hold for good, or come too late.
    """
    from huggingface_hub import constants

    places: tuple[Any, Any] = (constants, datasets.config)
    with _OFFLINE:
        before = [place.HF_HUB_OFFLINE for place in places]
        try:
            for place in places:
                place.HF_HUB_OFFLINE = True
            yield
        finally:
            for place, value in zip(places, before, strict=True):
                place.HF_HUB_OFFLINE = value


class _TableColumns:
    """Finds the images and the classes in the tables of a data set."""

    def __init__(self, name: str, tables: dict[str, Any], folder: Path) -> None:
        self.name = name
        self.tables = tables
        self.folder = folder

    def splits(self) -> tuple[dict[str, ImageSplit], tuple[str, ...]]:
        """See :func:`load_splits`."""
        train = self.tables["train"]
        if len(train) == 0:
            raise InputError(f"{self.name} has no rows to train on; give a data set with some")
        image, label = self._image(train), self._label(train)
        feature = train.features[label]
        values = self._values("train", label)
        declared = getattr(feature, "names", None)
        classes = np.unique(values) if declared is None else np.arange(len(declared))
        names = tuple(map(_shown, classes if declared is None else declared))
        found = {}
        for split, table in self.tables.items():
            if split != "train" and self._is_unlabeled(split, label):
                logger.warning("%s: left out: split '%s', which has no labels", self.name, split)
                continue
            # Found in the training split; the others must not be read by another column.
            if image not in table.features:
                raise InputError(
                    f"{self.name} has no column {image!r} in its split {split!r}, only "
                    f"{', '.join(table.features)}; give every split the same columns"
                )
            given = values if split == "train" else self._values(split, label)
            images = TableImages(table, image, f"{self.name} ({split})", self.folder)
            found[split] = ImageSplit(images, self._numbers(split, given, classes))
        return found, names

    def _image(self, table: Any) -> str:
        """The column of images."""
        import datasets

        features = table.features
        images = [c for c, kind in features.items() if isinstance(kind, datasets.Image)]
        # What is declared as images comes first, then what looks so, then names of files.
        images = images or [c for c, kind in features.items() if _is_encoded(kind, datasets)]
        images = images or [c for c in _PATH_KEYS if self._holds_paths(table, c)][:1]
        if len(images) > 1:
            images = [c for c in images if c in IMAGE_KEYS] or images
        if len(images) != 1:
            which = f" ({', '.join(images)})" if images else ""
            raise InputError(
                f"{self.name} has {len(images)} image columns{which}, expected 1 among "
                f"{', '.join(features)}; a column holds images, encoded images as bytes, arrays, "
                f"or paths; name the one to use 'image' and remove or rename the others"
            )
        return images[0]

    def _holds_paths(self, table: Any, column: str) -> bool:
        if getattr(table.features.get(column), "dtype", None) not in ("string", "large_string"):
            return False
        first = table.data.column(column)[0].as_py()
        return first is not None and Path(first).suffix.lower() in EXTENSIONS

    def _label(self, table: Any) -> str:
        """The column of classes."""
        features = table.features
        named = [c for c in LABEL_KEYS if c in features]
        classes = [c for c, kind in features.items() if hasattr(kind, "names")]
        # A column that is both called so and declared as classes; else declared; else called so.
        found = [c for c in named if c in classes] or classes or named
        if not found:
            raise InputError(
                f"{self.name} has no label column among {', '.join(features)}; "
                "rename the one with the classes to 'label'"
            )
        return found[0]

    def _is_unlabeled(self, split: str, label: str) -> bool:
        """Whether a split is one of those whose labels are kept secret."""
        table = self.tables[split]
        if len(table) == 0 or label not in table.features:
            return True
        column = table.data.column(label)
        if column.null_count == len(column):
            return True
        first = column[0].as_py()
        # -1 is how published test sets hide their labels.
        return first == -1 and set(column.unique().to_pylist()) <= {-1, None}

    def _values(self, split: str, label: str) -> npt.NDArray[Any]:
        """A split's labels: whole numbers, booleans or texts; InputError, or DataError for gaps."""
        import pyarrow as pa

        column = self.tables[split].data.column(label)
        kind = column.type
        where = f"{self.name}: column {label!r} of split {split!r}"
        if pa.types.is_dictionary(kind):
            kind = kind.value_type
            column = column.cast(kind)
        if column.null_count:
            row = int(np.flatnonzero(column.is_null().to_numpy())[0])
            raise DataError(
                f"{where} has no label in {column.null_count:,} of {len(column):,} rows, the first "
                f"is row {row}; remove those rows, or give them a label"
            )
        if pa.types.is_nested(kind) and not pa.types.is_struct(kind):
            # Lists of one are a class each all the same.
            flat = [value[0] for value in column.to_pylist() if len(value) == 1]
            if len(flat) == len(column):
                column = pa.chunked_array([pa.array(flat)])
                kind = column.type
        if pa.types.is_decimal(kind):
            column, kind = column.cast(pa.float64()), pa.float64()
        if pa.types.is_nested(kind) and not pa.types.is_struct(kind):
            raise InputError(
                f"{where} holds lists such as {str(column[0].as_py())[:60]}; an image has one "
                "class here: give a column with one whole number or name a row, of one-hot or "
                "soft labels their argmax"
            )
        if pa.types.is_floating(kind):
            return self._whole(column.to_numpy(), where)
        if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
            return np.asarray(column.to_numpy())
        if pa.types.is_string(kind) or pa.types.is_large_string(kind):
            return np.asarray(column.to_pylist(), dtype=np.str_)
        raise InputError(f"{where} holds {kind}, which are no classes; give whole numbers or names")

    def _whole(self, values: npt.NDArray[Any], where: str) -> npt.NDArray[np.int64]:
        """Floats as the whole numbers that they are; targets of a regression are refused."""
        values = values.astype(np.float64)
        missing = ~np.isfinite(values)
        if missing.any():
            raise DataError(
                f"{where} has no label in {int(missing.sum()):,} of {len(values):,} rows, the "
                f"first is row {int(missing.argmax())} ({values[missing.argmax()]}); remove those "
                "rows, or give them a label"
            )
        broken = (values != np.floor(values)) | (np.abs(values) >= 2.0**53)
        if broken.any():
            raise InputError(
                f"{where} holds {values[broken.argmax()]} in row {int(broken.argmax())}: numbers "
                "to be predicted have no classes; sort them into intervals first, one class each"
            )
        # Whole floats that hardly ever repeat: prices or ages, not classes.
        if len(values) > 20 and len(np.unique(values)) > len(values) / 2:
            raise InputError(
                f"{where} holds {len(np.unique(values)):,} different fractions in "
                f"{len(values):,} rows: numbers to be predicted have no classes; sort them into "
                "intervals first, or give whole numbers if each is a class"
            )
        return values.astype(np.int64)

    def _numbers(
        self, split: str, values: npt.NDArray[Any], classes: npt.NDArray[Any]
    ) -> npt.NDArray[np.int64]:
        """Labels as positions among the sorted classes."""
        if (values.dtype.kind == "U") != (classes.dtype.kind == "U"):
            raise InputError(
                f"{self.name} has names as labels in one split and numbers in another; give "
                "every split the same"
            )
        numbers = np.searchsorted(classes, values)
        strange = classes[np.minimum(numbers, len(classes) - 1)] != values
        if strange.any():
            row = int(strange.argmax())
            raise DataError(
                f"{self.name} has the label {_shown(values[row])!r} in row {row} of split "
                f"{split!r} and {int(strange.sum()):,} rows in all whose label is none of the "
                f"{len(classes):,} classes of its training split; remove those rows"
            )
        return numbers.astype(np.int64)


def _shown(value: Any) -> str:
    return str(value.item() if isinstance(value, np.generic) else value)


def _is_encoded(kind: Any, datasets: Any) -> bool:
    """Whether a column that is not declared as images holds some: encoded, or as pixels."""
    if isinstance(kind, dict):
        parts = [getattr(kind.get(part), "dtype", None) for part in ("bytes", "path")]
        return parts[0] in ("binary", "large_binary") or (
            parts[0] in (None, "null") and parts[1] in ("string", "large_string")
        )
    if isinstance(kind, datasets.Array2D | datasets.Array3D):
        return True
    if isinstance(kind, datasets.Value):
        return kind.dtype in ("binary", "large_binary")
    depth = 0
    while not isinstance(kind, datasets.Value):
        inner = getattr(kind, "feature", None)
        if inner is None:
            return False
        kind, depth = inner, depth + 1
    return depth >= 2 and kind.dtype in _PIXELS
