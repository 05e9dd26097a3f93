"""Writes tables anew with other labels, a part at a time: what is not changed stays as it is."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from saln._extras import optional_import
from saln.errors import DataError, InputError
from saln.messages import shown
from saln.review.table_reading import SEPARATOR, first_sign, large_fields, open_table

# Row -> its new label as text; None: it is dropped.
Changes = Mapping[int, str | None]
CORRECTED, DROPPED = "label_corrected", "dropped"
# Rows of a Hugging Face data set at a time: of images they take some tens of megabytes.
_ROWS = 256
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}


def write_csv_labels(source: Path, label: str, changes: Changes, target: Path) -> None:
    """Writes a CSV file with other labels and without dropped rows; other lines stay."""
    delimiter = getattr(open_table(source), "delimiter", ",")
    with (
        large_fields(),
        source.open(encoding="utf-8", newline="") as read,
        target.open("w", encoding="utf-8", newline="") as written,
    ):
        lines = _Lines(read)
        reader = csv.reader(lines, delimiter=delimiter)
        header = next(cells for cells in reader if cells)
        column = [name.lstrip("\ufeff") for name in header].index(label)
        written.write(lines.taken())
        row = -1
        for cells in reader:
            text = lines.taken()
            row += bool(cells)  # an empty line is none
            if not cells or row not in changes:
                written.write(text)
                continue
            new = changes[row]
            if new is not None:
                cells[column] = new
                stream = io.StringIO()
                # Of lines that end in both signs: so both are quoted where a cell holds them.
                csv.writer(stream, delimiter=delimiter).writerow(cells)
                end = text[len(text.rstrip("\r\n")) :]
                written.write(stream.getvalue().removesuffix("\r\n") + end)


class _Lines:
    """The lines of a file, and the text of those that were taken since somebody asked."""

    def __init__(self, stream: Iterable[str]) -> None:
        self._lines, self._taken = iter(stream), list[str]()

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self._taken.append(line)
        return line

    def taken(self) -> str:
        """Their text."""
        text = "".join(self._taken)
        self._taken.clear()
        return text


def write_json_labels(source: Path, label: str, changes: Changes, target: Path) -> None:
    """Writes JSON lines, or a list of objects, with other labels and without dropped rows."""
    with source.open(encoding="utf-8-sig") as read, target.open("w", encoding="utf-8") as written:
        if first_sign(read) == "[":
            rows = [
                _json_row(value, label, changes, row) for row, value in enumerate(json.load(read))
            ]
            kept = [value for value in rows if value is not None]
            json.dump(kept, written, ensure_ascii=False, indent=1)
            return
        row = -1
        for line in read:
            row += not line.isspace()
            if line.isspace() or row not in changes:
                written.write(line)
                continue
            value = _json_row(json.loads(line), label, changes, row)
            if value is not None:
                written.write(json.dumps(value, ensure_ascii=False) + "\n")


def _json_row(value: dict[str, Any], label: str, changes: Changes, row: int) -> Any:
    if row not in changes:
        return value
    new = changes[row]
    return None if new is None else value | {label: _like(value.get(label), new)}


def _like(old: Any, text: str) -> Any:
    """A label as the kind of value that is there."""
    if isinstance(old, list):
        kind = old[0] if old else ""
        return [_like(kind, part) for part in text.split(SEPARATOR) if part.strip()]
    if isinstance(old, bool):
        return _BOOLEANS[text.lower()]
    return type(old)(text) if isinstance(old, int | float) else text


def write_parquet_labels(source: Path, label: str, changes: Changes, target: Path) -> None:
    """Writes a Parquet file with the columns ``label_corrected`` and ``dropped`` more."""
    with optional_import("select", f"{source}"):
        import pyarrow.parquet as parquet
    with parquet.ParquetFile(source) as file:
        # The labels of a data set of images have their names in here.
        schema = _wider(file.schema_arrow, label, file.schema_arrow.metadata)
        groups = (file.read_row_group(number) for number in range(file.num_row_groups))
        _write(groups, schema, label, changes, None, target)


def write_hub(
    tables: Mapping[str, Any], label: str, changes: Changes, target: Path, *, whole: bool = False
) -> None:
    """Writes the splits of a Hugging Face data set as Parquet, with the same two columns more.

    A file a split into the folder ``target``, so that the package finds them; or into the file
    ``target`` where the data set is a ``whole`` of one split.
    """
    import datasets

    first = 0
    kind = next(table.features[label] for table in tables.values() if label in table.features)
    for split, table in tables.items():
        known = table.features
        more = {_free(CORRECTED, known): kind, _free(DROPPED, known): datasets.Value("bool")}
        features = datasets.Features({**known, **more})
        names = kind.names if isinstance(kind, datasets.ClassLabel) else None
        own = {row - first: new for row, new in changes.items() if row >= first}
        parts = table.with_format("arrow").iter(_ROWS)
        place = target if whole else target / f"{split}-00000-of-00001.parquet"
        _write(parts, features.arrow_schema, label, own, names, place)
        first += len(table)


def _corrected(labels: Any, first: int, changes: Changes, names: list[str] | None) -> Any:
    """The labels of a part of a table that begins at a row, corrected, of the same type."""
    import pyarrow as pa

    rows = [row for row in range(len(labels)) if first + row in changes]
    if not rows:
        return labels
    values = labels.to_pylist()
    for row in rows:
        new = changes[first + row]
        try:
            values[row] = None if new is None else _value(new, labels.type, names)
        except (ValueError, KeyError) as error:
            raise InputError(
                f"the label {shown(str(new))} of row {first + row} is none that a column of "
                f"{labels.type} can hold; give another"
            ) from error
    return pa.array(values, labels.type)


def _value(text: str, kind: Any, names: list[str] | None) -> Any:
    """A label as a column holds it: of classes with names, their numbers."""
    from pyarrow import types

    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        parts = [part for part in text.split(SEPARATOR) if part.strip()]
        return [_value(part, kind.value_type, names) for part in parts]
    if types.is_dictionary(kind):
        return _value(text, kind.value_type, names)
    if names is not None:
        return names.index(text)
    if types.is_boolean(kind):
        return _BOOLEANS[text.lower()]
    if types.is_integer(kind):
        return int(text)
    return float(text) if types.is_floating(kind) else text


def _free(name: str, taken: Iterable[str]) -> str:
    """A column's name, with a number where there is one of this name."""
    names, number, free = set(taken), 1, name
    while free in names:
        number += 1
        free = f"{name}_{number}"
    return free


def _wider(schema: Any, label: str, metadata: Mapping[bytes, bytes] | None) -> Any:
    """A schema with the two columns more, which what it says of itself names, too."""
    import pyarrow as pa

    corrected, dropped = _free(CORRECTED, schema.names), _free(DROPPED, schema.names)
    wider = schema.append(pa.field(corrected, schema.field(label).type))
    wider = wider.append(pa.field(dropped, pa.bool_()))
    said = dict(metadata or {})
    if b"huggingface" in said:
        known = json.loads(said[b"huggingface"])
        features = known.get("info", {}).get("features", {})
        if label in features:
            features[corrected] = features[label]
            features[dropped] = {"dtype": "bool", "_type": "Value"}
            said[b"huggingface"] = json.dumps(known).encode()
    return wider.with_metadata(said)


def _write(
    parts: Iterable[Any],
    schema: Any,
    label: str,
    changes: Changes,
    names: list[str] | None,
    target: Path,
) -> None:
    """Writes a table part by part, each as a row group of its own."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    first = 0
    try:
        with parquet.ParquetWriter(target, schema, write_page_checksum=True) as writer:
            for part in parts:
                if label in part.column_names:
                    labels = pa.concat_arrays(part.column(label).chunks)
                else:  # a split whose labels nobody knows
                    labels = pa.nulls(len(part), schema.types[-2])
                rows = range(first, first + len(part))
                dropped = [row in changes and changes[row] is None for row in rows]
                corrected = _corrected(labels, first, changes, names)
                columns = [*part.columns, corrected, pa.array(dropped, pa.bool_())]
                writer.write_table(pa.Table.from_arrays(columns, schema=schema))
                first += len(part)
    except pa.ArrowException as error:
        raise DataError(f"{target} cannot be written ({str(error).splitlines()[0]})") from error
