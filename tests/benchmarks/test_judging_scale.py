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
    row = judging_scale.judging_row(2000, tmp_path, repeats=1)
    assert row["n"] == 2000
    assert row["processor_seconds"] > 0
    assert row["peak_bytes"] > 50e6  # the program alone
    # 0.2 of the labels were replaced, of which each can be known.
    assert abs(row["estimated_noise_rate"] - 0.2) < 0.03
    assert row["agreement"] > 0.97


def test_a_straight_line_has_a_fixed_time_and_says_how_far_off_it_is():
    def rows(*seconds):
        sizes = (10_000, 100_000, 1_000_000)
        return [{"n": n, "processor_seconds": s} for n, s in zip(sizes, seconds, strict=True)]

    straight = judging_scale.straight_line(rows(0.45, 2.7, 25.2))
    assert "0.20 s and 25.0 s for each million examples" in straight
    assert straight.endswith("off by more than 0%.")
    # Of a square, the line nearest by shares is off by most of the first.
    bent = judging_scale.straight_line(rows(0.01, 1.0, 100.0))
    off = int(bent.rsplit(" ", 1)[1].rstrip("%."))
    assert off > 40
