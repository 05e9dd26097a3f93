"""Parquet files: which are taken, and what is said of the others."""

from __future__ import annotations

import logging
import os
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import saln
from saln.curation.feature_sources import open_source
from saln.curation.parquet import RowGroups
from saln.curation.partition import PartitionJob
from saln.errors import DataError, InputError

ROWS = 60
TABLE = pa.table(
    {"features": list(np.random.default_rng(0).random((ROWS, 4))), "row": np.arange(ROWS)}
)


def choose(source, out):
    return saln.select(source, selector="uniform", candidates=20, filter_ratio=0.5, out=out)


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("dictionary", [True, False])
@pytest.mark.parametrize("checksum", [True, False])
def test_a_file_without_checksums_is_said(tmp_path, caplog, version, dictionary, checksum):
    path = tmp_path / "rows.parquet"
    pq.write_table(
        TABLE, path, write_page_checksum=checksum, data_page_version=version,
        use_dictionary=dictionary, row_group_size=25,
    )  # fmt: skip
    with caplog.at_level(logging.WARNING):
        choose(path, tmp_path / "kept.parquet")
    said = f"{path} carries no checksums, so that damage to it may go unnoticed"
    assert [said in record.getMessage() for record in caplog.records] == [True] * (not checksum)
    assert open_source(tmp_path / "kept.parquet").groups.has_checksums


def test_row_groups_are_read_alone(tmp_path):
    folder = tmp_path / "rows"
    folder.mkdir()
    pq.write_table(TABLE.slice(0, 30), folder / "a.parquet", row_group_size=20)
    pq.write_table(TABLE.slice(0, 0), folder / "b.parquet")  # without rows, of any kind
    pq.write_table(pa.table({"other": pa.array([], pa.null())}), folder / "c.parquet")
    pq.write_table(TABLE.slice(30), folder / "d.parquet", row_group_size=20)
    (folder / "._e.parquet").write_bytes(b"of a Mac")
    groups = RowGroups(folder)
    assert groups.starts == [0, 20, 30, 50, 60]
    assert [groups.read(number)["row"].to_pylist() for number in (3, 0, 2, 1)] == [
        list(range(50, 60)), list(range(20)), list(range(30, 50)), list(range(20, 30)),
    ]  # fmt: skip
    assert groups.read(1, ["row"]).column_names == ["row"]


def test_a_column_may_lack_values_in_one_file_alone(tmp_path):
    required = pa.schema([field.with_nullable(False) for field in TABLE.schema])
    pq.write_table(TABLE.slice(0, 30).cast(required), tmp_path / "a.parquet")
    pq.write_table(TABLE.slice(30), tmp_path / "b.parquet")
    source = open_source(tmp_path)
    assert source.read(np.array([5, 45, 31])).columns["row"].to_pylist() == [5, 45, 31]


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (TABLE.rename_columns(["features", "line"]), r"b.parquet are not .*a.parquet \(line diff"),
        (TABLE.select(["row", "features"]), r"\(they come in another order\)"),
        (TABLE.set_column(1, "row", pa.array(["x"] * ROWS)), r"\(row differs\)"),
    ],
)
def test_files_with_other_columns_are_refused(tmp_path, other, said):
    pq.write_table(TABLE, tmp_path / "a.parquet")
    pq.write_table(other, tmp_path / "b.parquet")
    with pytest.raises(DataError, match=said):
        open_source(tmp_path)


def test_what_is_no_parquet_is_refused(tmp_path):
    empty = tmp_path / "empty.parquet"
    pq.write_table(TABLE.slice(0, 0), empty)
    with pytest.raises(InputError, match=r"empty.parquet holds no rows; give files that do"):
        open_source(empty)
    (tmp_path / "folder" / "in.parquet").mkdir(parents=True)
    with pytest.raises(InputError, match=r"in.parquet is a folder, and folders in folders are not"):
        open_source(tmp_path / "folder")
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / ".a.parquet").touch()
    with pytest.raises(InputError, match=r"hidden holds no \*.parquet file"):
        open_source(tmp_path / "hidden")
    # It would wait for somebody to write for ever.
    os.mkfifo(tmp_path / "pipe.parquet")
    with pytest.raises(InputError, match=r"pipe.parquet is no regular file"):
        open_source(tmp_path / "pipe.parquet")
    with pytest.raises(InputError, match=r"null' is no regular file|null is no regular file"):
        open_source("/dev/null")


def test_two_columns_of_one_name_are_refused(tmp_path):
    table = TABLE.append_column("row", pa.array(np.arange(ROWS)))
    pq.write_table(table, tmp_path / "rows.parquet")
    with pytest.raises(InputError, match="has two columns named row; rename one of them"):
        open_source(tmp_path / "rows.parquet")


def test_lists_of_other_lengths_in_a_later_row_group_are_refused(tmp_path):
    rows = [[1.0, 2.0, 3.0, 4.0]] * 30 + [[1.0, 2.0, 3.0]] * 30
    pq.write_table(pa.table({"features": rows}), tmp_path / "rows.parquet", row_group_size=30)
    with pytest.raises(DataError, match=r"row 30 of .*: features has 3 numbers where others have"):
        choose(tmp_path / "rows.parquet", tmp_path / "kept.parquet")
    assert [path.name for path in tmp_path.iterdir()] == ["rows.parquet"]


@pytest.mark.parametrize("where", ["file", "folder", "store"])
def test_an_input_that_is_written_to_meanwhile_is_refused(tmp_path, monkeypatch, where):
    """Rows of two versions are never mixed."""
    path = tmp_path / where
    other = TABLE.set_column(0, "features", pa.array([[1.0, 2.0, 3.0, 4.0]] * ROWS))
    if where == "store":
        saln.write_store(path, np.stack(TABLE["features"].to_numpy()), np.arange(ROWS))
    elif where == "folder":
        path.mkdir()
        pq.write_table(TABLE, path / "a.parquet")
        pq.write_table(TABLE, path / "b.parquet")
    else:
        pq.write_table(TABLE, path)
    original = PartitionJob.choose

    def writes(self, number):
        if number == 1:
            if where == "store":
                shutil.rmtree(path)
                saln.write_store(path, np.ones((ROWS, 4)), np.arange(ROWS))
            else:
                pq.write_table(other, path / "b.parquet" if where == "folder" else path)
        return original(self, number)

    monkeypatch.setattr(PartitionJob, "choose", writes)
    with pytest.raises(DataError, match=r"was changed while it was read.*; run the same command"):
        saln.select(
            path, selector="uniform", candidates=20, filter_ratio=0.5, out=tmp_path / "kept",
            partition_rows=20,
        )  # fmt: skip
    assert not (tmp_path / "kept").exists()


def test_an_output_among_the_inputs_is_refused(tmp_path):
    """It would be read as an input when the same command goes on."""
    pq.write_table(TABLE, tmp_path / "rows.parquet")
    with pytest.raises(InputError, match="would be read as a part of it; give another folder"):
        choose(tmp_path, tmp_path / "kept.parquet")
    assert choose(tmp_path / "rows.parquet", tmp_path / "kept.parquet").kept == 30
    (tmp_path / "kept.parquet").unlink()
    assert choose(tmp_path, tmp_path / "kept").kept == 30
