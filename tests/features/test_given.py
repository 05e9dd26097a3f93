"""Stores of given arrays hold them, and refuse what float16 cannot hold."""

from __future__ import annotations

import numpy as np
import pytest

from saln.errors import DataError, InputError
from saln.features.given import write_store


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
