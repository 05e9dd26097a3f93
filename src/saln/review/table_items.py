"""What is reviewed, from a table: texts or paths of images in one column, labels in another."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import xxhash

from saln.data.hugging_face import open_tables
from saln.data.image_sources import FileImages
from saln.data.items import IMAGE_KEYS, LABEL_KEYS
from saln.errors import DataError, InputError
from saln.files import file_checksum
from saln.messages import Placeholder, parameter, shown
from saln.review.review_items import ReviewItems
from saln.review.table_reading import KINDS, SEPARATOR, HubTable, TextTable, open_table

Task = Literal["classes", "multi-label", "regression"]

# What a column is plainly for, by its name in small letters; the first that is there is taken.
_TEXT = (
    "text", "sentence", "review", "content", "document", "body", "message", "comment", "question",
    "utterance", "query", "tweet", "description",
)  # fmt: skip
_IMAGE = (
    *("image_path", "img_path", "path", "file_name", "filename", "filepath", "file"), *IMAGE_KEYS
)  # fmt: skip
_LABEL = (*LABEL_KEYS, "classes", "category", "categories", "topic", "sentiment", "intent", "tags")
_ID = ("id", "uid", "guid", "uuid")
_SPLIT = ("split", "subset", "fold")
_SPLITS = {
    "train": "train", "training": "train", "test": "test", "testing": "test",
    "val": "validation", "valid": "validation", "validation": "validation", "dev": "validation",
}  # fmt: skip


@dataclass(frozen=True)
class ItemColumns:
    """Which columns of a table hold what; None: found by its name, or there is none."""

    text: str | None = None
    image: str | None = None  # Paths, from the table's folder on
    label: str | None = None
    # What a person finds an example by; of a table that was read, None says that the rows' numbers
    # are ids, from 0.
    id: str | None = None
    split: str | None = None


@dataclass(frozen=True)
class TableItems:
    """The examples of a table."""

    # Their data set is ``csv:``, ``jsonl:`` or ``parquet:`` and the file's absolute path, or
    # ``hf:`` and its name.
    items: ReviewItems
    labels: Sequence[str]  # (n,): as they are written; empty where there is none
    columns: ItemColumns  # Which columns were read; None: there is none
    task: Task
    separator: str  # Stands between the classes of a label that is a set
    # What a person should know of that, a line each: ``columns: ...``, ``ids: ...``.
    remarks: tuple[str, ...]


def is_table(spec: str) -> bool:
    """Whether a specification is a file of a table, with or without its kind before it."""
    path = Path(table_path(spec))
    return path.suffix.lower() in KINDS and not spec.startswith(("hf:", "folder:"))


def table_spec(spec: str) -> str:
    """The specification of a table with its kind and its absolute path; else InputError."""
    path = table_path(spec)
    try:
        known = Path(path).expanduser().is_file()
    except (OSError, ValueError, RuntimeError):  # a name that no system allows
        known = False
    if not known:
        raise InputError(f"{parameter('dataset', spec)} is no file; give the path of a table")
    absolute = Path(path).expanduser().absolute()
    return f"{KINDS[absolute.suffix.lower()]}:{absolute}"


def table_path(spec: str) -> str:
    """The path in a specification such as ``csv:data.csv``, or alone."""
    kind, colon, path = spec.partition(":")
    return path if colon and kind in KINDS.values() else spec


def read_table_items(
    spec: str,
    columns: ItemColumns | None = None,
    *,
    features: npt.NDArray[Any] | None = None,
    task: Task = "classes",
    separator: str = SEPARATOR,
    download: bool = False,
) -> TableItems:
    """The examples of a table with texts, or with paths of images.

    The specification is the path of a CSV, TSV, JSON lines or Parquet file, with or without its
    kind before it (``csv:data.csv``); or ``hf:NAME-OR-PATH``, of which all splits are read, and the
    hub may be asked with ``download``. Columns are found by their names where that is plain. With
    ``features``, (n, d) in the order of the table, it needs neither text nor image: by them an
    example is known again. Of tasks other than ``"classes"`` the items' ``given`` is -1 everywhere,
    and the labels are those of the result.

    InputError for no such file or column, columns that are not plain, or ids that are not distinct;
    DataError where the table cannot be read, names the line.
    """
    asked = columns or ItemColumns()
    table, dataset, folder = _opened(spec, separator, download)
    found, remarks = _resolved(table, asked, needs_content=features is None)
    values = table.read([name for name in vars(found).values() if name is not None])
    # Each distinct text is held once; one of spaces alone is none.
    held: dict[str, str] = {}
    written = values[str(found.label)]
    labels = [held.setdefault(label, label if label.strip() else "") for label in written]
    if not labels:
        raise DataError(f"{table.name} has no rows; give a table with some")
    if features is not None and len(features) != len(labels):
        raise InputError(
            f"{table.name} has {len(labels):,} rows and {parameter('features')} has "
            f"{len(features):,}; give one row of the table a row of features, in the same order"
        )
    if task == "classes":
        _check_classes(table.name, str(found.label), labels)
    names = class_names_of(labels, task, separator)
    place = {name: number for number, name in enumerate(names)} if task == "classes" else {}
    ids, remark = _ids(table.name, values, found, asked.id is not None)
    splits = [""] * len(labels)
    if found.split is not None:
        splits = [
            _SPLITS.get(split.strip().lower(), split.strip()) for split in values[found.split]
        ]
    items = ReviewItems(
        dataset=dataset,
        class_names=names,
        ids=[str(row) for row in range(len(labels))] if ids is None else values[ids],
        splits=splits,
        given=np.fromiter((place.get(label, -1) for label in labels), np.int64, len(labels)),
        **_content(values, found, folder, features),
    )
    found = replace(found, id=ids)
    remarks = [line for line in (*remarks, remark) if line]
    return TableItems(items, labels, found, task, separator, tuple(remarks))


def read_features(path: Path) -> npt.NDArray[Any]:
    """Features that were computed elsewhere, mapped: numbers, (n, d).

    InputError where there is no such file, DataError where it holds no rows of numbers.
    """
    if not path.is_file():
        raise InputError(f"{parameter('features', path)} is no file; give a .npy of (n, d) numbers")
    try:
        rows: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} is no .npy file of numbers; save it by numpy.save") from error
    if not isinstance(rows, np.ndarray) or rows.ndim != 2 or rows.dtype.kind not in "fiub":
        held = f"{rows.dtype} {rows.shape}" if isinstance(rows, np.ndarray) else "several arrays"
        raise DataError(f"{path} holds {held}; give numbers, (n, d): one row an example")
    return rows


def class_names_of(labels: Iterable[str], task: Task, separator: str) -> tuple[str, ...]:
    """The classes that occur, each once: numbers by size, names by alphabet; numbers have none."""
    names = {label for label in labels if label}
    if task == "regression":
        return ()
    if task == "multi-label":
        names = {name for label in names for name in label_set(label, separator)}
    if all(name.isdecimal() for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))


def label_set(label: str, separator: str) -> tuple[str, ...]:
    """The classes of an example that may have several; a separator alone stands for none."""
    parts = (part.strip() for part in label.split(separator))
    return tuple(dict.fromkeys(part for part in parts if part))


def _opened(spec: str, separator: str, download: bool) -> tuple[TextTable, str, Path]:
    """A table, its specification with an absolute path, and where paths in it begin."""
    if spec.startswith("hf:"):
        tables, folder = open_tables(spec.removeprefix("hf:"), download)
        path = Path(spec.removeprefix("hf:")).expanduser()
        dataset = f"hf:{path.absolute()}" if path.exists() else spec
        return HubTable(dataset, tables, separator), dataset, folder.absolute()
    path = Path(table_path(spec)).expanduser().absolute()
    table = open_table(path, separator)  # refuses what is no table
    return table, f"{KINDS[path.suffix.lower()]}:{path}", path.parent


def _check_classes(table: str, column: str, labels: list[str]) -> None:
    """Refuses labels of which hardly any occurs twice: none tells anything about another."""
    known = [label for label in labels if label]
    distinct = len(set(known))
    if len(known) > 20 and distinct > len(known) / 2:
        raise InputError(
            f"{table}: column {column} holds {distinct:,} different labels in {len(known):,} rows, "
            f"such as {shown(known[0])}; give {parameter('label_column', Placeholder('NAME'))} of "
            f"one with classes, or {parameter('task', 'regression')} for numbers or "
            f"{parameter('task', 'multi-label')} for sets of classes"
        )


def text_key(text: str) -> str:
    """The hash of a text, by which it is known again."""
    return xxhash.xxh3_128_hexdigest(text.encode("utf-8", errors="surrogatepass"))


def _resolved(
    table: TextTable, asked: ItemColumns, needs_content: bool
) -> tuple[ItemColumns, list[str]]:
    """Columns by name, or by what a name plainly says; and a line for each that was guessed."""
    for what, name in vars(asked).items():
        if name is not None and name not in table.columns:
            raise InputError(
                f"{parameter(f'{what}_column', name)}: {table.name} has no such column; choose "
                f"among {', '.join(table.columns)}"
            )
    if asked.text is not None and asked.image is not None:
        raise InputError(
            f"{parameter('text_column', asked.text)} and {parameter('image_column', asked.image)} "
            "exclude each other; give the one that is to be judged"
        )
    chosen = dict(vars(asked))
    taken = {name for name in chosen.values() if name is not None}

    def guess(what: str, names: Sequence[str]) -> None:
        by_name = {name.strip().lower(): name for name in table.columns if name not in taken}
        name = next((by_name[each] for each in names if each in by_name), None)
        if chosen[what] is None and name is not None:
            chosen[what] = name
            taken.add(name)

    guess("label", _LABEL)
    if asked.text is None and asked.image is None:
        guess("text", _TEXT)
        if chosen["text"] is None:
            guess("image", _IMAGE)
    guess("id", _ID)
    guess("split", _SPLIT)
    for what, name in (("label", chosen["label"]), ("text", chosen["text"] or chosen["image"])):
        if name is None and (what == "label" or needs_content):
            other = f" or {parameter('image_column', Placeholder('NAME'))}" * (what == "text")
            kind = "texts or images" if what == "text" else "labels"
            raise InputError(
                f"{table.name} has no column that plainly holds {kind}; give "
                f"{parameter(f'{what}_column', Placeholder('NAME'))}{other}, one of "
                f"{', '.join(table.columns)}"
            )
    guessed = [f"{what} = {name}" for what, name in chosen.items()
               if name is not None and getattr(asked, what) is None]  # fmt: skip
    return ItemColumns(**chosen), [f"columns: {', '.join(guessed)}"] if guessed else []


def _ids(
    table: str, values: dict[str, list[str]], found: ItemColumns, is_asked: bool
) -> tuple[str | None, str]:
    """The column of distinct ids; None where the rows' numbers are ids, with a line that says so.

    InputError where the column that was asked for holds one twice, or none.
    """
    column = found.id or found.image
    if column is None:
        return None, ""
    first: dict[str, int] = {}
    for row, name in enumerate(values[column]):
        if name and first.setdefault(name, row) == row:
            continue
        what = f"{name!r} twice (rows {first[name]} and {row})" if name else f"none in row {row}"
        if is_asked:
            raise InputError(
                f"{table}: {parameter('id_column', column)} has {what}, counted from 0; give a "
                "column of distinct ids, or leave it out"
            )
        return None, f"ids: the rows' numbers, from 0, as column {column} has {what}"
    return column, ""


def _content(
    values: dict[str, list[str]],
    found: ItemColumns,
    folder: Path,
    features: npt.NDArray[Any] | None,
) -> dict[str, Any]:
    """Texts, images or neither, with the hashes of what is judged."""
    content: dict[str, Any] = {}
    if found.text is not None:
        content["texts"] = values[found.text]
    elif found.image is not None:
        # Without "..", so that every file has a name below the root.
        paths = [Path(os.path.normpath(folder / name)) for name in values[found.image]]
        root = folder
        if not all(path.is_relative_to(folder) for path in paths):
            root = Path(os.path.commonpath([str(path.parent) for path in paths]))
        content["images"] = FileImages(root, paths)
    if features is not None:
        rows = (np.ascontiguousarray(row) for row in features)
        content["keys"] = [xxhash.xxh3_128_hexdigest(row.data) for row in rows]
    elif "texts" in content:
        content["keys"] = [text_key(text) for text in content["texts"]]
    else:
        content["keys"] = [_file_key(path) for path in content["images"].paths]
    return content


def _file_key(path: Path) -> str:
    """The hash of an image's bytes; empty where it cannot be read."""
    try:
        return file_checksum(path)
    except (OSError, ValueError):
        return ""
