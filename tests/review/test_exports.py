"""Exports: each in the form that the other tool documents, and where it is here, takes."""

from __future__ import annotations

import json
import sys
import xml.etree.ElementTree
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import datasets
import numpy as np
import pandas as pd
import pytest
from helpers.review_tables import review_table
from sklearn.linear_model import LogisticRegression

from saln.data import ArrayImages
from saln.data.image_sources import FileImages
from saln.errors import InputError
from saln.review import ReviewItems, add_columns, set_fiftyone_fields
from saln.review.exports import export
from saln.review.item_sources import JoinedImages
from saln.review.review_table import COLUMNS

IDS = ["cat/a 1&?.jpg", "dog/ü.jpg", "dog/c.jpg", "d.jpg"]


def table_of(**columns):
    return review_table(
        IDS,
        **{
            "dataset": "folder:/home/me/photos",
            "given": ["cat", "dog", "dog", ""],
            "believed": ["dog", "dog", "dog", "cat"],
            "probability": [0.1, 0.9, 0.8, np.nan],
            "margin": [-0.7, 0.8, 0.6, np.nan],
            "group": [-1, 2, 2, -1],
            "outlier": [0.75, 0.0, 0.25, np.nan],
            "class_names": ("cat", "dog", 'a "b" & <c>'),
        }
        | columns,
    )


def items_of(table, **content):
    given = np.array([-1] * len(table))
    return ReviewItems(
        table.dataset, table.class_names, table.ids, table.splits, given, table.keys, **content
    )


def images_of(root):
    parts = [FileImages(root, [root / name for name in names]) for names in (IDS[:3], IDS[3:])]
    return JoinedImages(parts)


def test_cleanlab_takes_its_columns_and_trains_without_the_issues(tmp_path):
    table = table_of()
    export(table, items_of(table), "cleanlab", tmp_path / "cleanlab.json")
    frame = pd.read_json(tmp_path / "cleanlab.json")
    assert frame["id"].tolist() == IDS
    assert frame["is_label_issue"].tolist() == [True, False, False, False]
    assert (
        frame["label_quality"].tolist()[:3] == frame["label_score"].tolist()[:3] == [0.1, 0.9, 0.8]
    )
    assert frame["given_label"].tolist()[:3] == ["cat", "dog", "dog"]
    assert frame["predicted_label"].tolist() == ["dog", "dog", "dog", "cat"]
    assert frame["is_outlier_issue"].tolist() == [True, False, False, False]
    assert frame["outlier_score"].tolist()[:3] == [0.25, 1.0, 0.75]  # low is bad there
    assert frame["is_near_duplicate_issue"].tolist() == [False, True, True, False]
    assert frame["near_duplicate_score"].tolist() == [1, 0, 0, 1]
    assert frame["near_duplicate_sets"].tolist() == [[], [2], [1], []]
    assert frame.isna().sum().sum() == 4  # scores and label of what is unknown

    classification = pytest.importorskip("cleanlab.classification", reason="extra 'benchmarks'")
    model = classification.CleanLearning(LogisticRegression())
    issues = frame.drop(columns="id").assign(given_label=[0, 1, 1, 0])
    issues["predicted_label"] = issues["predicted_label"].map({"cat": 0, "dog": 1})
    model.fit(np.eye(4), [0, 1, 1, 0], label_issues=issues)
    assert model.get_label_issues()["is_label_issue"].tolist() == [True, False, False, False]


def test_label_studio_gets_files_labels_and_scores_worst_first(tmp_path):
    table = table_of()
    path = tmp_path / "label-studio.json"
    export(table, items_of(table, images=images_of(Path("/home/me/photos"))), "label-studio", path)
    tasks = json.loads(path.read_text())
    assert [task["data"]["id"] for task in tasks] == [IDS[0], IDS[2], IDS[1], IDS[3]]
    address = urlsplit(tasks[0]["data"]["image"])
    assert address.path == "/data/local-files/"
    assert parse_qs(address.query) == {"d": ["photos/cat/a 1&?.jpg"]}
    assert tasks[0]["data"]["saln_given"] == "cat"
    assert tasks[0]["data"]["saln_probability"] == 0.1
    assert tasks[3]["data"]["saln_probability"] is None
    scores = [task["predictions"][0].get("score") for task in tasks]
    assert scores == [pytest.approx(0.8), 0.8, 0.9, None]  # of the label that is predicted
    # What the interface that is written beside it declares is what the predictions name.
    root = xml.etree.ElementTree.parse(tmp_path / "label-studio.xml").getroot()
    image, choices = root
    assert (image.tag, image.get("value")) == ("Image", "$image")
    names = [choice.get("value") for choice in choices]
    assert names == list(table.class_names)
    for task in tasks:
        (result,) = task["predictions"][0]["result"]
        assert (result["from_name"], result["to_name"]) == (choices.get("name"), image.get("name"))
        assert choices.get("toName") == image.get("name")
        assert result["type"] == choices.tag.lower()
        assert set(result["value"]["choices"]) <= set(names)


@pytest.mark.parametrize(
    ("task", "believed", "tag", "value"),
    [
        ("multi-label", "cat;dog", "Choices", {"choices": ["cat", "dog"]}),
        ("regression", "2.5", "Number", {"number": 2.5}),
    ],
)
def test_label_studio_gets_texts_and_other_kinds_of_labels(tmp_path, task, believed, tag, value):
    table = table_of(task=task, believed=[believed] * 4)
    path = tmp_path / "tasks.json"
    export(table, items_of(table, texts=list("abcd")), "label-studio", path)
    first = json.loads(path.read_text())[0]
    assert first["data"]["text"] == "a"
    result = first["predictions"][0]["result"][0]
    assert (result["to_name"], result["value"]) == ("text", value)
    root = xml.etree.ElementTree.parse(path.with_suffix(".xml")).getroot()
    assert [(child.tag, child.get("name")) for child in root] == [("Text", "text"), (tag, "label")]


def test_what_cannot_be_exported_is_refused(tmp_path):
    table = table_of()
    items = items_of(table, images=ArrayImages(np.zeros((4, 2, 2), dtype=np.uint8)))
    with pytest.raises(InputError, match="neither texts nor files"):
        export(table, items, "label-studio", tmp_path / "tasks.json")
    with pytest.raises(InputError, match="neither texts nor files"):
        export(table, items_of(table), "label-studio", tmp_path / "tasks.json")
    with pytest.raises(InputError, match="'voc' is not allowed; give cleanlab or label-studio"):
        export(table, items, "voc", tmp_path / "tasks.json")
    assert list(tmp_path.iterdir()) == []


class Sample:
    """What FiftyOne documents of a sample: fields by name, made by the type of what they get."""

    def __init__(self, filepath, in_dataset=True):
        self.filepath, self.in_dataset = filepath, in_dataset
        self.fields, self.saved = {}, 0

    def has_field(self, name):
        return name in self.fields

    def __setitem__(self, name, value):
        if name not in self.fields and type(value) not in (str, float, int, bool):
            raise ValueError(f"no field can be made for {value!r}")
        self.fields[name] = value

    def __getitem__(self, name):
        return self.fields[name]

    def save(self):
        if not self.in_dataset:
            raise ValueError("it is in no data set")
        self.saved += 1


def test_fiftyone_samples_get_fields_by_their_files(tmp_path):
    root = tmp_path / "photos"
    table = table_of(dataset=f"folder:{root}")
    samples = [Sample(str(root / name)) for name in (*IDS[::-1], "new.jpg")]
    samples[0]["saln_probability"] = 0.3  # of an earlier review
    assert set_fiftyone_fields(samples, table) == 4
    first = samples[3]
    assert first.fields == {
        "saln_split": "", "saln_given": "cat", "saln_believed": "dog", "saln_probability": 0.1,
        "saln_margin": -0.7, "saln_outlier": 0.75, "saln_problem": "", "saln_decision": "",
        "saln_label": "", "saln_wrong": True,
    }  # fmt: skip
    assert samples[2]["saln_group"] == 2
    assert samples[2]["saln_wrong"] is False
    assert samples[0]["saln_probability"] is None
    assert not samples[0].has_field("saln_given")
    assert samples[4].fields == {}
    assert [sample.saved for sample in samples] == [1, 1, 1, 1, 0]


def test_fiftyone_samples_may_be_matched_otherwise():
    table = table_of(dataset="hf:pets")
    samples = [Sample("/elsewhere/0.png", in_dataset=False)]
    with pytest.raises(InputError, match="are no files of a folder; give id_of"):
        set_fiftyone_fields(samples, table)
    assert set_fiftyone_fields(samples, table, id_of=lambda sample: IDS[0], prefix="x_") == 1
    assert samples[0]["x_given"] == "cat"
    with pytest.raises(InputError, match="none of 1 samples is in the table of hf:pets"):
        set_fiftyone_fields(samples, table, id_of=lambda sample: "?")


def test_hugging_face_data_sets_get_columns_in_their_order():
    table = table_of(splits=["train", "test", "train", "test"])
    whole = datasets.Dataset.from_dict({"n": [0, 1, 2, 3]})
    found = add_columns(whole, table)
    added = [f"saln_{name}" for name in COLUMNS if name not in ("id", "key")]
    assert sorted(found.column_names) == sorted(["n", *added])
    assert found["saln_given"][:] == ["cat", "dog", "dog", None]
    assert found["saln_probability"][:] == [0.1, 0.9, 0.8, None]
    assert found["saln_group"][:] == [None, 2, 2, None]
    again = add_columns(found, table_of(group=[-1] * 4))
    assert again["saln_group"][:] == [None] * 4
    assert again.features["saln_group"] == datasets.Value("int64")

    parts = datasets.DatasetDict(train=whole.select([0, 2]), test=whole.select([1, 3]))
    found = add_columns(parts, table)
    assert isinstance(found, datasets.DatasetDict)
    assert found["train"]["saln_probability"][:] == [0.1, 0.8]
    assert found["test"]["saln_given"][:] == ["dog", None]
    alone = add_columns(datasets.DatasetDict(train=whole), table_of())
    assert alone["train"]["saln_given"][:] == ["cat", "dog", "dog", None]
    with pytest.raises(InputError, match="split train has 4 rows, and the table 2 of it"):
        add_columns(datasets.DatasetDict(train=whole, test=whole), table)
    with pytest.raises(InputError, match="the data set has 2 rows, and the table 4 of it"):
        add_columns(whole.select([0, 1]), table)


def test_no_package_of_another_tool_is_needed(monkeypatch, tmp_path):
    for name in ("cleanlab", "fiftyone", "label_studio_sdk"):
        monkeypatch.setitem(sys.modules, name, None)
    table = table_of()
    export(table, items_of(table), "cleanlab", tmp_path / "cleanlab.json")
    assert set_fiftyone_fields([Sample(f"/home/me/photos/{IDS[0]}")], table) == 1
