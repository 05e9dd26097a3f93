"""Settings of a review of a table: its columns, its task, features from elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from saln.data.hugging_face import holds_images
from saln.errors import InputError
from saln.messages import Placeholder, not_allowed, parameter
from saln.review.table_items import (
    ItemColumns,
    TableItems,
    Task,
    is_table,
    read_features,
    read_table_items,
    table_spec,
)
from saln.review.table_reading import SEPARATOR

# The columns that can be named, with the fields of :class:`ItemColumns`.
_COLUMNS = ("text", "image", "label", "id", "split")


@dataclass(frozen=True, kw_only=True)
class TableSettings:
    """What is reviewed of a table, and by what it is judged.

    Raises:
        InputError: Values that do not go together; the message names them.
    """

    text_column: str | None = None
    """Of a table (CSV, TSV, JSON lines, Parquet, hf:): the column of texts; else recognized."""
    image_column: str | None = None
    """The column of image paths, relative to the table's folder; by default recognized."""
    label_column: str | None = None
    """The column of labels, by default recognized; an empty cell means no label."""
    id_column: str | None = None
    """The column of distinct ids; by default 'id', or the rows' numbers."""
    split_column: str | None = None
    """The column of splits; by default 'split', where there is one."""
    task: Task = "classes"
    """The kind of labels: one class each, several (multi-label), or a number (regression)."""
    separator: str = SEPARATOR
    """The separator between the labels of one example; alone it means that none applies."""
    features: Path | None = None
    """A .npy file of features (n, d), instead of a backbone's; needs --ids."""
    ids: Path | None = None
    """A table with the columns id and label, one row for each row of --features."""

    def table_dataset(self, dataset: str) -> str | None:
        """The table's specification, of the data set or ``ids``; None for another data set.

        InputError for no such file, or settings that are for tables alone.
        """
        if not self.separator.strip():
            allowed = "a character such as ; that stands between labels"
            raise not_allowed("separator", self.separator, allowed)
        if self.ids is not None and (dataset or self.features is None):
            needed = f"{parameter('features', Placeholder('FILE'))} too"
            raise InputError(
                f"{parameter('ids', self.ids)} takes the place of a data set of given features; "
                + (f"leave out {dataset}" if dataset else f"give {needed}")
            )
        spec = str(self.ids) if self.ids is not None else dataset
        if is_table(spec):
            return table_spec(spec)
        if self.features is not None:
            raise InputError(
                f"{parameter('features', self.features)} needs the labels of its rows; give "
                f"{parameter('ids', Placeholder('FILE.csv'))} with the columns id and label"
            )
        if spec.startswith("hf:"):
            return None  # whether it is a table of texts is seen when it is opened
        for name in (*(f"{what}_column" for what in _COLUMNS), "task"):
            value = getattr(self, name)
            if value is not None and value != "classes":
                raise InputError(
                    f"{parameter(name, value)} is for tables, and {spec or 'nothing'} is none; "
                    "give a CSV, TSV, JSON lines or Parquet file, or leave it out"
                )
        return None

    def read_table(self, dataset: str, download: bool) -> TableItems | None:
        """The examples of a table; None where the data set is one of images.

        Errors are those of :func:`read_table_items` and :func:`read_features`.
        """
        columns = ItemColumns(**{what: getattr(self, f"{what}_column") for what in _COLUMNS})
        if dataset.startswith("hf:"):
            asked = columns != ItemColumns() or self.task != "classes"
            if not asked and holds_images(dataset.removeprefix("hf:"), download):
                return None
        elif not is_table(dataset):
            return None
        features = None if self.features is None else read_features(self.features)
        return read_table_items(
            dataset,
            columns,
            features=features,
            task=self.task,
            separator=self.separator,
            download=download,
        )
