"""Tables of sets and numbers: texts as they were written, believed where something is wrong."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from review.test_multi_label import examples
from review.test_numeric_labels import linear

from saln.errors import DataError, InputError
from saln.review.table_items import read_table_items
from saln.review.task_tables import given_numbers, task_table

NAMES = ["red", "green", "blue"]


def written(path, labels):
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["text", "label"])
        writer.writerows((f"text {row}", label) for row, label in enumerate(labels))
    return str(path)


def joined(sets, separator):
    return [
        separator.join(NAMES[c] for c in np.flatnonzero(row)[::-1]) or separator for row in sets
    ]


@pytest.mark.parametrize("separator", [";", "|"])
def test_sets_are_believed_where_a_label_is_wrong_or_missing(separator, tmp_path):
    rows, given, wrong = examples(n=300, classes=3, strength=2.0)
    labels = joined(given, separator)
    labels[5] = ""
    rows[7] = np.nan
    spec = written(tmp_path / "a.csv", labels)
    read = read_table_items(spec, task="multi-label", separator=separator)
    table = task_table(read, rows)
    assert table.task == "multi-label"
    assert sorted(table.class_names) == sorted(NAMES)
    assert [text.replace(";", separator) for text in table.given] == labels
    assert np.isnan(table.probability[[5, 7]]).all()
    assert table.believed[5] != ""  # nobody labeled it; the others tell what it is
    assert table.believed[7] == ""
    doubted = table.probability < 0.5
    for row in range(300):
        if row not in (5, 7):
            assert (table.believed[row] != table.given[row]) == doubted[row]
    true = joined(given ^ wrong, ";")
    repaired = [set(table.believed[row].split(";")) == set(true[row].split(";"))
                for row in np.flatnonzero(doubted)]  # fmt: skip
    assert np.mean(repaired) > 0.9
    assert doubted[wrong.any(axis=1)].mean() > 0.75
    np.testing.assert_allclose(table.margin, 2 * table.probability - 1)


def test_neighbors_that_speak_against_a_set_differ_in_the_doubted_class(tmp_path):
    rows, given, _ = examples(n=300, classes=3, strength=2.0)
    read = read_table_items(written(tmp_path / "a.csv", joined(given, ";")), task="multi-label")
    table = task_table(read, rows)
    sets = [set(text.split(";")) - {""} for text in table.given]
    believed = [set(text.split(";")) - {""} for text in table.believed]
    seen = 0
    for row in table.suspects.tolist():
        changed = sets[row] ^ believed[row]
        for near in table.contradicting[row]:
            if near >= 0 and len(changed) == 1:
                assert (sets[near] ^ sets[row]) & changed
                seen += 1
    assert seen > 20


def test_a_class_with_the_separator_in_its_name_is_refused(tmp_path):
    spec = written(tmp_path / "a.csv", ["a;b|c"] * 5)
    read = read_table_items(spec, task="multi-label", separator="|")
    with pytest.raises(InputError, match=r"the class a;b holds ';'.*separator=';'"):
        task_table(read, np.zeros((5, 2)))


def test_numbers_are_believed_to_be_what_the_others_foretell(tmp_path):
    rows, numbers = linear(n=120)
    numbers[:3] += np.array([80.0, -90.0, 400.0])
    labels = [f"{number:.2f}" for number in numbers]
    labels[5], labels[6] = "", "n/a"
    rows[7] = np.inf
    read = read_table_items(written(tmp_path / "a.csv", labels), task="regression")
    table = task_table(read, rows)
    assert table.task == "regression"
    assert table.class_names == ()
    assert table.suspects.tolist()[:3] == [2, 1, 0] or set(table.suspects[:3]) == {0, 1, 2}
    assert table.given[:5] == labels[:5]
    assert list(table.given[5:7]) == ["", ""]
    assert np.isnan(table.probability[5:8]).all()
    assert table.believed[7] == ""
    off = np.abs(np.array([float(table.believed[row]) for row in range(3)]) - numbers[:3])
    assert (off > [60, 70, 380]).all()
    for row in (0, 1, 2):
        for near in table.contradicting[row]:
            believed = float(table.believed[row])
            assert abs(numbers[near] - believed) < abs(numbers[near] - numbers[row])


def test_a_label_that_is_no_number_is_named(tmp_path):
    for text in ("3,5", "inf", "high"):
        labels = ["1"] * 4 + [text]
        read = read_table_items(written(tmp_path / "a.csv", labels), task="regression")
        with pytest.raises(DataError, match="the label of 4 is "):
            given_numbers(read)
