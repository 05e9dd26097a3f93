"""The columns of the output are the ones asked for, of whatever kind the input has them."""

from __future__ import annotations

import json
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import saln
from saln.cli import main
from saln.curation.feature_sources import open_source
from saln.errors import DataError, InputError

ROWS, WIDTH = 120, 5
FEATURES = np.random.default_rng(5).random((ROWS, WIDTH)).astype(np.float32)
LABELS = np.arange(ROWS) % 3


def write(path, **columns):
    with path.open("wb") as stream:
        pq.write_table(pa.table({"features": list(FEATURES), **columns}), stream, row_group_size=50)
    return path


def select(source, out, selector="saln", **options):
    options = {"candidates": 40, "filter_ratio": 0.5, **options}
    return saln.select(source, selector=selector, out=out, **options)


@pytest.mark.parametrize(
    ("columns", "flags", "said"),
    [
        (["label", "y"], {"labels_column": "y"}, "named label, which labels_column='y' would"),
        (["id", "name"], {"id_column": "name"}, "named id, which id_column='name' would"),
        (["score", "y"], {}, "columns named score, which the output adds"),
        (["label_confidence", "y"], {"labels_column": "y", "selector": "coherence"},
         "columns named label_confidence, which the output adds"),
        (["believed_label", "y"], {"labels_column": "y", "selector": "coherence"},
         "columns named believed_label, which the output adds"),
    ],
)  # fmt: skip
def test_a_column_that_would_be_there_twice_is_refused(tmp_path, columns, flags, said):
    path = write(tmp_path / "rows.parquet", **dict.fromkeys(columns, LABELS))
    with pytest.raises(InputError, match=said):
        select(path, tmp_path / "kept.parquet", **flags)
    assert [path.name for path in tmp_path.iterdir()] == ["rows.parquet"]


@pytest.mark.parametrize(
    ("columns", "flags", "added"),
    [
        (["label", "id"], {"labels_column": "label", "id_column": "id"}, []),
        (["label", "id"], {"labels_column": "label"}, []),
        (["label", "id"], {}, []),
        (["y"], {"labels_column": "y"}, ["id", "label"]),
        (["label_confidence"], {}, ["id"]),  # of no meaning here: kept as it is
    ],
)
def test_each_column_is_there_once(tmp_path, columns, flags, added):
    given = {name: LABELS + 10 * number for number, name in enumerate(columns)}
    path = write(tmp_path / "rows.parquet", row=np.arange(ROWS), **given)
    select(path, tmp_path / "kept.parquet", **flags)
    table = pq.read_table(tmp_path / "kept.parquet")
    names = ["features", "row", *columns, *added, "score", "weight", "batch"]
    assert table.column_names == names
    rows = table["row"].to_numpy()
    for name in columns:
        assert table[name].to_pylist() == given[name][rows].tolist()
    if "id" in added:
        assert table["id"].to_pylist() == rows.tolist()
    if "label" in added:
        assert table["label"].to_pylist() == given["y"][rows].tolist()


NAMES = pa.array([("owl", "cat", "dog")[label] for label in LABELS])


@pytest.mark.parametrize(
    ("labels", "values"),
    [
        (pa.array(LABELS, pa.uint8()), [0, 1, 2]),
        (pa.array(LABELS * 1_000_000, pa.int32()), [0, 1_000_000, 2_000_000]),
        (pa.array(LABELS.astype(np.float64)), [0, 1, 2]),
        (pa.array(LABELS > 0), [0, 1, 1]),
        (NAMES, ["owl", "cat", "dog"]),
        (NAMES.cast(pa.large_string()), ["owl", "cat", "dog"]),
        (NAMES.dictionary_encode(), ["owl", "cat", "dog"]),
    ],
)
def test_labels_of_every_kind_are_judged_as_what_they_are(tmp_path, labels, values):
    """Ten labels are wrong, and the beliefs say what they should be."""
    classes = np.arange(len(values))[LABELS] if len(set(values)) == 3 else (LABELS > 0).astype(int)
    features = FEATURES / 4 + 2 * np.eye(WIDTH, dtype=np.float32)[classes]
    right = [values[label] for label in LABELS]
    kind = labels.type
    given = labels.to_pylist()
    for row in range(10):
        given[row] = labels[row + 1].as_py() if right[row + 1] != right[row] else given[row + 2]
    wrong = {row for row in range(10) if given[row] != labels[row].as_py()}
    array = pa.array(given, kind.value_type if pa.types.is_dictionary(kind) else kind)
    if pa.types.is_dictionary(kind):
        array = array.dictionary_encode()
    table = pa.table({"features": list(features), "y": array, "row": np.arange(ROWS)})
    pq.write_table(table, tmp_path / "rows.parquet", row_group_size=50)
    result = select(
        tmp_path / "rows.parquet", tmp_path / "kept.parquet", "coherence", labels_column="y"
    )
    kept = pq.read_table(tmp_path / "kept.parquet")
    rows = kept["row"].to_numpy()
    found = [int(label) if isinstance(label, bool) else label for label in given]
    assert kept["label"].to_pylist() == [found[row] for row in rows]
    assert kept["believed_label"].to_pylist() == [right[row] for row in rows]
    assert not wrong & set(rows.tolist())
    listed = json.loads(result.labels.read_text())
    assert {entry["row"] for entry in listed["labels"]} == wrong
    assert {entry["believed"] for entry in listed["labels"]} <= set(values)
    assert listed["classes"] == sorted(set(values))
    assert result.doubted == len(wrong)
    # By themselves, numbers and names are the same labels.
    numbers = write(tmp_path / "numbers.parquet", y=LABELS)
    names = write(tmp_path / "names.parquet", y=[("a", "b", "c")[label] for label in LABELS])
    ids = []
    for path in (numbers, names):
        select(path, tmp_path / f"kept-{path.name}", "coherence-batch", labels_column="y")
        ids.append(pq.read_table(tmp_path / f"kept-{path.name}")["id"])
    assert ids[0].equals(ids[1])


@pytest.mark.parametrize(
    ("label", "said"),
    [
        (None, "row 77 of .*rows.parquet: y is missing"),
        (float("nan"), "row 77 of .*rows.parquet: y is missing"),
        (1.5, "row 77 of .*rows.parquet: y is 1.5, no whole number"),
        (-1.0, "row 77 of .*rows.parquet: its label is -1, which is no class"),
    ],
)
def test_a_label_that_is_no_class_is_named(tmp_path, label, said):
    labels = LABELS.astype(float).tolist()
    labels[77] = label
    path = write(tmp_path / "rows.parquet", y=pa.array(labels, pa.float64()))
    with pytest.raises(DataError, match=said):
        select(path, tmp_path / "kept.parquet", "coherence", labels_column="y")
    assert [path.name for path in tmp_path.iterdir()] == ["rows.parquet"]


def test_labels_that_tell_nothing_are_refused(tmp_path):
    path = write(tmp_path / "rows.parquet", y=[f"image-{row}" for row in range(ROWS)])
    with pytest.raises(InputError, match=r"has a label of its own.*; give labels_column=NAME"):
        select(path, tmp_path / "kept.parquet", "coherence", labels_column="y")


KINDS = {
    "list of halves": pa.list_(pa.float16()),
    "large list": pa.large_list(pa.float32()),
    "fixed size": pa.list_(pa.float32(), WIDTH),
    "doubles": pa.list_(pa.float64()),
}


@pytest.mark.parametrize("name", KINDS)
def test_lists_of_every_type_are_features(tmp_path, name):
    rows = FEATURES.astype(np.float16).astype(np.float64)
    values = rows.astype(np.float16) if name == "list of halves" else rows
    column = pa.array(list(values), KINDS[name])
    pq.write_table(pa.table({"features": column}), tmp_path / "rows.parquet", row_group_size=50)
    source = open_source(tmp_path / "rows.parquet")
    order = np.array([70, 3, 110, 4])
    assert np.array_equal(source.read(order).features, rows[order])
    select(tmp_path / "rows.parquet", tmp_path / "kept.parquet", "uniform")
    table = pq.read_table(tmp_path / "kept.parquet")
    assert np.array_equal(np.stack(table["features"].to_numpy()), rows[table["id"].to_numpy()])


def test_columns_of_any_kind_pass_and_are_not_taken_for_damaged(tmp_path):
    """What the footer says of them is compared where it can be, and only there."""
    whole = np.arange(ROWS)
    columns = {
        "uint64": pa.array(whole.astype(np.uint64) + np.uint64(2**63)),
        "uint32": pa.array(whole.astype(np.uint32) + np.uint32(2**31)),
        "int8": pa.array((whole - 60).astype(np.int8)),
        "half": pa.array((whole - 60).astype(np.float16)),
        "with NaN": pa.array(np.where(whole % 7 == 0, np.nan, whole - 60.0)),
        "nothing but NaN": pa.array(np.full(ROWS, np.nan)),
        "zeros": pa.array(np.where(whole % 2, 0.0, -0.0)),
        "bool": pa.array(whole % 2 == 0),
        "null": pa.nulls(ROWS),
        "some null": pa.array([None if row % 3 else row for row in range(ROWS)]),
        "text": pa.array(["\U0001f600" * (row % 5) + "\xe4" * (row % 3) for row in range(ROWS)]),
        "long text": pa.array(["x" * (row % 3) * 5000 for row in range(ROWS)], pa.large_string()),
        "bytes": pa.array([bytes([row, 255]) for row in range(ROWS)]),
        "category": pa.array([f"c{row % 4}" for row in range(ROWS)]).dictionary_encode(),
        "day": pa.array(whole.astype("datetime64[D]")),
        "time": pa.array(whole.astype("datetime64[ns]"), pa.timestamp("ns", "UTC")),
        "decimal": pa.array([row - 60 for row in range(ROWS)]).cast(pa.decimal128(25, 2)),
        "struct": pa.array([{"a": row, "b": [row] * (row % 3)} for row in range(ROWS)]),
        "list.of.text": pa.array([["a"] * (row % 3) for row in range(ROWS)]),
        "lists with null": pa.array([None if row % 3 else [row, None] for row in range(ROWS)]),
        "lists of lists": pa.array([[[row]] * (row % 3) for row in range(ROWS)]),
        "map": pa.array([[("k", row)] for row in range(ROWS)], pa.map_(pa.string(), pa.int64())),
    }
    path = write(tmp_path / "rows.parquet", **columns)
    select(path, tmp_path / "kept.parquet", "uniform")
    kept = pq.read_table(tmp_path / "kept.parquet")
    given = pq.read_table(path).take(kept["id"])
    for name in columns:
        assert kept[name].type == given[name].type
        assert repr(kept[name].to_pylist()) == repr(given[name].to_pylist()), name


def test_whole_numbers_are_features_and_tensors_are_rows(tmp_path):
    whole = (FEATURES * 255).astype(np.uint8)
    tensors = pa.FixedShapeTensorArray.from_numpy_ndarray(whole)
    for number, column in enumerate((list(whole), tensors)):
        path = tmp_path / f"{number}.parquet"
        pq.write_table(pa.table({"features": column}), path)
        found = open_source(path).read(np.arange(ROWS)).features
        assert found.dtype == np.float32
        assert np.array_equal(found, whole)


@pytest.mark.skipif(os.name != "posix", reason="names are bytes there")
def test_names_of_files_that_are_not_utf_8_are_taken(tmp_path):
    folder = tmp_path / os.fsdecode(b"m\xfcll")
    folder.mkdir()
    path = write(folder / os.fsdecode(b"b\xe4r.parquet"), y=LABELS)
    out = folder / os.fsdecode(b"k\xe4pt.parquet")
    flags = ["--selector", "coherence", "--labels-column", "y", "--candidates", "40"]
    assert main(["select", str(path), *flags, "--json", "--out", str(out)]) == 0
    with out.open("rb") as stream:
        assert len(pq.read_table(stream)) == 24
    assert sorted(os.listdir(os.fsencode(folder))) == [  # noqa: PTH208 (bytes)
        b"b\xe4r.parquet", b"k\xe4pt.labels.json", b"k\xe4pt.parquet",
    ]  # fmt: skip
    path.write_bytes(b"PAR1")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        select(path, tmp_path / "other.parquet")


@pytest.mark.parametrize("selector", ["curriculum", "herding(balance=true)"])
def test_what_only_a_teacher_says_is_not_asked_offline(tmp_path, selector):
    rows = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
    with pytest.raises(InputError, match="which is known in training alone; choose"):
        select(rows, tmp_path / "kept.parquet", selector)
