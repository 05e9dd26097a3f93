"""What was found, in the forms of the tools that people clean data sets with."""

from __future__ import annotations

import functools
import importlib
import json
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

import numpy as np
import numpy.typing as npt

from saln.errors import InputError
from saln.files import write_text
from saln.messages import not_allowed
from saln.review.item_sources import image_files
from saln.review.outliers import OUTLYING
from saln.review.review_items import ReviewItems
from saln.review.review_table import COLUMNS, ReviewTable
from saln.review.table_files import TEXTS, known, utf8, worst_first

# What :func:`export` writes.
EXPORTS = ("cleanlab", "label-studio")
# Of a row, in FiftyOne's fields and in the columns of a Hugging Face data set.
_FACTS = tuple(name for name in COLUMNS if name not in ("id", "key"))


def check_export(kind: str) -> None:
    """Refuses what :func:`export` does not write, with an InputError."""
    if kind not in EXPORTS:
        others = "saln.review.set_fiftyone_fields and saln.review.add_columns"
        allowed = (
            f"{' or '.join(EXPORTS)}. For FiftyOne and Hugging Face data sets there are {others}"
        )
        raise not_allowed("export", kind, allowed)


def export(table: ReviewTable, items: ReviewItems, kind: str, path: Path) -> None:
    """Writes a table as a file that another tool takes.

    ``cleanlab`` writes :func:`cleanlab_issues` as one JSON object, a list a column:
    ``pandas.read_json(path)`` has a row an example, in the data set's order. ``label-studio``
    writes :func:`label_studio_tasks`, and beside it with the ending ``.xml`` the labeling
    interface of the project that they are imported into. InputError for another kind, or Label
    Studio for images that are no files; DataError where it cannot be written.
    """
    check_export(kind)
    if kind == "cleanlab":
        write_text(path, json.dumps(cleanlab_issues(table)) + "\n")
    else:
        tasks = label_studio_tasks(table, items)
        write_text(path.with_suffix(".xml"), label_studio_interface(table, items))
        write_text(path, "[\n" + ",\n".join(map(json.dumps, tasks)) + "\n]\n")


def cleanlab_issues(table: ReviewTable) -> dict[str, list[Any]]:
    """The columns that cleanlab's ``Datalab.get_issues`` has, and those of ``CleanLearning``.

    Rows are in the data set's order, labels are names, unknown scores None. As in cleanlab every
    score is from 0 to 1, and low where something is wrong: ``label_score`` (in ``CleanLearning``
    ``label_quality``) is the probability that the given label is right, ``outlier_score`` one
    less our outlier score, ``near_duplicate_score`` 0 in a group of near duplicates, else 1, and
    ``near_duplicate_sets`` the others' rows.
    """
    suspect = np.zeros(len(table), dtype=bool)
    suspect[table.suspects] = True
    quality = list(map(known, table.probability.tolist()))
    members: dict[int, list[int]] = {}
    for row, group in enumerate(table.group.tolist()):
        if group >= 0:
            members.setdefault(group, []).append(row)
    return {
        "id": [utf8(name) for name in table.ids],
        "is_label_issue": suspect.tolist(),
        "label_score": quality,
        "label_quality": quality,
        "given_label": [utf8(label) or None for label in table.given],
        "predicted_label": [utf8(label) or None for label in table.believed],
        "is_outlier_issue": (table.outlier >= OUTLYING).tolist(),
        "outlier_score": list(map(known, (1.0 - table.outlier).tolist())),
        "is_near_duplicate_issue": (table.group >= 0).tolist(),
        "near_duplicate_score": np.where(table.group >= 0, 0.0, 1.0).tolist(),
        "near_duplicate_sets": [
            [other for other in members.get(group, ()) if other != row]
            for row, group in enumerate(table.group.tolist())
        ],
    }


def label_studio_tasks(table: ReviewTable, items: ReviewItems) -> list[dict[str, Any]]:
    """Tasks for Label Studio's import, worst first, each with the believed label as prediction.

    ``data`` holds the text, or the image as Label Studio serves local files: with
    ``LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT`` the folder that the data set's folder is in, and
    the data set's folder as local storage. It also holds what labels.csv says, to sort and
    filter by. A prediction's score is the probability of the believed label. InputError for images
    that are no files, which Label Studio could not open.
    """
    kind = "image" if items.texts is None else "text"
    paths = image_files(items.images) if items.texts is None and items.images is not None else None
    if items.texts is None and (paths is None or None in paths):
        raise InputError(
            f"the examples of {table.dataset} are neither texts nor files, which is all that "
            "Label Studio opens; export cleanlab, or save the images in a folder"
        )
    tasks = []
    for row in worst_first(table).tolist():
        facts = _facts(table, row)
        data: dict[str, Any] = {"id": utf8(table.ids[row])}
        if items.texts is not None:
            data["text"] = items.texts[row]
        elif paths is not None:
            root, path = paths[row] or (Path(), Path())
            below = path.relative_to(root.parent).as_posix()
            data["image"] = f"/data/local-files/?d={quote(below.encode(errors='surrogateescape'))}"
        task: dict[str, Any] = {"data": data | {f"saln_{k}": v for k, v in facts.items()}}
        if table.believed[row]:
            task["predictions"] = [_prediction(table, row, kind)]
        tasks.append(task)
    return tasks


def label_studio_interface(table: ReviewTable, items: ReviewItems) -> str:
    """The labeling interface of a project whose tasks are :func:`label_studio_tasks`."""
    shown = "image" if items.texts is None else "text"
    lines = ["<View>", f'  <{shown.capitalize()} name="{shown}" value="${shown}"/>']
    if table.task == "regression":
        lines.append(f'  <Number name="label" toName="{shown}"/>')
    else:
        choice = "multiple" if table.task == "multi-label" else "single"
        lines.append(f'  <Choices name="label" toName="{shown}" choice="{choice}">')
        lines += [f"    <Choice value={quoteattr(utf8(name))}/>" for name in table.class_names]
        lines.append("  </Choices>")
    return "\n".join([*lines, "</View>"]) + "\n"


def set_fiftyone_fields(
    samples: Iterable[Any],
    table: ReviewTable,
    *,
    id_of: Callable[[Any], str] | None = None,
    prefix: str = "saln_",
) -> int:
    """Sets what was found as fields of FiftyOne samples: ``saln_probability`` and so on.

    ::

        dataset = fiftyone.Dataset.from_images_dir("photos")
        set_fiftyone_fields(dataset, table)
        session = fiftyone.launch_app(dataset.sort_by("saln_probability"))

    Fields are those of labels.csv, and ``saln_wrong``. Unknown values clear a field that is
    there, and make none. Samples of a data set are saved.

    Args:
        samples: A data set, a view, or samples.
        table: What was found.
        id_of: Gives a sample's id in the table. When None, samples and the table's data set are
            files of one folder, and the id is the path below it.
        prefix: Of the names of fields.

    Returns:
        How many of the samples are in the table.

    Raises:
        InputError: The ids are no paths below a folder and ``id_of`` is None, or none is known.
    """
    if id_of is None:
        if not table.dataset.startswith("folder:"):
            raise InputError(
                f"the examples of {table.dataset} are no files of a folder; give id_of, which "
                "gives a sample's id in the table"
            )
        root = Path(table.dataset.removeprefix("folder:")).resolve()
        id_of = functools.partial(_below, root)
    place = {name: row for row, name in enumerate(table.ids)}
    wrong = set(table.suspects.tolist())
    matched = seen = 0
    for sample in samples:
        seen += 1
        row = place.get(id_of(sample))
        if row is None:
            continue
        matched += 1
        for name, value in (_facts(table, row) | {"wrong": row in wrong}).items():
            # FiftyOne makes a field by the type of its first value, and so not by None.
            if value is not None or sample.has_field(prefix + name):
                sample[prefix + name] = value
        if sample.in_dataset:
            sample.save()
    if seen and not matched:
        raise InputError(
            f"none of {seen:,} samples is in the table of {table.dataset}; give samples of the "
            "same data set, or id_of, which gives a sample's id in the table"
        )
    return matched


def add_columns(dataset: Any, table: ReviewTable, prefix: str = "saln_") -> Any:
    """Adds what was found to a Hugging Face ``Dataset`` or ``DatasetDict``, a column each.

    Args:
        dataset: With the rows that were reviewed, in their order; of a ``DatasetDict`` each split.
        table: What was found.
        prefix: Of the columns' names; columns that have them are replaced.

    Returns:
        The data set with the columns of labels.csv, unknown values None.

    Raises:
        InputError: It has other rows than the table.
    """
    if isinstance(dataset, dict):  # as DatasetDict is
        splits = np.array(table.splits, dtype=object)
        alone = len(dataset) == 1 and not any(table.splits)
        return type(dataset)(
            {
                name: _with_columns(
                    part, table, np.flatnonzero((splits == name) | alone), prefix, f"split {name}"
                )
                for name, part in dataset.items()
            }
        )
    return _with_columns(dataset, table, np.arange(len(table)), prefix, "the data set")


def _with_columns(
    dataset: Any, table: ReviewTable, rows: npt.NDArray[np.int64], prefix: str, named: str
) -> Any:
    if len(dataset) != len(rows):
        raise InputError(
            f"{named} has {len(dataset):,} rows, and the table {len(rows):,} of it; give the data "
            "set that was reviewed, all of it and in its order"
        )
    facts = [_facts(table, row) for row in rows.tolist()]
    there = {prefix + name for name in _FACTS} & set(dataset.column_names)
    dataset = dataset.remove_columns(sorted(there))
    arrow = importlib.import_module("pyarrow")  # datasets needs it, too
    types = dict.fromkeys(_FACTS, arrow.string()) | {"group": arrow.int64()}
    types |= dict.fromkeys(("probability", "margin", "outlier"), arrow.float64())
    for name, kind in types.items():
        # Typed: a column in which all is unknown would have another type in another split.
        column = arrow.array([fact[name] for fact in facts], kind)
        dataset = dataset.add_column(prefix + name, column)
    return dataset


def _facts(table: ReviewTable, row: int) -> dict[str, Any]:
    """What is said of a row, without its id and key; None for what is unknown."""
    facts: dict[str, Any] = {}
    for name in _FACTS:
        value = getattr(table, TEXTS.get(name, name))[row]
        if name in TEXTS:
            facts[name] = utf8(value) or (None if name in ("given", "believed") else "")
        elif name == "group":
            facts[name] = int(value) if value >= 0 else None
        else:
            facts[name] = known(float(value))
    return facts


def _prediction(table: ReviewTable, row: int, shown: str) -> dict[str, Any]:
    believed = table.believed[row]
    value: dict[str, Any]
    if table.task == "regression":
        kind, value = "number", {"number": float(believed)}
    else:
        names = believed.split(";") if table.task == "multi-label" else [believed]
        kind, value = "choices", {"choices": [utf8(name) for name in names]}
    result = {
        "id": f"saln-{row}",
        "from_name": "label",
        "to_name": shown,
        "type": kind,
        "value": value,
    }
    prediction = {"model_version": "saln", "result": [result]}
    # The margin is the given label's probability less the likeliest other's, which is believed.
    own = table.given[row] == believed
    score = float(table.probability[row]) - (0.0 if own else float(table.margin[row]))
    return prediction if math.isnan(score) else prediction | {"score": score}


def _below(root: Path, sample: Any) -> str:
    """The path of a sample's file below a folder; the whole path where it is elsewhere."""
    path = Path(sample.filepath)
    path = path.parent.resolve() / path.name  # a file that is a link has its own name
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
