"""Decisions brought into tables: a new file has the corrected labels, the old one stays."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash

from saln.cli.apply_command import COMMAND
from saln.errors import InputError
from saln.review.decisions import remembered

HEADER = ("id", "split", "given", "decision", "label", "key", "review")


class Table:
    """A table's review, and decisions about it."""

    def __init__(self, path: Path, dataset: str, **facts: object) -> None:
        self.out, self.path = path / "out", path
        self.out.mkdir()
        facts = {"dataset": dataset, "task": "classes", "separator": ";"} | facts
        (self.out / "review.json").write_text(json.dumps(facts))

    def __call__(self, *flags: str, rows=None) -> int:
        file = self.path / "decisions.csv"
        if rows is not None:
            with file.open("w", newline="") as stream:
                csv.writer(stream).writerows([HEADER, *((*row, "", self.out) for row in rows)])
        return COMMAND([str(file), *flags])


def columns(**names: str) -> dict[str, str | None]:
    return {name: names.get(name) for name in ("text", "image", "label", "id", "split")}


def row(name: str, given: str, decision: str, label: str = "") -> tuple[str, ...]:
    return name, "", given, decision, label


CSV = (
    "\ufefftext;topic;n\r\n"
    '"a ""quoted""; text";cat;1\r\n'
    "plain;dog;2\r\n"
    "\r\n"
    '"two\r\nlines";cat;3\r\n'
    "last;dog;4"
)


def test_a_csv_file_is_written_anew_and_other_lines_stay_as_they_are(tmp_path, capsys):
    source = tmp_path / "data.csv"
    source.write_bytes(CSV.encode())
    table = Table(tmp_path, f"csv:{source}", columns=columns(text="text", label="topic"))
    rows = [row("2", "cat", "believe", "dog"), row("1", "dog", "drop"), row("0", "cat", "keep")]
    assert table(rows=rows) == 0
    target = tmp_path / "data.corrected.csv"
    assert not target.exists()
    assert f"to       {target}" in capsys.readouterr().out
    assert table("--yes") == 0
    assert source.read_bytes() == CSV.encode()
    wanted = CSV.replace("plain;dog;2\r\n", "").replace('lines";cat', 'lines";dog')
    assert target.read_bytes() == wanted.encode()
    assert remembered(table.out).of("0", "", "cat").is_done
    # What is decided later comes to what was decided before.
    assert table("--yes", rows=[row("3", "dog", "relabel", "cat")]) == 0
    assert target.read_bytes() == wanted.replace("last;dog", "last;cat").encode()
    assert table("--undo") == 0
    assert not target.exists()
    capsys.readouterr()
    assert table("--undo") == 0
    assert "nothing to undo" in capsys.readouterr().out


def test_only_what_apply_has_written_is_replaced_or_removed(tmp_path):
    source, target = tmp_path / "data.csv", tmp_path / "data.corrected.csv"
    source.write_text("text,label\na,x\nb,y\n")
    target.write_text("mine")
    table = Table(tmp_path, f"csv:{source}", columns=columns(text="text", label="label"))
    with pytest.raises(InputError, match=r"is there already; .*--to"):
        table("--yes", rows=[row("0", "x", "believe", "y")])
    assert target.read_text() == "mine"
    other = tmp_path / "other.csv"
    assert table("--yes", "--to", str(other)) == 0
    assert other.read_text() == "text,label\na,y\nb,y\n"
    other.write_text("changed by hand")
    for flag in ("--yes", "--undo"):
        with pytest.raises(InputError, match=r"other\.csv is (there already|no longer what)"):
            table(flag, "--to", str(other))
    assert other.read_text() == "changed by hand"


def test_rows_that_are_others_by_now_are_left_as_they_are(tmp_path, capsys):
    source = tmp_path / "data.csv"
    source.write_text("text,label\nnew,x\na,x\nb,y\n")
    table = Table(tmp_path, f"csv:{source}", columns=columns(text="text", label="label"))
    key = xxhash.xxh3_128_hexdigest(b"a")
    (tmp_path / "decisions.csv").write_text(
        f"id,given,decision,label,key,review\n0,x,believe,y,{key},{table.out}\n"
        f"1,x,believe,y,{key},{table.out}\n2,x,drop,,,{table.out}\n"
    )
    assert table("--yes", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["skipped"] == {
        "0": "its text has changed since the review",
        "2": "its label is y by now",
    }
    assert Path(facts["target"]).read_text() == "text,label\nnew,x\na,y\nb,y\n"


@pytest.mark.parametrize(
    ("decision", "words"),
    [
        (row("9", "x", "drop"), "line 2: no example has the id 9"),
        (row("0", "x", "relabel", "z"), "line 2: the label z is no class of csv:.*such as x, y"),
    ],
)
def test_what_is_no_row_or_no_class_is_refused(tmp_path, decision, words):
    source = tmp_path / "data.csv"
    source.write_text("text,label\na,x\nb,y\n")
    table = Table(tmp_path, f"csv:{source}", columns=columns(text="text", label="label"))
    with pytest.raises(InputError, match=words):
        table("--yes", rows=[decision])
    assert not (tmp_path / "data.corrected.csv").exists()
    if decision[-1] == "z":
        assert table("--yes", "--new-classes") == 0
        assert (tmp_path / "data.corrected.csv").read_text() == "text,label\na,z\nb,y\n"


def test_json_keeps_the_kind_of_its_labels(tmp_path):
    values = [
        {"id": "a", "text": "ä", "label": 1, "more": {"x": [1.5, None]}},
        {"id": "b", "text": "u", "label": 2},
        {"id": "c", "text": "v", "label": 2},
    ]
    rows = [row("a", "1", "believe", "2"), row("b", "2", "drop")]
    wanted = [values[0] | {"label": 2}, values[2]]
    for name, text in (
        ("data.jsonl", "\n".join(map(json.dumps, values)) + "\n\n"),
        ("data.json", json.dumps(values, indent=2)),
    ):
        place = tmp_path / name.replace(".", "-")
        place.mkdir()
        source = place / name
        source.write_text(text)
        read = columns(text="text", label="label", id="id")
        assert Table(place, f"jsonl:{source}", columns=read)("--yes", rows=rows) == 0
        written = (place / name.replace("data", "data.corrected")).read_text()
        if name == "data.jsonl":
            written = f"[{','.join(filter(None, written.splitlines()))}]"
        found = json.loads(written)
        assert found == wanted


def test_sets_of_classes_are_written_as_the_table_writes_them(tmp_path):
    source = tmp_path / "data.csv"
    source.write_text("text,tags\na,x|y\nb,|\nc,y|z\nd,z\n")
    read = columns(text="text", label="tags")
    table = Table(tmp_path, f"csv:{source}", columns=read, task="multi-label", separator="|")
    rows = [
        row("0", "x;y", "believe", "x;z"),
        row("1", ";", "relabel", "y"),
        row("2", "z;y", "believe", ";"),
    ]
    assert table("--yes", rows=rows) == 0
    assert (tmp_path / "data.corrected.csv").read_text() == "text,tags\na,x|z\nb,y\nc,|\nd,z\n"


def test_numbers_of_a_regression_are_written(tmp_path):
    source = tmp_path / "data.csv"
    source.write_text("id,price\na,1.50\nb,2\n")
    read = columns(label="price", id="id")
    table = Table(tmp_path, f"csv:{source}", columns=read, task="regression")
    assert table("--yes", rows=[row("a", "1.5", "believe", "2.25")]) == 0
    assert (tmp_path / "data.corrected.csv").read_text() == "id,price\na,2.25\nb,2\n"
    with pytest.raises(InputError, match="is no number"):
        table("--yes", rows=[row("b", "2", "believe", "much")])


def test_parquet_gets_two_columns_more_and_keeps_its_row_groups(tmp_path):
    source = tmp_path / "data.parquet"
    labels = pa.array(["x", "y", "x", "y", "x"]).dictionary_encode()
    old = pa.table({"text": list("abcde"), "label": labels, "n": pa.array(range(5), pa.int8())})
    old = old.replace_schema_metadata({"mine": "kept"})
    pq.write_table(old, source, row_group_size=2)
    before = source.read_bytes()
    read = columns(text="text", label="label")
    table = Table(tmp_path, f"parquet:{source}", columns=read)
    assert table("--yes", rows=[row("2", "x", "believe", "y"), row("3", "y", "drop")]) == 0
    assert source.read_bytes() == before
    target = pq.ParquetFile(tmp_path / "data.corrected.parquet")
    new = target.read()
    assert new.select(old.column_names).equals(old)
    assert new.schema.field("label_corrected").type == labels.type
    assert new["label_corrected"].to_pylist() == ["x", "y", "y", None, "x"]
    assert new["dropped"].to_pylist() == [False, False, False, True, False]
    assert target.num_row_groups == 3
    assert target.schema_arrow.metadata[b"mine"] == b"kept"


def hub_folder(path: Path) -> datasets.DatasetDict:
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=["cat", "dog", "bird"]),
        }
    )
    splits = {}
    for split, labels in (("train", [0, 1, 2, 0]), ("validation", [1, 0])):
        images = [{"bytes": f"{split} {n}".encode(), "path": None} for n in range(len(labels))]
        rows = {"image": images, "label": labels}
        splits[split] = datasets.Dataset.from_dict(rows, features=features)
        path.mkdir(exist_ok=True)
        splits[split].to_parquet(path / f"{split}-00000-of-00001.parquet")
    return datasets.DatasetDict(splits)


def test_a_hugging_face_data_set_is_written_with_its_classes_split_by_split(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    source = tmp_path / "pets"
    hub_folder(source)
    table = Table(tmp_path, f"hf:{source}")  # of images: their ids are split and row
    rows = [
        row("train/0", "cat", "believe", "dog"),
        row("train/3", "cat", "drop"),
        row("validation/1", "cat", "relabel", "bird"),
    ]
    assert table("--yes", rows=rows) == 0
    found = datasets.load_dataset(str(tmp_path / "pets-corrected"))
    old = datasets.load_dataset(str(source))
    for split, labels, dropped in (
        ("train", [1, 1, 2, None], [False, False, False, True]),
        ("validation", [1, 2], [False, False]),
    ):
        new = found[split]
        assert new["label_corrected"] == labels
        assert new["dropped"] == dropped
        assert new.features["label_corrected"] == old[split].features["label"]
        assert new.features["image"] == datasets.Image()
        for name in ("image", "label"):
            assert new.data.column(name).equals(old[split].data.column(name))
    assert table("--undo") == 0
    assert not (tmp_path / "pets-corrected").exists()
    with pytest.raises(InputError, match=r"no class of hf:.*such as"):
        table("--yes", rows=[row("train/0", "cat", "relabel", "fish")])


def test_one_file_of_a_hugging_face_data_set_becomes_one_file(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    rows = {"text": ["a", "b"], "label": [0, 1]}
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])}
    )
    source = tmp_path / "reviews.parquet"
    datasets.Dataset.from_dict(rows, features=features).to_parquet(source)
    table = Table(tmp_path, f"hf:{source}", columns=columns(text="text", label="label"))
    assert table("--yes", rows=[row("1", "yes", "believe", "no")]) == 0
    target = str(tmp_path / "reviews.corrected.parquet")
    new = datasets.load_dataset("parquet", data_files=target, split="train")
    assert new["label_corrected"] == [0, 0]
    assert new.features["label_corrected"].names == ["no", "yes"]


def test_what_is_no_file_of_the_user_cannot_be_applied_to(tmp_path):
    table = Table(tmp_path, "digits")
    with pytest.raises(InputError, match="apply takes a folder of images, hf, csv, jsonl, parquet"):
        table("--yes", rows=[row("train/0", "1", "drop")])
