"""What people give for a setting: taken where its meaning is plain, else one line."""

from __future__ import annotations

import dataclasses
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch

import saln
from saln.converter import convert, from_text, unusable
from saln.errors import InputError
from saln.experiments.config import Config, load_toml
from saln.messages import shown

WHOLE = (
    8, 8.0, np.int8(8), np.uint64(8), np.float32(8), np.float64(8.0), np.array(8), torch.tensor(8),
    torch.tensor(8.0), Fraction(8), Decimal(8),
)  # fmt: skip
NO_WHOLE = (
    8.5, "8", True, False, np.bool_(True), None, float("nan"), float("inf"), [8], np.array([8]),
    (8,), b"8", 8 + 0j, torch.tensor([8]), {"a": 8}, object,
)  # fmt: skip


@pytest.mark.parametrize("value", WHOLE, ids=repr)
def test_whole_numbers(value):
    found = convert(value, int)
    assert (found, type(found)) == (8, int)
    assert Config(batch_size=value).batch_size == 8
    assert convert(value, int | None) == 8


@pytest.mark.parametrize("value", NO_WHOLE, ids=repr)
def test_what_is_no_whole_number_is_refused(value):
    with pytest.raises(ValueError, match=r"^a whole number$"):
        convert(value, int)
    with pytest.raises(InputError, match=r"^batch_size=.* is not allowed; give a whole number$"):
        Config(batch_size=value)


def test_shares_mean_what_was_written():
    """0.8 keeps every fifth; the nearest number of 32 bits is a little more."""
    for value in (0.8, np.float32(0.8), np.float16(0.8), torch.tensor(0.8), Fraction(4, 5)):
        assert convert(value, float) == 0.8
    for value in ("0.8", True, None, 10**400, [0.8], 1j):
        with pytest.raises(ValueError, match="a number"):
            convert(value, float)


def test_several_values():
    for value in ([0, 1], (0.0, 1.0), np.arange(2), torch.arange(2), range(2), "0,1", " 0 , 1 "):
        assert convert(value, tuple[int, ...]) == (0, 1)
        assert Config(seeds=value).seeds == (0, 1)
    assert convert(3, tuple[int, ...]) == convert(np.int64(3), tuple[int, ...]) == (3,)
    assert convert("saln", tuple[str, ...]) == convert(["saln"], tuple[str, ...]) == ("saln",)
    for value in ({0, 1}, {0: 1}, [0.5], ["a"], "0;1", b"01", None, [[0]], [True]):
        with pytest.raises(ValueError, match="whole numbers, with commas between"):
            convert(value, tuple[int, ...])


def test_selectors_may_be_given_by_their_classes_or_as_they_are():
    assert Config(methods=(saln.SALN, "uniform")).methods == ("saln", "uniform")
    assert Config(methods=saln.JEST).methods == ("jest",)
    assert Config(methods=(saln.SALN(), saln.JEST(4))).methods == ("saln", "jest(chunks=4)")
    for methods in ((dict,), (3,), {"saln"}, 3):
        with pytest.raises(InputError, match=r"^methods=[^;]* is not allowed; give names such as"):
            Config(methods=methods)


def test_paths_switches_and_choices():
    assert convert("a/b", Path) == Path("a/b")
    assert convert(Path("a"), Path | None) == Path("a")
    assert convert("~", Path) == Path.home()
    assert convert(None, Path | None) is None
    for value in ("", "a\0b", 3, b"a", "~nobody-of-that-name"):
        with pytest.raises(ValueError, match="a path"):
            convert(value, Path)
    assert convert(np.bool_(False), bool) is False
    for value in (1, 0, "yes", None):
        with pytest.raises(ValueError, match="true or false"):
            convert(value, bool)
    assert convert("cpu", Literal["cpu", "cuda"]) == "cpu"
    with pytest.raises(ValueError, match="one of cpu, cuda"):
        convert("tpu", Literal["cpu", "cuda"])


def test_what_stands_after_a_flag():
    for text in ("8", "8.0", "8e0", " 8", "+8"):
        assert from_text(text, int) == 8
    assert from_text("None", int | None) is None
    assert from_text("1e-3", float) == 0.001
    assert from_text("0,1", tuple[int, ...]) == (0, 1)
    for text in ("", "x", "8.5", "nan", "9" * 5000, "None"):
        with pytest.raises(ValueError, match="a whole number"):
            from_text(text, int)


def test_a_file_takes_the_same(tmp_path):
    file = tmp_path / "run.toml"
    file.write_text(
        'batch_size = 8.0\nseeds = 3\nmethods = "uniform, saln"\nlimit = 200.0\nfilter-ratio = 0\n'
    )
    found = load_toml(file)
    assert (found.batch_size, found.seeds, found.limit) == (8, (3,), 200)
    assert found.methods == ("uniform", "saln")
    assert found.filter_ratio == 0.0
    for text in ("batch_size = 8.5", "seeds = [0.5]", 'methods = ["saln", 3]', "out = 3"):
        file.write_text(text)
        with pytest.raises(InputError, match=r"run\.toml: .* is not allowed; give "):
            load_toml(file)


def test_a_changed_setting_is_checked_like_a_first():
    assert dataclasses.replace(Config(), epochs=3.0).epochs == 3
    with pytest.raises(InputError, match=r"^epochs=3\.5 is not allowed; give a whole number"):
        dataclasses.replace(Config(), epochs=3.5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 10**12}, "epochs=1000000000000 is not allowed; give .* at most 1,000,000"),
        ({"workers": 10**6}, "workers=1000000 is not allowed; give .* at most 1,000"),
        ({"seeds": (10**30,)}, "seeds=1000.* is not allowed; give .* 64 bits"),
        ({"out": "x" * 300}, "out=x.* is not allowed; give a path that can be looked at"),
        ({"dataset": "folder:" + "x" * 300}, "dataset=x.* is not allowed; give a path"),
        ({"out": "r\udce9sult", "tensorboard": True}, "tensorboard cannot write into out="),
        ({"weights": "x/" * 3000}, "weights=x/x.* is not allowed; give a path"),
    ],
)  # fmt: skip
def test_what_would_never_end_or_cannot_be_is_refused(change, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(Config(), **change).check()


def test_values_in_messages():
    assert shown("mnist") == "mnist"
    assert shown("") == "''"
    assert shown("a\nb") == "'a\\nb'"
    assert shown("\udcff") == "'\\udcff'"
    assert shown("x" * 500) == "x" * 120 + "..."
    assert shown(Path("x" * 500)) == "x" * 500
    assert unusable(Path("nowhere")) is None
    assert unusable(Path("x" * 300)) == "File name too long"
