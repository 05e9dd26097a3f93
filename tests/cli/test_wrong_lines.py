"""300 random wrong command lines: one line that names value and cure, and nothing left behind."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from saln.cli import main

# A value of each kind that none of its kind is.
NO_NUMBER = ("many", "1..5", "--", "0x", "1,5", "é", "1e", " ", "", "nan2", "\udcff", "ten\nlines")
NO_WHOLE = (*NO_NUMBER, "1.5", "inf", "nan", "-inf", "1e400", "1e-3")
NO_PATH = ("", "a\0b", "x" * 300, "y/" * 3000, "~nobody-of-that-name/x")
NO_NAME = ("best", "", "saln ", "SALN", "resnet", "../digits", "\udce9", "a\nb", "1", "%s", "{}")
COUNTS = (
    "epochs", "reference-epochs", "batch-size", "evaluate-every", "limit", "threads",
)  # fmt: skip
SHARES = ("filter-ratio", "label-noise", "filter-ratio-end")
SIZES = ("image-size", "feature-size")
PATHS = ("data-root", "weights", "backbone-weights", "cache-dir", "out", "config")
NAMES = ("preset", "dataset", "methods", "learner", "backbone", "schedule", "device")
# Of `saln compare`: flag -> values that are wrong whatever else is given.
COMPARE = {
    **dict.fromkeys(COUNTS, (*NO_WHOLE, "0", "-1", "-1e9")),
    **dict.fromkeys(SHARES, (*NO_NUMBER, "1", "-0.1", "1.0", "nan", "inf", "80", "1e400")),
    **dict.fromkeys(SIZES, (*NO_WHOLE, "0", "7", "2049", "-8", "1e18")),
    **dict.fromkeys(PATHS, NO_PATH),
    **dict.fromkeys(NAMES, NO_NAME),
    "epochs": (*NO_WHOLE, "0", "-1", "1e30", "9" * 50, "9" * 5000),
    "workers": (*NO_WHOLE, "-1", "1000000"),
    "learning-rate": (*NO_NUMBER, "0", "-1", "nan", "inf"),
    "full-first-epochs": (*NO_WHOLE, "-1", "1000"),
    "seeds": ("a", "", ",", "0,0", "0;1", "1.5", "0,,x", "0-3", "9" * 400, "1e400"),
    "split-seed": (*NO_WHOLE, "9" * 40),
    "dataset": (*NO_NAME, "folder:", "hf:", "folder:nowhere", "hf:./nowhere", "folder:" + "z" * 300,
                "folder:a\0b", "cifar10", "folder:."),
    "methods": ("", ",", "best", "saln,best", "saln,saln", "saln;jest", "uniform,,Saln"),
    "weights": (*NO_PATH, "none.pt", ".", "other.json"),
    "config": (*NO_PATH, "none.toml", ".", "other.json", "bad.toml", "kind.toml", "bytes.toml"),
    "out": (*NO_PATH, "other.json", "other.json/x", "full"),
}  # fmt: skip
FEATURES = {
    name: COMPARE[name]
    for name in (
        "dataset", "data-root", "backbone", "feature-size", "limit", "split-seed", "device",
        "workers", "cache-dir",
    )
} | {
    "batch-size": (*NO_WHOLE, "0", "-4"),
    "backbone-weights": ("none.pt",),
    "engine": NO_NAME,
    "ray-workers": ("3", "x"),
}  # fmt: skip
SELECT = {
    "selector": (*NO_NAME, "jest", "rho-loss", "infobatch"),
    "filter-ratio": COMPARE["filter-ratio"],
    "candidates": (*NO_WHOLE, "0", "-1", "100000"),
    "seed": NO_WHOLE,
    "engine": NO_NAME,
    "distrusted": (*NO_WHOLE, "-1"),
    "out": ("", "a\0b", "x" * 300, "x" * 250, "other.json", "full"),
    "ray-address": ("auto",),
}
COMMANDS = {"compare": COMPARE, "features": FEATURES, "select": SELECT}
# What keeps a line that is right up to its last fault from working for long.
SMALL = {
    "compare": ("--limit", "120", "--epochs", "1", "--seeds", "0", "--methods", "uniform"),
    "features": ("--limit", "60", "--backbone", "pixels"),
    "select": ("store", "--selector", "uniform", "--out", "kept.parquet"),
}
NO_FLAG = (
    "--epoch",
    "--no-such",
    "-x",
    "--out-of",
    "--Epochs",
    "---",
    "-epochs",
    "--no-epochs",
    "--é",
)


def wrong_line(random):
    """A command line with one fault, and what of it the message has to name."""

    def one(values):
        return values[int(random.integers(len(values)))]

    command = one(list(COMMANDS))
    flags = COMMANDS[command]
    line = list(SMALL[command])
    kind = int(random.integers(10))
    if kind == 0:  # an unknown flag
        flag = one(NO_FLAG)
        more = [flag, one(("3", "", "x"))] if random.integers(2) else [f"{flag}=3"]
        return [command, *more, *line], flag
    if kind == 1:  # no value
        flag = f"--{one(list(flags))}"
        return [command, *line, flag], flag
    if kind == 2:  # a word too many
        word = one(("please", "8", "-", "a b", "é", "x" * 500))
        return [command, *line, word], word
    if kind == 3:  # no command, or one too little
        word = one(("train", "Compare", "", "--version=1", "-v", "--epochs", "\udcff", "a\nb"))
        return [word, *line], word
    if kind == 4:  # report and list
        return one(
            [
                (["report", *one([(), ("--out", "x.html")])], "report"),
                (["report", "nowhere"], "nowhere"),
                (["report", "."], "."),
                (["report", "other.json"], "other.json"),
                (["report", "full", "full"], "full"),
                (["report", "a\0b"], "a\\x00b"),
                (["report", "x" * 300], "x" * 50),
                (["report", "--no", "full"], "--no"),
                (["list", "all"], "all"),
                (["list", "--json"], "--json"),
                (["compare", "--resume"], "--resume"),
                (["compare", "--resume", "--out", "full"], "full"),
                (["compare", "--resume", "--out", "nowhere"], "nowhere"),
                (["select"], "--selector"),
                (["select", "nowhere", "--selector", "saln", "--out", "o"], "nowhere"),
                (["select", "full", "--selector", "saln", "--out", "o"], "full"),
            ]
        )
    flag = one(list(flags))
    value = one(flags[flag])
    given = [f"--{flag}={value}"] if random.integers(2) or value.startswith("-") else [
        f"--{flag}", value
    ]  # fmt: skip
    return [command, *line, *given], (flag.replace("-", ""), value)


def visible(text):
    """As a message shows it."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def names(said, named):
    """Whether a message has one of these; a flag may be written as the setting is."""
    if isinstance(named, tuple):
        flag, value = named
        plain = said.lower().replace("-", "").replace("_", "").replace(" ", "")
        return flag in plain or (value.strip() != "" and names(said, value))
    return visible(named)[:50] in said


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in Path(folder).rglob("*")
        if path.name != "verified.json"  # a store's note that it was looked at
    }


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a store, a file, a folder that is in use and some settings."""
    from saln.features.from_arrays import write_store

    features = np.random.Generator(np.random.PCG64(0)).normal(size=(400, 4))
    store = write_store(tmp_path / "store", features, np.arange(400) % 4)
    assert store.path
    (tmp_path / "other.json").write_text("[]")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("mine")
    (tmp_path / "bad.toml").write_text("epochs = = 3\n")
    (tmp_path / "kind.toml").write_text('epochs = "three"\n')
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def test_one_line_that_names_value_and_cure(place, monkeypatch, capsys):
    random = np.random.Generator(np.random.PCG64(15))
    before = contents(place)
    kinds = set()
    for number in range(300):
        line, named = wrong_line(random)
        monkeypatch.setattr(sys, "argv", ["saln", *line])
        status = main(line)
        said = capsys.readouterr()
        where = f"line {number}: saln {json.dumps(line)[:300]}\n{said.err}"
        assert status in (1, 2), where
        assert said.out == "", where
        assert said.err.count("\n") == 1, where
        assert said.err.startswith("saln: error: "), where
        assert "--debug" not in said.err, where  # an exception that nobody has thought of
        assert names(said.err, named), where
        cure = ("; ", "give", "choose", "did you mean", "lists what")
        assert any(word in said.err for word in cure), where
        assert contents(place) == before, where
        kinds.add((line[0], named))
    assert len(kinds) > 60
