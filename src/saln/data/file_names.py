"""What a person finds an example of a data set by: the name of its file, where it has one."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

# Where torchvision's data sets (and those written like them) keep their files' names.
PATHS = ("samples", "imgs", "_samples", "_images", "_image_files", "_image_paths", "paths", "files")


def name_of(dataset: Any, index: int) -> str | None:
    """The name of an example's file or row, None where nothing tells it; opens nothing."""
    given = getattr(dataset, "name_of", None)
    if callable(given):
        return str(given(index))
    if isinstance(dataset, torch.utils.data.Subset):
        return name_of(dataset.dataset, int(dataset.indices[index]))
    if isinstance(dataset, torch.utils.data.ConcatDataset):
        return name_of(*place_in(dataset, index))
    images, rows = getattr(dataset, "images", None), getattr(dataset, "rows", None)
    if callable(getattr(images, "name_of", None)) and rows is not None:
        return name_of(images, int(rows[index]))
    if type(dataset).__module__.startswith("datasets.") and hasattr(dataset, "with_format"):
        return _row_name(dataset, index)
    path = file_of(dataset, index)
    return None if path is None else str(path)


def place_in(dataset: Any, index: int) -> tuple[Any, int]:
    """The part of a ``ConcatDataset`` that holds an example, and its position there."""
    part = bisect_right(dataset.cumulative_sizes, index)
    return dataset.datasets[part], index - (dataset.cumulative_sizes[part - 1] if part else 0)


def _row_name(dataset: Any, index: int) -> str:
    """Of a Hugging Face data set: its images' files, where the table names them."""
    row = dataset.with_format("arrow")[index]
    for column in row.column_names:
        value = row[column][0].as_py()
        if isinstance(value, dict) and isinstance(value.get("path"), str):
            return f"row {index}, {value['path']}"
    return f"row {index}"


def kept_as(dataset: Any, names: tuple[str, ...]) -> Any:
    """What a data set keeps under the first of some names that it has."""
    # Of the instance alone: a property of the class might open files.
    attributes = getattr(dataset, "__dict__", {})
    return next((attributes[name] for name in names if attributes.get(name) is not None), None)


def file_of(dataset: Any, index: int) -> Path | None:
    """An example's file, of a data set that keeps a list of paths, or of tuples that begin so."""
    found = _entries(dataset)
    return _file(dataset, found[index]) if index < len(found) else None


def files_of(dataset: Any) -> list[Path] | None:
    """Every example's, where all have one."""
    found = _entries(dataset)
    paths = [path for entry in found if (path := _file(dataset, entry)) is not None]
    return paths if paths and len(paths) == len(found) else None


def _entries(dataset: Any) -> Sequence[Any]:
    found = kept_as(dataset, PATHS)
    return found if isinstance(found, Sequence) and not isinstance(found, str) else ()


def _file(dataset: Any, entry: Any) -> Path | None:
    # torchvision's folders keep (path, class).
    entry = entry[0] if isinstance(entry, tuple | list) and entry else entry
    if not isinstance(entry, str | os.PathLike):
        return None
    path = Path(entry)
    # Some keep names that begin at their root, others at the working folder.
    root = Path(str(getattr(dataset, "root", "")))
    return path if path.is_absolute() or path.exists() else root / path
