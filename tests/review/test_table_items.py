"""Tables as people have them become what is reviewed; what is wrong is named by its line."""

from __future__ import annotations

import json

import numpy as np
import pytest
import xxhash
from PIL import Image

from saln.errors import DataError, InputError
from saln.review.table_items import (
    ItemColumns,
    is_table,
    label_set,
    read_features,
    read_table_items,
)

ROWS = [("good film", "01"), ("bad, long film", "1"), ('a "fine" one\nof two lines', "01")]


def written(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return str(path)


def quoted(value):
    return '"' + value.replace('"', '""') + '"'


def delimited(delimiter):
    lines = [["text", "label"], *ROWS]
    return "".join(delimiter.join(map(quoted, line)) + "\r\n" for line in lines)


def parquet(path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"text": [t for t, _ in ROWS], "label": [y for _, y in ROWS]}), path)
    return str(path)


WRITERS = {
    "a.csv": lambda path: written(path, delimited(",")),
    "bom.csv": lambda path: written(path, delimited(","), "utf-8-sig"),
    "semicolons.csv": lambda path: written(path, delimited(";")),
    "a.tsv": lambda path: written(path, delimited("\t")),
    "a.jsonl": lambda path: written(
        path, "\n\n".join(json.dumps({"text": t, "label": y}) for t, y in ROWS)
    ),
    "list.json": lambda path: written(
        path, json.dumps([{"text": t, "label": y} for t, y in ROWS], indent=1)
    ),
    "a.parquet": parquet,
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_kind_of_table_gives_the_same(name, tmp_path):
    spec = WRITERS[name](tmp_path / name)
    assert is_table(spec)
    read = read_table_items(spec)
    assert list(read.items.texts) == [text for text, _ in ROWS]
    assert list(read.labels) == ["01", "1", "01"]
    assert read.items.class_names == ("01", "1")
    assert read.items.given.tolist() == [0, 1, 0]
    assert list(read.items.ids) == ["0", "1", "2"]
    assert read.items.keys[0] == xxhash.xxh3_128_hexdigest(b"good film")
    kind, _, path = read.items.dataset.partition(":")
    assert path == spec
    assert kind == {"tsv": "csv", "json": "jsonl"}.get(end := name.split(".")[1], end)
    again = read_table_items(read.items.dataset, read.columns)
    assert list(again.items.keys) == list(read.items.keys)
    assert again.remarks == ()


def test_columns_are_found_by_their_names_and_it_is_said(tmp_path):
    spec = written(
        tmp_path / "a.csv", "ID,Review,split,Sentiment\nx,fine,dev,good\ny,awful,train,\n"
    )
    read = read_table_items(spec)
    assert read.columns == ItemColumns(text="Review", label="Sentiment", id="ID", split="split")
    assert read.remarks == ("columns: text = Review, label = Sentiment, id = ID, split = split",)
    assert list(read.items.ids) == ["x", "y"]
    assert list(read.items.splits) == ["validation", "train"]
    assert read.items.given.tolist() == [0, -1]  # an empty label is none


def test_columns_that_are_not_plain_are_asked_for(tmp_path):
    spec = written(tmp_path / "a.csv", "a,b,label\nx,y,1\n")
    with pytest.raises(InputError, match=r"plainly holds texts or images; .*one of a, b, label"):
        read_table_items(spec)
    with pytest.raises(InputError, match=r"text_column='c'.*choose among a, b, label"):
        read_table_items(spec, ItemColumns(text="c"))
    with pytest.raises(InputError, match="exclude each other"):
        read_table_items(spec, ItemColumns(text="a", image="b"))
    assert list(read_table_items(spec, ItemColumns(text="b")).items.texts) == ["y"]
    other = written(tmp_path / "b.csv", "text,b\nx,y\n")
    with pytest.raises(InputError, match="plainly holds labels"):
        read_table_items(other)


WRONG = {
    "latin.csv": ("text,label\nfine,1\ncaf\u00e9,2\n", "latin-1", r"line 3: byte 0xe9 is no UTF-8"),
    "wide.csv": ("text,label\nfine,1\n", "utf-16", "is UTF-16; save it as UTF-8"),
    "ragged.csv": ("text,label\nfine,1\nso, so,2\n", "utf-8", "line 3: 3 values where"),
    "open.csv": ('text,label\nfine,1\n"so,2\nx,1\n', "utf-8", "line 4: unexpected end of data"),
    "empty.csv": ("", "utf-8", "is empty"),
    "header.csv": ("text,label\n", "utf-8", "has no rows"),
    "twice.csv": ("text,label,text\na,b,c\n", "utf-8", "several columns 'text'"),
    "a.jsonl": ('{"text": "a", "label": 1}\n{"text": \n', "utf-8", "line 2: no JSON"),
    "list.jsonl": ('{"text": "a", "label": 1}\n[1, 2]\n', "utf-8", "line 2: a list; give JSON"),
    "deep.jsonl": ('{"text": {"a": 1}, "label": 1}\n', "utf-8", "line 1: text is a dict"),
    "a.parquet": ("text,label\n", "utf-8", "is no Parquet file"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_file_is_named_with_its_line(name, tmp_path):
    text, encoding, said = WRONG[name]
    with pytest.raises(DataError, match=said) as error:
        read_table_items(written(tmp_path / name, text, encoding))
    assert name in str(error.value)
    assert "\n" not in str(error.value)


def test_files_that_are_none_are_refused(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_table_items(str(tmp_path / "none.csv"))
    with pytest.raises(InputError, match=r"is no table; give a file that ends in one of \.csv"):
        read_table_items(str(tmp_path / "a.xlsx"))
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        read_table_items(str(tmp_path / "folder.csv"))


def test_numbers_in_json_stay_as_they_are_written_and_lists_are_sets(tmp_path):
    spec = written(
        tmp_path / "a.jsonl",
        '{"text": "a \\ud83d", "label": 1.50}\n{"text": "b", "label": null}\n'
        '{"text": "c", "label": ["x", "y"]}\n{"text": "d", "label": []}\n',
    )
    read = read_table_items(spec, task="multi-label")
    assert list(read.labels) == ["1.50", "", "x;y", ";"]
    assert read.items.class_names == ("1.50", "x", "y")
    assert read.items.given.tolist() == [-1] * 4
    assert "".join(read.items.texts).encode() == b"a ?bcd"


def test_sets_of_labels_are_split_by_the_separator():
    assert label_set(" a ;b; a;", ";") == ("a", "b")
    assert label_set("a;b", "|") == ("a;b",)
    assert label_set(";", ";") == ()


def test_labels_without_classes_are_refused_with_the_tasks_that_there_are(tmp_path):
    lines = "".join(f"text {i},{i / 7:.3f}\n" for i in range(30))
    spec = written(tmp_path / "a.csv", "text,label\n" + lines)
    with pytest.raises(InputError, match=r"30 different labels in 30 rows.*task='regression'"):
        read_table_items(spec)
    read = read_table_items(spec, task="regression")
    assert read.items.class_names == ()
    assert read.labels[1] == "0.143"


def test_ids_that_are_not_distinct_are_replaced_or_refused(tmp_path):
    spec = written(tmp_path / "a.csv", "id,text,label\nx,a,1\nx,b,2\n")
    read = read_table_items(spec)
    assert list(read.items.ids) == ["0", "1"]
    assert "'x' twice (rows 0 and 1)" in read.remarks[1]
    assert read.columns.id is None
    with pytest.raises(InputError, match=r"id_column='id' has 'x' twice \(rows 0 and 1\)"):
        read_table_items(spec, ItemColumns(id="id"))


def test_paths_of_images_begin_at_the_table(tmp_path):
    (tmp_path / "tables").mkdir()
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (3, 2), "red").save(tmp_path / "pictures" / "a.png")
    Image.new("RGB", (4, 2), "blue").save(tmp_path / "tables" / "b.png")
    spec = written(
        tmp_path / "tables" / "a.csv", "path,label\n../pictures/a.png,1\nb.png,2\nnone.png,2\n"
    )
    read = read_table_items(spec)
    assert read.columns.image == read.columns.id == "path"
    assert list(read.items.ids) == ["../pictures/a.png", "b.png", "none.png"]
    assert [read.items.images.load(row).size for row in range(2)] == [(3, 2), (4, 2)]
    assert read.items.images.name_of(0) == "pictures/a.png"
    content = (tmp_path / "tables" / "b.png").read_bytes()
    assert read.items.keys[1] == xxhash.xxh3_128_hexdigest(content)
    assert read.items.keys[2] == ""  # nothing is there to know it by
    with pytest.raises(DataError, match=r"none\.png"):
        read.items.images.load(2)


def test_a_hugging_face_data_set_of_texts_is_read_with_all_its_splits(tmp_path):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"sentence": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])}
    )
    parts = {
        "train": {"sentence": ["a", "b"], "label": [1, 0]},
        "test": {"sentence": ["c"], "label": [-1]},
    }
    tables = {name: datasets.Dataset.from_dict(part, features) for name, part in parts.items()}
    datasets.DatasetDict(tables).save_to_disk(str(tmp_path / "set"))
    read = read_table_items(f"hf:{tmp_path / 'set'}")
    assert list(read.items.texts) == ["a", "b", "c"]
    assert list(read.labels) == ["yes", "no", ""]
    assert list(read.items.splits) == ["train", "train", "test"]
    assert read.items.dataset == f"hf:{tmp_path / 'set'}"


def test_features_of_elsewhere_take_the_place_of_texts(tmp_path):
    rows = np.arange(6, dtype=np.float32).reshape(3, 2)
    np.save(tmp_path / "rows.npy", rows)
    spec = written(tmp_path / "ids.csv", "id,label,split\nx,01,val\ny,1,train\nz,,train\n")
    features = read_features(tmp_path / "rows.npy")
    read = read_table_items(spec, features=features)
    assert list(read.items.ids) == ["x", "y", "z"]
    assert read.items.given.tolist() == [0, 1, -1]
    assert read.items.splits[0] == "validation"
    assert read.items.texts is read.items.images is None
    assert read.items.keys[1] == xxhash.xxh3_128_hexdigest(rows[1].tobytes())
    with pytest.raises(InputError, match="has 3 rows and features has 2"):
        read_table_items(spec, features=features[:2])


def test_files_that_hold_no_features_are_refused(tmp_path):
    with pytest.raises(InputError, match="is no file"):
        read_features(tmp_path / "none.npy")
    (tmp_path / "text.npy").write_text("1,2")
    np.save(tmp_path / "flat.npy", np.zeros(3))
    np.save(tmp_path / "names.npy", np.array([["a"]]))
    np.savez(tmp_path / "several.npz", a=np.zeros((2, 2)))
    for name, said in (
        ("text.npy", "is no .npy file"),
        ("flat.npy", r"holds float64 \(3,\); give numbers"),
        ("names.npy", "holds <U1"),
        ("several.npz", "several arrays"),
    ):
        with pytest.raises(DataError, match=said):
            read_features(tmp_path / name)
