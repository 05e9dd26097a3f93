"""Decisions as people save them, and what is remembered of them."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saln.errors import DataError, InputError
from saln.review.decisions import (
    Decision,
    Remembered,
    RememberedDecisions,
    read_decisions,
    read_ids,
    remember,
    remembered,
)

HEADER = "id,split,given,decision,label,key,review\n"
ROWS = (
    "cat/ä, b.jpg,train,cat,believe,dog,k1,/tmp/r",
    "cat/c.jpg,train,cat,keep,,k2,/tmp/r",
    "dog/d.jpg,test,dog,relabel,bird,k3,/tmp/r",
    "dog/e.jpg,test,dog,drop,dog,k4,/tmp/r",
)
WANTED = [
    ("cat/ä, b.jpg", "train", "cat", "believe", "dog", "k1"),
    ("cat/c.jpg", "train", "cat", "keep", "cat", "k2"),
    ("dog/d.jpg", "test", "dog", "relabel", "bird", "k3"),
    ("dog/e.jpg", "test", "dog", "drop", "", "k4"),
]


def saved(separator: str = ",", end: str = "\n") -> str:
    lines = [HEADER.strip().replace(",", separator)]
    for row in ROWS:
        name, *rest = row.rsplit(",", 6)
        lines.append(separator.join([f'"{name}"', *rest]))
    return end.join(lines) + end


def fields(decision: Decision) -> tuple[str, ...]:
    each = decision
    return each.id, each.split, each.given, each.decision, each.label, each.key


@pytest.mark.parametrize(
    "content",
    [
        saved().encode(),
        saved().encode("utf-8-sig"),
        saved(";", "\r\n").encode("utf-8-sig"),
        b"sep=;\r\n" + saved(";", "\r\n").encode(),
        saved("\t", "\r\n").encode("utf-16"),
        saved(",", "\r").encode(),
        saved().replace("id,", "Other,ID,", 1).replace('\n"', '\nx,"').encode(),
        (saved() + ",,,,,,\n\n").encode(),
        saved().replace("believe", " BELIEVE ").encode(),
    ],
)
def test_files_of_the_page_and_of_spreadsheets_say_the_same(tmp_path: Path, content: bytes):
    path = tmp_path / "decisions.csv"
    path.write_bytes(content)
    found = read_decisions(path)
    assert [fields(each) for each in found.decisions] == WANTED
    assert found.review == Path("/tmp/r")


LABELS = "id,split,given,believed,probability,margin,group,outlier,problem,decision,label,key\n"


def test_a_table_of_labels_is_taken_with_what_somebody_wrote_into_it(tmp_path: Path):
    path = tmp_path / "labels.csv"
    path.write_text(
        LABELS
        + "a,,cat,dog,0.01,-0.9,-1,,,believe,,k1\n"
        + "b,,cat,dog,0.4,-0.2,-1,,,,,k2\n"
        + "c,,cat,dog,0.6,0.2,-1,,,,,k3\n"
        + 'd,,cat,dog,"0,3",-0.2,-1,,,,,k4\n'
        + "e,,cat,dog,0.01,-0.9,-1,,,keep,,k5\n"
        + "f,,cat,,,,-1,,unreadable: no,,,k6\n"
    )
    assert [fields(each)[0] for each in read_decisions(path).decisions] == ["a", "e"]
    found = {
        each.id: (each.decision, each.label) for each in read_decisions(path, below=0.5).decisions
    }
    assert found == {
        "a": ("believe", "dog"),
        "b": ("believe", "dog"),
        "d": ("believe", "dog"),
        "e": ("keep", "cat"),
    }
    found = {each.id for each in read_decisions(path, below=0.35).decisions}
    assert found == {"a", "d", "e"}
    assert read_decisions(path).review is None


@pytest.mark.parametrize(
    ("rows", "line", "words"),
    [
        ("a,,cat,beleive,dog,k,r\n", 2, ["beleive", "believe, keep, relabel, drop"]),
        ("a,,cat,keep,,k,r\n\na,,cat,drop,,k,r\n", 4, ["drop", "keep cat", "line 2"]),
        ("a,,cat,believe,,k,r\n", 2, ["column label"]),
        (",,cat,drop,,k,r\n", 2, ["id is missing"]),
        ("a,,,keep,,k,r\n", 2, ["column given"]),
        ("a,,cat,keep,,k,r,more\n", 2, ["8 cells", "7"]),
        ("a,,cat,keep,,k,r\nb,,cat,keep,,k,s\n", 3, ["one review"]),
        ('a,,"cat\nx",keep,,k,r\nb,,cat,kep,,k,r\n', 4, ["kep"]),
    ],
)
def test_what_is_wrong_is_said_in_one_line_that_names_the_line(tmp_path: Path, rows, line, words):
    path = tmp_path / "decisions.csv"
    path.write_text(HEADER + rows)
    with pytest.raises(InputError) as error:
        read_decisions(path)
    text = str(error.value)
    assert text.startswith(f"{path}, line {line}: ")
    assert "\n" not in text
    for word in words:
        assert word in text


def test_a_file_of_something_else_is_refused(tmp_path: Path):
    path = tmp_path / "decisions.csv"
    with pytest.raises(DataError, match="cannot be read"):
        read_decisions(path)
    for content in (b"", b"id,label\n", b"\x89PNG\r\n\x1a\n\0\0", b"id,decision,ID\n"):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"line 1: the column"):
            read_decisions(path)


def test_ids_are_those_of_the_review(tmp_path: Path):
    path = tmp_path / "decisions.csv"
    path.write_text(HEADER + "cat/aa.jpg,,cat,keep,,k,r\nq,,cat,keep,,k,r\n")
    found = read_decisions(path)
    every = {"q", "cat/aa.jpg"}
    found.check_ids({"q", "cat/aa.jpg", "other"}, among=every)
    found.check_ids({"q"}, among={"q"})
    with pytest.raises(InputError, match=r"line 2: .*cat/aa\.jpg; did you mean cat/ab\.jpg\?"):
        found.check_ids({"q", "cat/ab.jpg"}, among=every)
    with pytest.raises(InputError, match=r"line 3: .* q; give one that labels\.csv lists"):
        found.check_ids({"cat/aa.jpg"}, among=every)
    assert read_ids(path) == every
    assert read_ids(tmp_path / "none.csv") == set()


def decided(name: str, decision: str, label: str, key: str, given: str = "cat") -> Decision:
    return Decision(name, "", given, decision, label, key)


def test_a_decision_is_found_again_by_content_and_done_when_the_label_is_the_decided_one():
    known = RememberedDecisions(
        [
            decided("cat/a", "believe", "dog", "A"),
            decided("cat/b", "keep", "cat", "B"),
            decided("cat/c", "drop", "", "C"),
            decided("row 7", "relabel", "bird", ""),
        ]
    )
    assert known.of("cat/a", "A", "cat") == Remembered("believe", "dog")  # not applied yet
    assert known.of("dog/a (2)", "A", "dog") == Remembered("believe", "dog", is_done=True)
    assert known.of("cat/renamed", "A", "cat") == Remembered("believe", "dog")
    assert known.of("bird/a", "A", "bird") == Remembered()  # somebody has meant another
    assert known.of("cat/a", "X", "cat") == Remembered()  # the content has changed
    assert known.of("cat/b", "B", "cat") == Remembered("keep", "cat", is_done=True)
    assert known.of("dog/b", "B", "dog") == Remembered()
    assert known.of("cat/c", "C", "cat") == Remembered("drop")
    assert known.of("cat/copy of c", "C", "cat") == Remembered()
    assert known.of("row 7", "", "dog") == Remembered("relabel", "bird")
    assert known.of("row 7", "K", "bird") == Remembered("relabel", "bird", is_done=True)


def test_the_newest_decision_counts_and_content_under_an_old_name_is_another(tmp_path: Path):
    assert remembered(tmp_path).of("cat/a", "A", "cat") == Remembered()
    remember(
        tmp_path, [decided("cat/a", "believe", "dog", "A"), decided("cat/b", "keep", "cat", "B")]
    )
    remember(tmp_path, [decided("cat/a", "keep", "cat", "A")])
    assert remembered(tmp_path).of("cat/a", "A", "cat") == Remembered("keep", "cat", is_done=True)
    remember(tmp_path, [decided("cat/a", "believe", "dog", "A")])
    remember(tmp_path, [decided("cat/a", "drop", "", "new")])
    known = remembered(tmp_path)
    assert known.of("dog/a", "A", "dog") == Remembered("believe", "dog", is_done=True)
    assert known.of("cat/a", "new", "cat") == Remembered("drop")
    assert known.of("cat/b", "B", "cat").is_done
    with (tmp_path / "decisions.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 3
    assert {row["review"] for row in rows} == {str(tmp_path)}


# Names that a file system allows, also such as are no UTF-8.
NAMES = st.binary(min_size=1, max_size=12).map(lambda raw: raw.decode("utf-8", "surrogateescape"))
TEXTS = NAMES.filter(lambda name: "\0" not in name)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(TEXTS, TEXTS, TEXTS), max_size=8, unique_by=lambda row: row[0]))
def test_whatever_is_remembered_is_read_again(tmp_path_factory, rows):
    out = tmp_path_factory.mktemp("out")
    decisions = [
        Decision(name, "train", given, "relabel", label, f"{number:x}")
        for number, (name, given, label) in enumerate(rows)
        if given.strip() and label.strip()
    ]
    remember(out, decisions)
    found = read_decisions(out / "decisions.csv").decisions
    assert [fields(each) for each in found] == [fields(each) for each in decisions]
