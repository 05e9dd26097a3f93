"""The table as files: what is written is read again, and the worst stands first."""

from __future__ import annotations

import csv
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from helpers.review_tables import review_table
from hypothesis import given, settings
from hypothesis import strategies as st

from saln.errors import DataError, MissingExtraError
from saln.review.review_table import COLUMNS
from saln.review.table_files import (
    to_pandas,
    worst_first,
    write_csv,
    write_parquet,
)

# Everything that a file name or a class may hold; "\udcff" stands for a byte that is no UTF-8.
TEXTS = st.text(
    st.one_of(
        st.sampled_from(",;\"'\n\r\t=+-@ \ufeff\0\udcff\u2028"),
        st.characters(exclude_categories=["Cs"]),
    ),
    max_size=8,
)
UNITS = st.one_of(st.just(np.nan), st.floats(0, 1))


def read_csv(path):
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as stream:
        return list(csv.DictReader(stream))


@st.composite
def tables(draw):
    ids = draw(st.lists(TEXTS.filter(bool), min_size=1, max_size=8, unique=True))
    n = len(ids)
    texts = st.lists(TEXTS, min_size=n, max_size=n)
    return review_table(
        ids,
        splits=draw(texts),
        given=draw(texts),
        believed=draw(texts),
        problem=draw(texts),
        label=draw(texts),
        keys=draw(texts),
        decision=draw(st.lists(st.sampled_from(["", "keep", "drop"]), min_size=n, max_size=n)),
        probability=draw(st.lists(UNITS, min_size=n, max_size=n)),
        margin=draw(st.lists(st.floats(-1, 1), min_size=n, max_size=n)),
        outlier=draw(st.lists(UNITS, min_size=n, max_size=n)),
        group=draw(st.lists(st.integers(-1, 10**9), min_size=n, max_size=n)),
    )


def check_numbers(text, value):
    if np.isnan(value):
        assert text == ""
    else:
        assert float(text) == pytest.approx(value, rel=5e-4, abs=0)
        assert (float(text) < 0.5, float(text) < 1) == (value < 0.5, value < 1)


@settings(deadline=None)
@given(tables())
def test_every_text_comes_back_and_numbers_to_four_digits(table):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "labels.csv"
        write_csv(table, path)
        rows = read_csv(path)
    assert [tuple(row) for row in rows] == [COLUMNS] * len(table)
    order = worst_first(table)
    fields = {"id": "ids", "split": "splits", "key": "keys"}
    for row, place in zip(rows, order, strict=True):
        for name in ("id", "split", "given", "believed", "problem", "decision", "label", "key"):
            assert row[name] == getattr(table, fields.get(name, name))[place]
        for name in ("probability", "margin", "outlier"):
            check_numbers(row[name], getattr(table, name)[place])
        group = table.group[place]
        assert row["group"] == ("" if group < 0 else str(group))


@settings(deadline=None)
@given(tables())
def test_worst_first_is_as_it_is_said(table):
    def rank(row):
        probability = table.probability[row]
        suspect = probability < 0.5 and table.decision[row] == ""
        last = 2 if np.isnan(probability) else 1
        return (0 if suspect else last, 0 if np.isnan(probability) else probability, row)

    assert worst_first(table).tolist() == sorted(range(len(table)), key=rank)


def test_small_numbers_stay_numbers_and_texts_stay_as_they_are(tmp_path):
    table = review_table(
        ["=1+2", "b", "c", "d"],
        probability=[1.23456e-9, 0.49999, 0.123449, 0.99999],
        margin=[-1.0, -0.0, 0.5, 1.0],
    )
    write_csv(table, tmp_path / "labels.csv")
    rows = read_csv(tmp_path / "labels.csv")
    assert [row["id"] for row in rows] == ["=1+2", "c", "b", "d"]
    wanted = ["1.235e-09", "0.1234", "0.49999", "0.99999"]
    assert [row["probability"] for row in rows] == wanted
    assert [row["margin"] for row in rows] == ["-1", "0.5", "0", "1"]


def test_parquet_and_pandas_hold_the_same_without_rounding(tmp_path):
    table = review_table(
        ["a,\n", "b", "é\udcff"],
        given=["cat", "dog", ""],
        probability=[0.9, 0.123456789, np.nan],
        group=[-1, 7, 7],
    )
    write_parquet(table, tmp_path / "labels.parquet")
    found = pq.read_table(tmp_path / "labels.parquet")
    assert tuple(found.column_names) == COLUMNS
    assert found["id"].to_pylist() == ["b", "a,\n", "é?"]
    assert found["probability"].to_pylist() == [0.123456789, 0.9, None]
    assert found["group"].to_pylist() == [7, None, 7]
    frame = to_pandas(table)
    assert list(frame.columns) == list(COLUMNS)
    assert frame.index.tolist() == [1, 0, 2]
    assert frame["given"].tolist() == ["dog", "cat", ""]
    assert frame["probability"].iloc[0] == 0.123456789
    assert frame["probability"].isna().tolist() == [False, False, True]
    assert frame["group"].isna().tolist() == [False, True, False]
    assert pd.api.types.is_integer_dtype(frame["group"])


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot be written"):
        write_csv(review_table(["a"]), tmp_path / "file" / "labels.csv")


def test_a_write_that_fails_leaves_the_file_of_before(tmp_path, monkeypatch):
    path = tmp_path / "labels.csv"
    write_csv(review_table(["a"]), path)
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(DataError, match="free some space"):
        write_csv(review_table(["b"]), path)
    assert path.read_bytes() == before
    assert [found.name for found in tmp_path.iterdir()] == ["labels.csv"]


def test_without_an_extra_its_command_is_said(tmp_path, monkeypatch):
    table = review_table(["a"])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'saln\[select\]'"):
        write_parquet(table, tmp_path / "labels.parquet")
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'saln\[pandas\]'"):
        to_pandas(table)
