"""The benchmark of judging at scale, small: labels are judged, and memory is counted."""

from __future__ import annotations

import subprocess

import judging_scale


def test_a_size_has_its_row(warm, tmp_path, monkeypatch):
    def started(command, **_):
        ended = warm.run(command[2:], tmp_path, script=command[1])
        return subprocess.CompletedProcess(command, ended.returncode, ended.stdout)

    monkeypatch.setattr(judging_scale.subprocess, "run", started)
    monkeypatch.setattr(judging_scale, "WIDTH", 32)
    row = judging_scale.judging_row(2000, tmp_path)
    assert row["n"] == 2000
    assert row["processor_seconds"] > 0
    assert row["peak_bytes"] > 50e6  # the program alone
    # 0.2 of the labels were replaced, of which each can be known.
    assert abs(row["estimated_noise_rate"] - 0.2) < 0.03
    assert row["agreement"] > 0.97
