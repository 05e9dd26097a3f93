"""``saln.find_label_issues``: a review from Python, of whatever holds examples and labels."""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict, Unpack, cast

import numpy as np
import numpy.typing as npt
import xxhash
from PIL import Image

from saln.data.arguments import as_array
from saln.data.file_names import kept_as, name_of
from saln.data.fingerprint import fingerprint
from saln.data.items import check_map_style, read_item
from saln.errors import DataError, InputError
from saln.features.store import FeatureStore
from saln.labels.given_labels import given_labels, labels_of
from saln.messages import not_allowed, parameter, shown
from saln.review.judging import judge_items
from saln.review.review_items import ReviewItems
from saln.review.review_run import ImageSettings, ReviewSettings, review_items, run_review
from saln.review.review_table import ReviewTable
from saln.review.table_files import to_pandas
from saln.review.table_items import ItemColumns, TableItems, Task, class_names_of, text_key
from saln.review.table_reading import SEPARATOR, as_text
from saln.review.task_tables import task_table


class IssueOptions(TypedDict, total=False):
    """What :func:`find_label_issues` takes for images; the flags of `saln labels` say the same."""

    backbone: str | None
    """The frozen network; when not given, the best one whose weights are on this machine."""
    backbone_weights: Path | None
    """A file with its state dict, instead of a download."""
    feature_size: int | None
    """Pixels that it sees; its own, or 224, when not given."""
    data_root: Path
    """Of a data set by name: where cifar10 and oxford-pet are."""
    download: bool
    """Of a data set by name: fetch it where it is not there."""
    device: Any
    """``"auto"``, ``"cpu"`` or ``"cuda"``."""
    workers: int
    """Processes that load images."""
    batch_size: int | None
    """Images a forward pass."""
    strict: bool
    """Stop at an image that cannot be read; else it is listed, and the others are judged."""
    cache_dir: Path | None
    """Where features are kept."""
    noise_rate: float | None
    """The share of wrong labels, where it is known; of features and texts, too."""
    text_column: str | None
    """Of a table by its path, or hf:, the column of texts; found by its name when not given."""
    image_column: str | None
    """The column of paths of images."""
    label_column: str | None
    """The column of labels."""
    id_column: str | None
    """The column of ids."""
    split_column: str | None
    """The column of splits."""
    features: Path | None
    """Of a table by its path: a .npy of its examples' features, in the place of a backbone's."""
    task: Task
    """``"classes"``, ``"multi-label"`` or ``"regression"``; of features and texts, too."""
    separator: str
    """Of a table by its path: what stands between the labels of an example that has several."""


def find_label_issues(
    dataset: Any,
    labels: Any = None,
    *,
    class_names: Sequence[str] | None = None,
    ids: Sequence[str] | None = None,
    **options: Unpack[IssueOptions],
) -> Any:
    """How likely every label is right, worst first: `saln labels` without its files.

    ::

        issues = saln.find_label_issues("photos")
        issues = saln.find_label_issues(torchvision.datasets.ImageFolder("photos"))
        issues = saln.find_label_issues(features, labels)
        issues = saln.find_label_issues(texts, labels)
        issues = saln.find_label_issues("reviews.csv", text_column="text", label_column="stars")
        issues[issues.probability < 0.5]

    Args:
        dataset: A folder of images, a table (CSV, TSV, JSON lines, Parquet) or another data set by
            name; or any map-style data set that gives ``(image, label)``; or, with ``labels`` or
            as a feature store, features (n, d); or, with ``labels``, n texts.
        labels: (n,): with features or texts: class numbers or names, as :func:`saln.judge_labels`
            takes. With ``task="multi-label"`` lists of classes, or yes and no, (n, C); with
            ``task="regression"`` numbers. None is unknown.
        class_names: The names of classes 0, 1, ...; what the data set says when not given.
        ids: (n,): what a person finds each example by; files or rows when not given.
        options: See :class:`~saln.review.find_issues.IssueOptions`.

    Returns:
        A ``pandas.DataFrame`` with the columns of ``labels.csv``, whose index is the example's
        row; where pandas is not installed, the :class:`~saln.review.review_table.ReviewTable`.

    Raises:
        InputError: A data set, labels or an option that cannot work.
        DataError: What is there cannot be read.
        WeightsError: The network's weights cannot be had.
        MissingExtraError: A package that is needed is not installed.
    """
    if isinstance(dataset, str | os.PathLike):
        if labels is not None or class_names is not None or ids is not None:
            raise InputError(
                "labels, class_names and ids are for features or a data set that is given; "
                f"{os.fspath(dataset)} has its own"
            )
        table = run_review(ReviewSettings(dataset=os.fspath(dataset), **options)).table
    elif labels is not None or isinstance(dataset, FeatureStore):
        table = _labeled_table(dataset, labels, class_names, ids, dict(options))
    else:
        for_names = [name for name in ("data_root", "download") if name in options]
        if for_names:
            raise InputError(f"{', '.join(for_names)}: for a data set by name; leave it out")
        settings = ImageSettings(**cast(Any, options))
        network = settings.network()
        table = review_items(_dataset_items(dataset, class_names, ids), network, settings).table
    return to_pandas(table) if importlib.util.find_spec("pandas") else table


def _labeled_table(
    dataset: Any,
    labels: Any,
    class_names: Sequence[str] | None,
    ids: Sequence[str] | None,
    options: dict[str, Any],
) -> ReviewTable:
    """Of features or texts, with labels beside them."""
    task, texts = options.pop("task", "classes"), texts_of(dataset)
    noise_rate = options.pop("noise_rate", None)
    if noise_rate is not None and task != "classes":
        raise not_allowed("task", task, f"classes with {parameter('noise_rate')}")
    if options and texts is None:
        raise InputError(
            f"{', '.join(options)}: for images, and these are features already; leave it out"
        )
    labels, class_names = labels_of(dataset, labels, class_names)
    held = dataset.features if isinstance(dataset, FeatureStore) else dataset
    rows = as_array(held, "features") if texts is None else None
    if rows is not None and rows.ndim != 2:
        raise InputError(f"features are {rows.shape}; give (n, d), one row an example")
    count = len(texts or ()) if rows is None else len(rows)
    kept: dict[str, Any] = {}
    if texts is not None:
        kept = {"texts": texts, "keys": [text_key(text) for text in texts]}
    name, read = "features" if texts is None else "texts", None
    if task == "classes":
        given = given_labels(labels, count, class_names)
        if given.soft is not None:
            raise InputError("labels are shares of classes; give one class an example")
        items = _items(name, given.names, given.places, ids, **kept)
    else:
        written = label_texts(labels, count, task, class_names)
        names = class_names_of(written, task, SEPARATOR)
        items = _items(name, names, np.full(count, -1), ids, **kept)
        read = TableItems(items, written, ItemColumns(), task, SEPARATOR, ())
    if rows is None:
        settings = ImageSettings(**options, noise_rate=noise_rate)
        return review_items(items, None, settings, read=read).table
    if read is not None:
        return task_table(read, rows)
    return judge_items(items, rows, noise_rate=noise_rate)


def texts_of(values: Any) -> list[str] | None:
    """Texts that somebody gave as a list, an array or a column; None where they are none."""
    some = values.tolist() if hasattr(values, "tolist") else values
    if not isinstance(some, list | tuple) or not some:
        return None
    return list(some) if all(isinstance(text, str) for text in some) else None


def label_texts(
    labels: Any, count: int, task: Task, class_names: Sequence[str] | None
) -> list[str]:
    """Sets of classes, or numbers, that somebody gave, as a table holds them.

    ``labels`` are (n,): lists of classes or numbers, None or NaN where there is none; or yes and no
    for each class, (n, C). ``class_names`` name classes 0, 1, ...; None where lists hold names.
    InputError for not one an example, another task, or what is no label of it.
    """
    if task not in ("multi-label", "regression"):
        raise not_allowed("task", task, "classes, multi-label or regression")
    given = labels.tolist() if hasattr(labels, "tolist") else list(labels)
    if len(given) != count:
        raise InputError(f"{count} examples and {len(given)} labels; give one an example")
    if task == "multi-label" and getattr(labels, "ndim", 1) == 2:
        given = [[place for place, has in enumerate(row) if has] for row in given]
    if task == "multi-label" and class_names is not None:
        given = [row if row is None else [class_names[place] for place in row] for row in given]
    nested = [row for row in given if isinstance(row, list | tuple | set | frozenset)]
    if task == "regression" and nested:
        raise InputError(f"a label is {shown(nested[0])}; give a number an example")
    plain = (sorted(row, key=str) if isinstance(row, set | frozenset) else row for row in given)
    return [as_text(row, SEPARATOR) for row in plain]


def _items(
    name: str,
    class_names: Sequence[str],
    given: npt.NDArray[np.int64],
    ids: Sequence[str] | None,
    **rest: Any,
) -> ReviewItems:
    """Examples without splits."""
    count = len(given)
    named = [str(row) for row in range(count)] if ids is None else list(map(str, ids))
    if len(named) != count or len(set(named)) < count:
        raise InputError(
            f"ids are {len(named)}, {len(set(named))} of them different, for {count} examples; "
            "give each its own"
        )
    rest.setdefault("keys", [""] * count)
    return ReviewItems(
        dataset=name,
        class_names=tuple(class_names),
        ids=named,
        splits=[""] * count,
        given=given,
        **rest,
    )


@dataclass(frozen=True)
class _DatasetImages:
    """The images of a map-style data set, by row."""

    dataset: Any

    def __len__(self) -> int:
        return len(self.dataset)

    def load(self, row: int) -> Image.Image:
        return read_item(self.dataset, row)[0]

    def header(self, row: int) -> tuple[int, int]:
        return self.load(row).size

    def name_of(self, row: int) -> str:
        return name_of(self.dataset, row) or f"example {row}"

    def fingerprint(self) -> str:
        return fingerprint(self.dataset)


def _dataset_items(
    dataset: Any, class_names: Sequence[str] | None, ids: Sequence[str] | None
) -> ReviewItems:
    """The examples of a map-style data set; each is opened once for its label and content."""
    check_map_style(dataset)
    given = np.full(len(dataset), -1, dtype=np.int64)
    keys = [""] * len(dataset)
    for row in range(len(dataset)):
        # An example that cannot be read is listed when its features are made.
        with contextlib.suppress(DataError):
            image, given[row] = read_item(dataset, row)
            keys[row] = xxhash.xxh3_128_hexdigest(np.asarray(image).tobytes())
    if class_names is None:
        named = kept_as(dataset, ("classes", "class_names"))
        class_names = named or tuple(map(str, range(int(given.max()) + 1)))
    if int(given.max()) >= len(class_names):
        raise InputError(
            f"a label is {int(given.max())} and there are {len(class_names)} class names; give "
            "one a class"
        )
    if ids is None:
        names = [name_of(dataset, row) or str(row) for row in range(len(dataset))]
        ids = names if len(set(names)) == len(names) else None
    images = _DatasetImages(dataset)
    return _items(type(dataset).__name__, class_names, given, ids, keys=keys, images=images)
