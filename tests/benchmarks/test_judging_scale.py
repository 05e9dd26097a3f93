"""The benchmark of judging at scale, small: labels are judged, and memory is counted."""

from __future__ import annotations

import judging_scale


def test_a_size_has_its_row(tmp_path, monkeypatch):
    monkeypatch.setattr(judging_scale, "WIDTH", 32)
    row = judging_scale.judging_row(2000, tmp_path)
    assert row["n"] == 2000
    assert row["processor_seconds"] > 0
    assert row["peak_bytes"] > 50e6  # the program alone
    # 0.2 of the labels were replaced, of which each can be known.
    assert abs(row["estimated_noise_rate"] - 0.2) < 0.03
    assert row["agreement"] > 0.97
