"""``saln.find_label_issues``: folders, data sets of torch, features with labels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

import saln
from saln._torchvision import torchvision
from saln.errors import InputError

ImageFolder = torchvision.datasets.ImageFolder

COLORS = ((20, 30, 200), (30, 180, 40), (210, 40, 30))
PIXELS = {"backbone": "pixels", "feature_size": 8}


@pytest.fixture
def cloud():
    """240 points around three centers; the labels of rows 0, 7 and 14 are wrong."""
    random = np.random.default_rng(0)
    true = np.arange(240) % 3
    rows = np.eye(3)[true] * 6 + random.normal(size=(240, 3))
    labels = true.copy()
    labels[[0, 7, 14]] = (true[[0, 7, 14]] + 1) % 3
    return rows, labels, true


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """60 pictures of three colors, two of them in another color's folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    random = np.random.default_rng(0)
    for number in range(60):
        color = number % 3
        given = (color + 1) % 3 if number in (4, 8) else color
        pixels = np.array(COLORS[color]) + random.normal(0, 20, (10, 10, 3))
        place = tmp_path / "photos" / "abc"[given]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(place / f"{number}.png")
    return tmp_path / "photos"


def suspects(issues):
    return issues[issues.probability < 0.5]


@pytest.mark.parametrize("kind", ["numbers", "names", "tensors"])
def test_features_with_labels(cloud, kind):
    rows, labels, true = cloud
    given = {"numbers": labels, "names": np.array(["p", "q", "r"])[labels]}.get(kind, labels)
    if kind == "tensors":
        rows, given = torch.from_numpy(rows), torch.from_numpy(labels)
    issues = saln.find_label_issues(rows, given)
    assert set(suspects(issues).index) == {0, 7, 14}
    names = "pqr" if kind == "names" else "012"
    for row, issue in suspects(issues).iterrows():
        assert issue.given == names[labels[row]]
        assert issue.believed == names[true[row]]
        assert issue.id == str(row)
    assert (issues.probability.iloc[:3] < 0.5).all()  # the worst come first
    assert len(issues) == 240
    assert len(suspects(saln.find_label_issues(rows, given, noise_rate=0.1))) == 24


def test_unknown_labels_are_judged_and_no_suspects(cloud):
    rows, labels, true = cloud
    labels[20:30] = -1
    ids = [f"row {row}" for row in range(240)]
    issues = saln.find_label_issues(rows, labels, class_names=["x", "y", "z"], ids=ids)
    assert set(suspects(issues).id) == {"row 0", "row 7", "row 14"}
    unknown = (
        issues.loc[20:29] if issues.index.is_monotonic_increasing else issues.loc[range(20, 30)]
    )
    assert (unknown.given == "").all()
    assert list(unknown.believed) == ["xyz"[c] for c in true[20:30]]
    assert unknown.probability.isna().all()


def test_a_folder_by_name_and_a_data_set_of_torch_give_the_same(folder):
    by_name = saln.find_label_issues(folder, **PIXELS)
    opened = saln.find_label_issues(ImageFolder(folder), **PIXELS)
    subset = torch.utils.data.Subset(ImageFolder(folder), range(60))
    for issues in (by_name, opened, saln.find_label_issues(subset, **PIXELS)):
        found = suspects(issues)
        assert sorted(id.rsplit("/", 1)[-1] for id in found.id) == ["4.png", "8.png"]
    assert set(suspects(by_name).given) == set(suspects(opened).given) == {"a", "c"}


def test_arrays_of_pixels_with_labels(folder):
    images = np.stack([np.full((6, 6, 3), COLORS[n % 3], np.uint8) for n in range(60)])
    images += np.random.default_rng(0).integers(0, 30, images.shape).astype(np.uint8)
    labels = torch.arange(60) % 3
    labels[5] = 0
    dataset = torch.utils.data.TensorDataset(torch.from_numpy(images).permute(0, 3, 1, 2), labels)
    assert list(suspects(saln.find_label_issues(dataset, **PIXELS)).index) == [5]


def test_a_file_that_cannot_be_read_is_listed(folder):
    (folder / "a" / "broken.png").write_bytes(b"none")
    issues = saln.find_label_issues(ImageFolder(folder), **PIXELS)
    (broken,) = issues[issues.problem != ""].itertuples()
    assert broken.id.endswith("broken.png")
    assert broken.problem.startswith("unreadable: ")
    assert len(suspects(issues)) == 2


@pytest.mark.parametrize(
    ("arguments", "options", "said"),
    [
        (("folder", [1, 2]), {}, "has its own"),
        ((np.zeros((4, 2)), [0, 1]), {}, "4 rows"),
        ((np.zeros((2, 2)), [0, 1]), {"workers": 2}, "features already"),
        ((np.zeros((2, 2)), [0, 1]), {"task": "regression", "noise_rate": 0.2}, "give classes"),
        ((np.zeros((2, 2)), [0, 1]), {"ids": ["a", "a"]}, "give each its own"),
        ((np.zeros(4), [0, 1, 0, 1]), {}, r"give \(n, d\)"),
        ((object(),), {}, "not a map-style data set"),
    ],
)
def test_what_cannot_work_is_refused(arguments, options, said):
    with pytest.raises(InputError, match=said):
        saln.find_label_issues(*arguments, **options)


def test_texts_with_labels_and_tables_by_their_path_give_the_same(tmp_path, monkeypatch):
    from review.test_text_command import topics, write_table

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    texts, given, _, wrong = topics(200)
    issues = saln.find_label_issues(np.array(texts), given)
    assert wrong[issues.index[:20]].mean() > 0.8
    write_table(tmp_path / "data.csv", body=texts, topic=given)
    columns = {"text_column": "body", "label_column": "topic"}
    table = saln.find_label_issues(tmp_path / "data.csv", **columns)
    assert table.probability.tolist() == issues.probability.tolist()
    assert table.key.tolist() == issues.key.tolist()


@pytest.mark.parametrize("kind", ["lists", "yes and no", "names of yes and no"])
def test_sets_of_classes_with_features(kind):
    from review.test_multi_label import examples

    rows, given, wrong = examples(n=300, classes=3, strength=2.0)
    names = ["red", "green", "blue"]
    lists = [{names[c] for c in np.flatnonzero(row)} for row in given]
    labels = {"lists": [None, *lists[1:]]}.get(kind, given)
    class_names = names if kind.startswith("names") else None
    issues = saln.find_label_issues(rows, labels, class_names=class_names, task="multi-label")
    assert wrong.any(axis=1)[issues.index[:30]].mean() > 0.9
    if kind == "lists":
        assert np.isnan(issues.probability[0])
    expected = {"red", "green", "blue"} if kind != "yes and no" else {"0", "1", "2"}
    assert {name for text in issues.given for name in text.split(";")} - {""} == expected


def test_numbers_with_features():
    from review.test_numeric_labels import linear, wrongly

    rows, numbers = linear(n=300)
    given, wrong = wrongly(numbers, 0.2, 0)
    issues = saln.find_label_issues(rows, given, task="regression")
    assert wrong[issues.index[:20]].mean() > 0.9
    assert float(issues.given[0]) == given[0]
    with pytest.raises(InputError, match="task='boxes' is not allowed"):
        saln.find_label_issues(rows, given, task="boxes")
    with pytest.raises(InputError, match="300 examples and 299 labels"):
        saln.find_label_issues(rows, given[1:], task="regression")
    with pytest.raises(InputError, match="give a number an example"):
        saln.find_label_issues(rows, [[1.0]] * 300, task="regression")
