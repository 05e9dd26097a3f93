"""Choosing once, offline: what is kept, what a kill leaves, what bad input gets."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from helpers.select_processes import killed_and_again, words
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import saln
from saln.cli import main
from saln.curation.feature_sources import open_source
from saln.curation.partition import PartitionJob
from saln.errors import DataError, InputError
from saln.randomness import derive_generator
from saln.selection import SELECTORS, kept_count

ROWS, WIDTH = 230, 6


def examples(rows=ROWS):
    random = np.random.default_rng(5)
    labels = np.arange(rows) % 4
    features = random.random((rows, WIDTH)) + 2 * np.eye(WIDTH)[labels]
    return features.astype(np.float16), labels


@pytest.fixture
def store(tmp_path):
    saln.write_store(tmp_path / "store", *examples())
    return tmp_path / "store"


@pytest.fixture
def parquet(tmp_path):
    features, labels = examples()
    table = pa.table(
        {
            "name": [f"image-{row}.jpg" for row in range(ROWS)],
            "features": list(features.astype(np.float32)),
            "breed": labels.astype(np.int32),
            "height": np.arange(ROWS) * 10,
        }
    )
    pq.write_table(table, tmp_path / "rows.parquet", row_group_size=57)
    return tmp_path / "rows.parquet"


def select(source, out, *, selector="saln", **options):
    options = {"candidates": 40, "filter_ratio": 0.8, "partition_rows": 80, **options}
    return saln.select(source, selector=SELECTORS[selector](), out=out, **options)


def by_hand(selector, features, labels, *, n, f, seed, partition):
    """What the docstring says, row by row."""
    kept = []
    shuffled = torch.randperm(len(features), generator=derive_generator(seed, "order")).tolist()
    for start in range(0, len(features), partition):
        order = shuffled[start : start + partition]
        for step in range(0, len(order), n):
            indices = torch.tensor(order[step : step + n])
            batch = (start + step) // n
            k = kept_count(len(indices), f)
            if k == 0:
                continue
            candidates = saln.Candidates(
                indices=indices,
                features=torch.from_numpy(features)[indices],
                labels=torch.from_numpy(labels)[indices],
            )
            chosen = selector(candidates, k, generator=derive_generator(seed, "select", batch))
            kept += [(batch, int(indices[position])) for position in chosen.positions]
    return kept


@pytest.mark.parametrize("name", ["uniform", "saln", "k-center", "coherence-batch"])
def test_the_kept_rows_are_the_selectors(store, tmp_path, name):
    result = select(store, tmp_path / "kept.parquet", selector=name, seed=3)
    table = pq.read_table(tmp_path / "kept.parquet")
    expected = by_hand(SELECTORS[name](), *examples(), n=40, f=0.8, seed=3, partition=80)
    assert list(zip(table["batch"].to_pylist(), table["id"].to_pylist(), strict=True)) == expected
    assert result.kept == len(table) == 5 * 8 + 6
    assert (result.rows, result.left_over, result.computed) == (ROWS, 30, ROWS)
    labels = examples()[1]
    assert table["label"].to_pylist() == labels[table["id"].to_numpy()].tolist()
    assert table["weight"].to_pylist() == [1.0] * len(table)
    assert not (tmp_path / "kept.parquet.parts").exists()


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.integers(1, 60), st.sampled_from([0.0, 0.3, 0.5, 0.9]), st.integers(1, 100),
    st.integers(0, 3),
)  # fmt: skip
def test_any_size_keeps_the_share_of_every_batch(tmp_path_factory, n, f, partition_rows, seed):
    folder = tmp_path_factory.mktemp("sizes")
    features, labels = examples(61)
    saln.write_store(folder / "store", features, labels)
    if kept_count(n, f) == 0:
        return
    result = select(
        folder / "store", folder / "kept.parquet", selector="uniform", candidates=n,
        filter_ratio=f, partition_rows=partition_rows, seed=seed,
    )  # fmt: skip
    table = pq.read_table(folder / "kept.parquet")
    ids = table["id"].to_pylist()
    assert len(set(ids)) == len(ids) == result.kept
    sizes = [n] * (61 // n) + [61 % n]
    assert np.bincount(table["batch"].to_numpy(), minlength=len(sizes)).tolist() == [
        kept_count(size, f) if size else 0 for size in sizes
    ]


def test_parquet_columns_are_kept(parquet, tmp_path):
    select(
        parquet, tmp_path / "kept.parquet", labels_column="breed", id_column="name", seed=1,
    )  # fmt: skip
    table = pq.read_table(tmp_path / "kept.parquet")
    assert table.column_names == [
        "name", "features", "breed", "height", "id", "label", "score", "weight", "batch",
    ]  # fmt: skip
    assert table["id"].equals(table["name"])
    rows = table["height"].to_numpy() // 10
    features, labels = examples()
    assert table["breed"].to_pylist() == table["label"].to_pylist() == labels[rows].tolist()
    assert np.array_equal(np.stack(table["features"].to_numpy()), features[rows])
    # Row groups, files and their sizes change nothing.
    whole = pq.read_table(parquet)
    folder = tmp_path / "files"
    folder.mkdir()
    pq.write_table(whole.slice(0, 100), folder / "a.parquet", row_group_size=7)
    pq.write_table(whole.slice(100), folder / "b.parquet")
    select(folder, tmp_path / "again.parquet", labels_column="breed", id_column="name", seed=1)
    assert pq.read_table(tmp_path / "again.parquet").equals(table)


def test_parquet_is_taken_in_the_order_of_its_rows(parquet, tmp_path):
    select(parquet, tmp_path / "kept.parquet", seed=5)
    table = pq.read_table(tmp_path / "kept.parquet")
    features, _ = examples()
    kept = []
    for start in range(0, ROWS, 80):
        stop = min(start + 80, ROWS)
        order = torch.randperm(stop - start, generator=derive_generator(5, "order", start)) + start
        for step, indices in enumerate(order.split(40)):
            chosen = saln.SALN()(
                saln.Candidates(indices=indices, features=torch.from_numpy(features)[indices]),
                kept_count(len(indices), 0.8),
                generator=derive_generator(5, "select", start // 40 + step),
            )
            kept += indices[chosen.positions].tolist()
    assert table["id"].to_pylist() == kept


def test_coherence_says_which_labels_it_distrusts(tmp_path, capsys):
    features, labels = examples()
    given = labels.copy()
    given[:20] = (given[:20] + 1) % 4  # these are wrong
    saln.write_store(tmp_path / "store", features, given)
    out = tmp_path / "kept.parquet"
    flags = [
        "--selector",
        "coherence(judge=neighbors)",
        "--filter-ratio",
        "0.5",
        "--candidates",
        "40",
    ]
    code = main(["select", str(tmp_path / "store"), *flags, "--out", str(out), "--distrusted", "3"])
    assert code == 0
    said = capsys.readouterr().out
    assert said.count("believed") == 4
    table = pq.read_table(out)
    found = json.loads((tmp_path / "kept.labels.json").read_text())
    assert {entry["row"] for entry in found["labels"]} == set(range(20))
    assert found["doubted"] == 20
    assert abs(found["estimated_noise_rate"] - 20 / ROWS) < 0.15
    assert np.array(found["transition"]).shape == (4, 4)
    for entry in found["labels"]:
        assert (entry["label"], entry["believed"]) == (
            given[entry["row"]], labels[entry["row"]]
        )  # fmt: skip
    kept = table["id"].to_numpy()
    assert (kept < 20).sum() == 0
    assert table["believed_label"].to_pylist() == labels[kept].tolist()
    assert min(table["label_confidence"].to_pylist()) > 0.5
    # The same from Parquet, with names.
    rows = pa.table({"id": [f"i{i}" for i in range(ROWS)], "features": list(features.astype("f4")),
                     "label": given})  # fmt: skip
    pq.write_table(rows, tmp_path / "rows.parquet")
    result = saln.select(
        tmp_path / "rows.parquet", out=tmp_path / "p.parquet",
        selector="coherence(judge=neighbors)", candidates=40, filter_ratio=0.5,
        labels_column="label", id_column="id",
    )  # fmt: skip
    assert result.doubted == 20
    assert {entry["id"] for entry in result.listed} == {f"i{i}" for i in range(20)}


def test_the_selector_says_who_judges_the_labels(tmp_path):
    features, labels = examples()
    given = labels.copy()
    given[:20] = (labels[:20] + 1) % 4
    store = saln.write_store(tmp_path / "store", features, given)
    found, kept = {}, {}
    for judge in ("neighbors", "labels"):
        out = tmp_path / f"{judge}.parquet"
        result = saln.select(
            store, selector=f"coherence(judge={judge}, power=4)", out=out, filter_ratio=0.5,
            candidates=40,
        )  # fmt: skip
        found[judge] = json.loads(result.labels.read_text())
        table = pq.read_table(out)
        kept[judge] = dict(
            zip(table["id"].to_pylist(), table["label_confidence"].to_pylist(), strict=True)
        )
    assert "judge" not in found["neighbors"]
    assert found["labels"]["judge"] == "labels"
    judged = saln.judge_labels(store)
    assert found["labels"]["estimated_noise_rate"] == judged.noise_rate
    assert found["labels"]["transition"] == judged.transition.tolist()
    wrong = {entry["row"]: entry["confidence"] for entry in found["labels"]["labels"]}
    doubted = [issue.example for issue in judged.issues(None)]
    assert wrong == {row: float(judged.confidence[row]) for row in doubted}
    assert len(doubted) > 15
    assert set(doubted) <= set(range(20))
    for row, confidence in kept["labels"].items():
        assert confidence == float(judged.confidence[int(row)])
    assert kept["neighbors"] != kept["labels"]
    assert not set(kept["labels"]) & set(range(20))


def test_coherence_says_that_features_tell_nothing(tmp_path, capsys):
    features, labels = examples()
    saln.write_store(tmp_path / "store", np.full_like(features, 0.25), labels)
    out = tmp_path / "kept.parquet"
    flags = ["--selector", "coherence", "--filter-ratio", "0.5", "--candidates", "40"]
    assert main(["select", str(tmp_path / "store"), *flags, "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "chosen at random: these features predict the labels little better" in said
    assert "look wrong" not in said
    found = json.loads((tmp_path / "kept.labels.json").read_text())
    assert (found["estimated_noise_rate"], found["doubted"], found["labels"]) == (None, 0, [])
    table = pq.read_table(out)
    assert set(table["label_confidence"].to_pylist()) == {1.0}
    assert table["believed_label"].to_pylist() == table["label"].to_pylist()


def test_a_stopped_run_goes_on_with_the_same_bytes(store, tmp_path, monkeypatch):
    whole = tmp_path / "whole.parquet"
    select(store, whole)
    asked = []
    original = PartitionJob.choose

    def stops_once(self, number):
        asked.append(number)
        if asked == [0, 1]:
            raise KeyboardInterrupt
        return original(self, number)

    monkeypatch.setattr(PartitionJob, "choose", stops_once)
    out = tmp_path / "kept.parquet"
    with pytest.raises(KeyboardInterrupt):
        select(store, out)
    assert not out.exists()
    with pytest.raises(InputError, match="whose seed was 0"):
        select(store, out, seed=1)
    result = select(store, out)
    assert asked == [0, 1, 1, 2]
    assert result.computed == ROWS - 80
    assert out.read_bytes() == whole.read_bytes()


@pytest.fixture
def large(tmp_path):
    random = np.random.default_rng(0)
    features = random.random((12_000, 16)).astype(np.float16)
    saln.write_store(tmp_path / "large", features, np.zeros(12_000, dtype=np.int64))
    return tmp_path / "large"


def test_a_killed_run_goes_on_with_the_same_bytes(warm, large, tmp_path):
    whole = tmp_path / "whole.parquet"
    saln.select(
        large, selector=saln.SALN(), candidates=100, filter_ratio=0.8, out=whole,
        partition_rows=400,
    )  # fmt: skip
    out = tmp_path / "kept.parquet"
    found = killed_and_again(words(large, out), out, warm)
    assert found["computed"] < found["rows"] == 12_000
    assert out.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (["--selector", "best"], 2, "--selector best is not allowed; give one of uniform"),
        (["--selector", "jest"], 2, "JEST needs a network in training, and offline there is none"),
        (["--selector", "infobatch"], 2, "InfoBatch needs a network in training"),
        (["--candidates", "231"], 2, "--candidates 231 is more than the 230 rows"),
        (["--candidates", "0"], 2, "--candidates 0 is not allowed; give at least 1"),
        (["--candidates", "4"], 2, "keeps nothing; lower the ratio"),
        (["--filter-ratio", "1"], 2, "filter ratio 1.0 is not allowed"),
        (["--features-column", "pixels"], 2, "has no such column; choose among name, features"),
        (["--labels-column", "features"], 2, "--labels-column features holds list"),
        (["--id-column", "no"], 2, "--id-column no: "),
        (["--features-column", "height"], 2, "holds int64; give a column of lists"),
        (["--selector", "coherence"], 2, "Coherence requires labels; give --labels-column"),
        (["--ray-workers", "2"], 2, "are for --engine ray; give that too"),
    ],
)
def test_settings_that_cannot_work_are_refused_in_a_line(
    parquet, tmp_path, capsys, flags, code, message
):
    base = {"--selector": "saln", "--candidates": "40", "--out": str(tmp_path / "kept.parquet")}
    base |= dict(zip(flags[::2], flags[1::2], strict=True))
    arguments = [part for pair in base.items() for part in pair]
    assert main(["select", str(parquet), *arguments]) == code
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["rows.parquet"]


def test_an_output_that_exists_and_an_input_that_does_not_are_refused(parquet, tmp_path, capsys):
    flags = ["--selector", "uniform", "--candidates", "40", "--out"]
    (tmp_path / "kept.parquet").mkdir()
    assert main(["select", str(parquet), *flags, str(tmp_path / "kept.parquet")]) == 2
    assert "exists; give a new name" in capsys.readouterr().err
    assert main(["select", str(tmp_path / "no"), *flags, str(tmp_path / "k.parquet")]) == 2
    assert "does not exist; give the folder of a feature store" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert main(["select", str(tmp_path / "empty"), *flags, str(tmp_path / "k.parquet")]) == 1
    assert "holds no feature store" in capsys.readouterr().err
    (tmp_path / "empty" / "cat").mkdir()
    (tmp_path / "empty" / "cat" / "1.jpg").touch()
    assert main(["select", str(tmp_path / "empty"), *flags, str(tmp_path / "k.parquet")]) == 1
    said = capsys.readouterr().err
    assert "holds no feature store but pictures; make one with 'saln features --datas" in said


def test_a_truncated_file_is_refused(parquet, tmp_path, capsys):
    content = parquet.read_bytes()
    parquet.write_bytes(content[: len(content) // 2])
    out = tmp_path / "kept.parquet"
    assert main(["select", str(parquet), "--selector", "uniform", "--out", str(out)]) == 1
    assert "cannot be read as Parquet" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([1.0] * 5, "row 150 of .*: features has 5 numbers where others have 6"),
        (None, "row 150 of .*: features is missing"),
        ([1.0, None, 1.0, 1.0, 1.0, 1.0], "row 150 of .*: features lacks a number"),
        ([1.0, float("nan"), 1.0, 1.0, 1.0, 1.0], "row 150 of .*: its features are NaN"),
    ],
)
def test_a_broken_row_is_named(parquet, tmp_path, row, message):
    table = pq.read_table(parquet)
    features = table["features"].to_pylist()
    features[150] = row
    broken = table.set_column(1, "features", pa.array(features, pa.list_(pa.float32())))
    pq.write_table(broken, tmp_path / "broken.parquet")
    with pytest.raises(DataError, match=message):
        select(tmp_path / "broken.parquet", tmp_path / "kept.parquet")
    assert not (tmp_path / "kept.parquet").exists()
    # Repaired, it goes on in a new place: it is another input.
    with pytest.raises(InputError, match=r"whose .* was"):
        select(parquet, tmp_path / "kept.parquet")


def test_files_of_several_kinds_are_refused(parquet, tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    table = pq.read_table(parquet)
    pq.write_table(table, folder / "a.parquet")
    pq.write_table(table.drop_columns(["height"]), folder / "b.parquet")
    with pytest.raises(DataError, match=r"the columns of .*b.parquet are not those of .*a.parquet"):
        open_source(folder)


def test_a_full_disk_leaves_no_half(store, tmp_path, monkeypatch):
    write = Path.write_bytes
    full = ["part-000001"]

    def fails(self, content):
        if any(name in self.name for name in full):
            write(self, content[:10])
            raise OSError(28, "No space left on device")
        return write(self, content)

    monkeypatch.setattr(Path, "write_bytes", fails)
    out = tmp_path / "kept.parquet"
    with pytest.raises(DataError, match=r"No space left on device\); free some space"):
        select(store, out)
    left = sorted(path.name for path in (tmp_path / "kept.parquet.parts").iterdir())
    assert [name.split("-")[:2] for name in left] == [["manifest.json"], ["part", "000000"]]
    full.clear()
    assert select(store, out).computed == ROWS - 80
    # Where nothing was done, nothing is left.
    full.append("part-000000")
    with pytest.raises(DataError, match="No space left on device"):
        select(store, tmp_path / "other.parquet")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept.parquet", "store"]
