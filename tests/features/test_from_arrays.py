"""Stores of given arrays hold them, and refuse what float16 cannot hold."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from saln.errors import DataError, InputError
from saln.features.from_arrays import write_store
from saln.features.store import FeatureStore


def test_a_store_of_given_arrays_holds_them_and_is_taken_again(tmp_path):
    random = np.random.default_rng(0)
    rows, labels = random.normal(size=(25, 3)), random.integers(0, 4, 25)
    store = write_store(tmp_path / "store", rows, labels, shard_rows=10)
    np.testing.assert_array_equal(store.features, rows.astype(np.float16))
    np.testing.assert_array_equal(store.labels, labels)
    store.verify()
    before = (tmp_path / "store" / "manifest.json").stat().st_mtime_ns
    write_store(tmp_path / "store", rows, labels, shard_rows=10)
    assert (tmp_path / "store" / "manifest.json").stat().st_mtime_ns == before
    with pytest.raises(DataError, match="does not hold what is asked for"):
        write_store(tmp_path / "store", rows + 1, labels, shard_rows=10)


@pytest.mark.parametrize("bad", [np.nan, 1e6])
def test_given_arrays_that_no_store_can_hold_are_refused(tmp_path, bad):
    rows = np.zeros((25, 3))
    rows[12, 1] = bad
    with pytest.raises(InputError, match="example 12 are NaN, infinite or beyond"):
        write_store(tmp_path / "store", rows, np.zeros(25, dtype=int), shard_rows=10)
    with pytest.raises(InputError, match=r"features are \(25, 3\) and labels \(24,\)"):
        write_store(tmp_path / "store", rows, np.zeros(24, dtype=int))
    assert not (tmp_path / "store").exists()


ROWS = np.random.default_rng(1).normal(size=(12, 3)).astype(np.float32)
CLASSES = np.arange(12) % 4


def frame(values):
    import pandas

    return pandas.DataFrame(values)


def column(values, **options):
    import pandas

    return pandas.Series(values, **options)


TAKEN = {
    **{str(np.dtype(kind)): CLASSES.astype(kind) for kind in
       ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", ">i4")},
    "(n, 1)": CLASSES[:, None],
    "a list": CLASSES.tolist(),
    "a tuple": tuple(CLASSES.tolist()),
    "a list of floats": CLASSES.astype(float).tolist(),
    "a list of NumPy's": list(CLASSES.astype(np.uint8)),
    "a list of tensors": list(torch.from_numpy(CLASSES)),
    "objects": CLASSES.astype(object),
    "a tensor": torch.from_numpy(CLASSES),
    "a tensor with gradients": torch.from_numpy(CLASSES).float().requires_grad_(),
    "a tensor of bfloat16": torch.from_numpy(CLASSES).bfloat16()[:, None],
    "a column": column(CLASSES),
    "a column that may lack values": column(CLASSES, dtype="Int64"),
    "a frame": frame(CLASSES),
}  # fmt: skip


TARGETS = CLASSES + np.array([0.0, 0.5, 0.25] * 4)  # numbers to be predicted
NO_CLASSES = {
    **{kind: TARGETS.astype(kind) for kind in ("f2", "f4", "f8", "longdouble", "object")},
    "(n, 1)": TARGETS[:, None],
    "a list": TARGETS.tolist(),
    "a tensor": torch.from_numpy(TARGETS),
    "a tensor of bfloat16": torch.from_numpy(TARGETS).bfloat16(),
    "a column": column(TARGETS),
    "a column that may lack values": column(TARGETS, dtype="Float64"),
    "one fraction among whole numbers": [0, 0.5, *range(10)],
}


@pytest.mark.parametrize("kind", NO_CLASSES)
def test_numbers_to_be_predicted_are_refused_and_never_cut(kind, tmp_path):
    with pytest.raises(InputError, match=r"example 1 is \d\.\d+, which is no class.*regression"):
        write_store(tmp_path / "store", ROWS, NO_CLASSES[kind])
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("kind", TAKEN)
def test_labels_whose_meaning_is_plain_are_taken(kind, tmp_path):
    store = write_store(tmp_path / "store", ROWS, TAKEN[kind])
    assert store.labels.tolist() == CLASSES.tolist()
    assert store.labels.dtype == np.int64
    assert store.class_names is None


@pytest.mark.parametrize("kind", ["array", "list", "objects", "column", "categories"])
def test_names_of_classes_are_numbered_and_kept(kind, tmp_path):
    names = np.array(["owl", "cat", "dog"])[np.arange(12) % 3]
    given = {
        "array": names,
        "list": names.tolist(),
        "objects": names.astype(object)[:, None],
        "column": column(names),
        "categories": column(names, dtype="category"),
    }[kind]
    store = write_store(tmp_path / "store", ROWS, given)
    assert store.class_names == ("cat", "dog", "owl")
    assert store.labels.tolist() == [2, 0, 1] * 4
    assert FeatureStore.open(store.path).class_names == store.class_names
    with pytest.raises(DataError, match="does not hold what is asked for"):
        write_store(store.path, ROWS, [{"owl": "eel"}.get(name, name) for name in names])


def with_one(value, kind=float):
    labels = CLASSES.astype(kind)
    labels[5] = value
    return labels


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (with_one(0.7), r"label of example 5 is 0\.7, which is no class; give whole numbers: "),
        (with_one(np.nan), "label of example 5 is nan; give its class, or leave"),
        (with_one(np.inf), "label of example 5 is inf; give its class, or leave"),
        (with_one(-1), r"label of example 5 is -1.*; give 0 or more"),
        (with_one(-100, int), "label of example 5 is -100; give 0 or more"),
        (
            with_one(2**63, np.uint64),
            "label of example 5 is 9223372036854775808, more than a class",
        ),
        (with_one(None, object), "label of example 5 is None; give whole numbers from 0, or"),
        (with_one("cat", object), "label of example 5 is 'cat'; give whole numbers from 0, or"),
        (np.eye(4)[CLASSES], r"labels \(12, 4\); give \(n, d\) and \(n,\), and of one-hot"),
        ([[0, 2]] * 12, r"labels \(12, 2\); give"),
        ([[0]] * 11 + [[0, 1]], "labels are a list that is no array .*; give a NumPy array"),
        (CLASSES.astype("datetime64[s]"), r"labels are datetime64\[s\]; give whole numbers"),
        (CLASSES + 1j, "labels are complex128; give whole numbers"),
        ([{}] * 12, r"label of example 0 is \{\}; give whole numbers"),
        (None, "holds labels, and none are given; give one a row"),
        (5, r"labels \(\); give"),
        (column([1, None] * 6, dtype="Int64"), "label of example 1 is nan; give"),
    ],
)
def test_labels_that_are_no_classes_are_refused_with_their_row(labels, message, tmp_path):
    with pytest.raises(InputError, match=message):
        write_store(tmp_path / "store", ROWS, labels)
    assert not (tmp_path / "store").exists()


def test_far_numbers_stay_as_they_are(tmp_path):
    labels = CLASSES * 10**12
    assert write_store(tmp_path / "store", ROWS, labels).labels.tolist() == labels.tolist()


@pytest.mark.parametrize(
    "kind", ["tensor", "bfloat16", "list", "rows", "frame", "whole numbers", "by column", "text"]
)
def test_features_as_people_have_them(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    wide = np.round(ROWS * 8)
    given = {
        "tensor": torch.from_numpy(wide).requires_grad_(),
        "bfloat16": torch.from_numpy(wide).bfloat16(),
        "list": wide.tolist(),
        "rows": list(torch.from_numpy(wide)),
        "frame": frame(wide),
        "whole numbers": wide.astype(int),
        "by column": np.asfortranarray(wide),
        "text": wide,
    }[kind]
    store = write_store("store", given, CLASSES, shard_rows=np.int32(5))
    assert np.array_equal(store.features, wide.astype(np.float16))
    assert len(store.manifest["checksums"]) == 3


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (ROWS[0], r"features are \(3,\); give \(n, d\)"),
        (ROWS[:0], r"features are \(0, 3\); give"),
        (ROWS.astype(str), "features are <U.*; give numbers"),
        (ROWS + 1j, "features are complex.*; give numbers"),
        ([[1.0], [1.0, 2.0]], "features are a list that is no array"),
        ({"a": 1}, r"features are \(\); give"),
    ],
)
def test_features_that_are_none_are_refused(features, message, tmp_path):
    with pytest.raises(InputError, match=message):
        write_store(tmp_path / "store", features, CLASSES[: len(features)])
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path": 5}, "path=5 is no path; give text or a pathlib.Path"),
        ({"path": ""}, "path='' is not allowed"),
        ({"path": "a\0b"}, "is not allowed; give the path"),
        ({"shard_rows": 0}, "shard_rows=0 is not allowed; give at least 1"),
        ({"shard_rows": 2.5}, "shard_rows=2.5 is not allowed; give at least 1, a whole"),
        ({"shard_rows": "8"}, "shard_rows='8' is not allowed"),
    ],
)
def test_settings_that_mean_nothing_are_refused(options, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        write_store(**{"path": "store", "features": ROWS, "labels": CLASSES} | options)
    assert list(tmp_path.iterdir()) == []


def test_what_float16_turns_into_nothing_is_said(tmp_path):
    with pytest.raises(InputError, match=r"all features are below 6e-08.*; multiply all features"):
        write_store(tmp_path / "store", ROWS * 1e-30, CLASSES)
    assert not (tmp_path / "store").exists()
    some = ROWS.copy()
    some[[2, 3, 4, 7]] *= 1e-30
    with pytest.warns(UserWarning, match=r"features of 4 examples \(2, 3, 4 ...\) are all below"):
        store = write_store(tmp_path / "some", some, CLASSES, shard_rows=4)
    assert not store.features[[2, 3, 4, 7]].any()
    with pytest.warns(UserWarning, match=r"no feature is above .*e-06, .* holds few digits"):
        write_store(tmp_path / "few", ROWS * 1e-6, CLASSES)
    write_store(tmp_path / "zero", np.zeros((12, 3)), CLASSES)  # nothing is lost


def test_a_damaged_shard_is_written_again(tmp_path):
    store = write_store(tmp_path / "store", ROWS, CLASSES, shard_rows=5)
    whole = (tmp_path / "store" / "features.npy").read_bytes()
    cut = bytearray(whole)
    cut[-1] ^= 1
    (tmp_path / "store" / "features.npy").write_bytes(cut)
    with pytest.raises(DataError, match=r"rows 10 to 11 are not .*saln.write_store"):
        FeatureStore.open(store.path)
    write_store(tmp_path / "store", ROWS, CLASSES, shard_rows=5)
    assert (tmp_path / "store" / "features.npy").read_bytes() == whole
