"""The study whose frozen layers run once: the results of the command, the seconds of each arm."""

from __future__ import annotations

import dataclasses
import functools
import json
import time

import numpy as np
import paper_setting
import pytest
from helpers.comparisons import Quiet, rows_of
from helpers.digits import digits_config
from paper_setting import StoredComparison, make

from saln.experiments.run import compare
from saln.training.cost_ledger import Ledger

ARMS = paper_setting.METHODS


@pytest.fixture
def config(tmp_path):
    return digits_config(
        methods=ARMS, limit=150, image_size=8, epochs=2, seeds=(0, 1), batch_size=8,
        reference_epochs=2, head_only=True, label_noise=0.4, cache_dir=tmp_path / "cache",
        out=tmp_path / "whole",
    )  # fmt: skip


def test_it_gives_the_rows_of_the_command(config, tmp_path):
    compare(config, Quiet())
    stored = dataclasses.replace(config, out=tmp_path / "stored")
    parts = functools.partial(StoredComparison, cache=tmp_path / "outputs")
    outcome = compare(stored, Quiet(), parts)
    assert outcome.failures == ()
    whole, fast = rows_of(config.out), rows_of(stored.out)
    assert len(whole) == len(fast) == 2 * 2 * len(ARMS)
    for one, other in zip(whole, fast, strict=True):
        for name, value in one.items():
            if name.endswith("_loss"):
                # The frozen layers see other images together: the last digit may differ.
                assert other[name] == pytest.approx(value, rel=1e-4), (one["arm"], name)
            elif name != "seconds":
                assert other[name] == value, (one["arm"], name)


def test_arms_are_charged_for_what_they_read(config, tmp_path, monkeypatch):
    jumps = [0]

    def made(view, body, path):
        if not path.exists():
            jumps[0] += 100  # what it takes now counts for nobody
        found = make(view, body, path)
        count = len(found.outputs)
        return found._replace(load_seconds=np.full(count, 10.0), body_seconds=np.full(count, 3.0))

    def clock():
        return time.perf_counter() + jumps[0]

    monkeypatch.setattr(paper_setting, "make", made)
    monkeypatch.setattr(Ledger.__init__, "__defaults__", (None, clock))
    config = dataclasses.replace(config, seeds=(0,))
    compare(config, Quiet(), functools.partial(StoredComparison, cache=tmp_path / "outputs"))
    for row in rows_of(config.out):
        steps = row["steps"] // row["epoch"]
        kept, scored = 8 * steps, 40 * steps if row["arm"] == "jest" else 0
        seconds = row["seconds"]
        assert seconds["load"] == pytest.approx(10 * (scored or kept), abs=5)
        assert seconds["score"] == pytest.approx(3 * scored, abs=3)
        assert seconds["train"] == pytest.approx(0 if scored else 3 * kept, abs=3)
    (jest,) = (
        cost for cost in json.loads((config.out / "progress.json").read_text())["costs"]
        if cost["arm"] == "jest"
    )  # fmt: skip
    trained, asked = jest["reference_examples_backward"], jest["reference_examples_forward"]
    assert trained < asked
    assert jest["reference"] == pytest.approx(13 * asked, abs=3)


def test_further_seeds_join_those_of_before(tmp_path, monkeypatch, capsys, config):
    """Every filter ratio, with the learner of the digits."""

    def small(args, ratio):
        out = args.out / f"{ratio:g}"
        return dataclasses.replace(
            config, methods=("uniform",), limit=150, epochs=1, batch_size=4,
            filter_ratio=ratio, seeds=args.seeds, out=out, resume=(out / "config.json").exists(),
        )  # fmt: skip

    monkeypatch.setattr(paper_setting, "settings", small)
    monkeypatch.setattr(paper_setting, "RATIOS", [0.8, 0.5])
    flags = ["--dataset", "pets", "--data-root", ".", "--cache", str(tmp_path / "outputs"),
             "--out", str(tmp_path)]  # fmt: skip
    assert paper_setting.main([*flags, "--seeds", "0,1"]) == 0
    before = {name: rows_of(tmp_path / name) for name in ("0.8", "0.5")}
    assert paper_setting.main([*flags, "--seeds", "0,1,2"]) == 0
    for name, rows in before.items():
        assert rows_of(tmp_path / name)[: len(rows)] == rows
        assert [row["seed"] for row in rows_of(tmp_path / name)] == [0, 1, 2]
    assert paper_setting.main([*flags, "--seeds", "0"]) == 0
    capsys.readouterr()
    assert paper_setting.main([*flags, "--seeds", "5"]) == 2
    assert "seeds was 0,1,2" in capsys.readouterr().err
    assert {name: len(rows_of(tmp_path / name)) for name in before} == dict.fromkeys(before, 3)
