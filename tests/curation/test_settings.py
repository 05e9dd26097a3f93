"""What is given in other types, and selectors known by all that they hold."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

import saln
from saln.curation.partition import PartitionJob
from saln.curation.select_settings import UNKNOWN, describe
from saln.errors import InputError
from saln.selection import SELECTORS

ROWS = 120


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    features = np.random.default_rng(0).random((ROWS, 5)).astype(np.float16)
    return saln.write_store(tmp_path_factory.mktemp("s") / "store", features, np.arange(ROWS) % 3)


PLAIN = {"selector": "saln", "candidates": 40, "filter_ratio": 0.8, "seed": 3}


@pytest.mark.parametrize(
    "given",
    [
        {"selector": saln.SALN},
        {"selector": saln.SALN()},
        {"candidates": np.int16(40), "seed": np.uint8(3)},
        {"candidates": torch.tensor(40), "seed": torch.tensor(3)},
        {"candidates": 40.0, "seed": np.float32(3)},
        {"filter_ratio": np.float32(0.8)},
        {"filter_ratio": Fraction(4, 5)},
    ],
)
def test_what_means_the_same_gives_the_same(store, tmp_path, given):
    expected = saln.select(store.path, out=tmp_path / "plain.parquet", **PLAIN)
    found = saln.select(store, out=str(tmp_path / "other.parquet"), **{**PLAIN, **given})
    assert expected.kept == found.kept == 24
    assert found.path.read_bytes() == expected.path.read_bytes()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"selector": "best"}, "selector best is not allowed; give one of uniform"),
        ({"selector": 5}, "selector 5 is not allowed; give a saln.Selector"),
        ({"selector": None}, "selector None is not allowed"),
        ({"candidates": "many"}, "candidates='many' is not allowed; give at least 1"),
        ({"candidates": 40.5}, "candidates=40.5 is not allowed"),
        ({"candidates": True}, "candidates=True is not allowed"),
        ({"seed": None}, "seed=None is not allowed; give a whole number"),
        ({"filter_ratio": "0.8"}, "filter ratio '0.8' is not allowed"),
        ({"filter_ratio": None}, "filter ratio None is not allowed"),
        ({"filter_ratio": float("nan")}, "filter ratio nan is not allowed"),
        ({"filter_ratio": 1}, "filter ratio 1.0 is not allowed"),
        ({"partition_rows": 0}, "partition_rows=0 is not allowed"),
        ({"engine": "spark"}, "engine='spark' is not allowed; give local or ray"),
        ({"engine": ["ray"]}, "is not allowed; give local or ray"),
        ({"ray_workers": 0, "engine": "ray"}, "ray_workers=0 is not allowed"),
        ({"out": None}, "out=None is no path"),
        ({"out": ""}, "out='' is not allowed"),
        ({"out": "a\0b"}, "is not allowed; give the path of a file"),
        ({"out": "x" * 250}, "has a name of 250 bytes"),
        ({"source": np.zeros((4, 2))}, "candidates=.* is more than the 4 rows"),
        ({"source": None}, "source is a NoneType; give the path"),
        ({"source": "a\0b"}, "source='a.x00b' is not allowed"),
        ({"source": "x" * 5000}, "does not exist; give the folder of a feature store"),
    ],
)
def test_what_means_nothing_is_refused_in_a_line(store, tmp_path, monkeypatch, given, said):
    monkeypatch.chdir(tmp_path)
    arguments = {"source": store, "out": tmp_path / "kept.parquet", **PLAIN, **given}
    with pytest.raises(InputError, match=said) as caught:
        saln.select(arguments.pop("source"), **arguments)
    assert len(str(caught.value).splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_a_keyword_that_is_misspelled_is_named(store, tmp_path):
    with pytest.raises(TypeError, match="select takes no keyword 'label_column'; did you mean"):
        saln.select(store, out=tmp_path / "kept.parquet", label_column="breed", **PLAIN)
    assert not list(tmp_path.iterdir())


class Plain(saln.Selector):
    """Without a repr of its own; keeps those whose feature is next to what it wants."""

    requires = frozenset({"features"})
    power = 2

    def __init__(self, wanted, **more):
        self.wanted = wanted
        self.more = more

    def choose(self, candidates, k, generator):
        distance = (candidates.features[:, 0].float() - self.wanted).abs() ** self.power
        return saln.Selection(torch.argsort(distance, stable=True)[:k])


class Stronger(Plain):
    power = 3


@dataclasses.dataclass(frozen=True)
class Quiet(Plain):
    wanted: float = dataclasses.field(default=0.5, repr=False)


class Slots(saln.Selector):
    __slots__ = ("wanted",)

    def __init__(self, wanted):
        self.wanted = wanted

    def choose(self, candidates, k, generator):
        return saln.Selection(torch.arange(k))


def weighted(scale):
    layer = torch.nn.utils.skip_init(torch.nn.Linear, 2, 1)  # no global randomness
    torch.nn.init.constant_(layer.weight, scale)
    torch.nn.init.zeros_(layer.bias)
    return layer


DIFFERENT = [
    Plain(0.5), Plain(0.25), Plain(1), Plain(True), Plain("0.5"), Plain(None), Stronger(0.5),
    Quiet(0.5), Quiet(0.25), Slots(0.5), Slots(0.25), Plain([0.5]), Plain([[0.5]]),
    Plain({"a": 1}), Plain({"a": 2}), Plain({1, 2}), Plain({1, 3}), Plain(Fraction(1, 2)),
    Plain(np.arange(3)), Plain(np.arange(3.0)), Plain(np.arange(4)), Plain(torch.arange(3.0)[None]),
    Plain(torch.tensor([1.5], dtype=torch.bfloat16)), Plain(Path("a")), Plain(Path("b")),
    Plain(b"a"), Plain(b"b"), Plain(float("nan")), Plain(float("inf")), Plain(-float("inf")),
    Plain(torch.float16), Plain(torch.device("cpu")), Plain(saln.SALN()), Plain(saln.SALN),
    Plain(torch.nn.functional.relu), Plain(0.5, more=1), Plain(weighted(1.0)), Plain(weighted(2.0)),
    Plain(np.array(["a", None], dtype=object)), Plain(Plain(0.5)), Plain(Plain(0.25)),
    saln.BatchCoherence(neighbors=5), *(kind() for kind in SELECTORS.values()),
]  # fmt: skip


def test_other_hyperparameters_are_told_apart():
    described = [repr(describe(selector)) for selector in DIFFERENT]
    assert len(set(described)) == len(DIFFERENT)
    assert not [text for text in described if UNKNOWN in text]


def test_equal_selectors_are_described_alike():
    for one, other in (
        (Plain(0.5), Plain(0.5)),
        (Plain({"a": 1, "b": {2, 3}}), Plain(OrderedDict(b={3, 2}, a=1))),
        (Plain(weighted(1.0)), Plain(weighted(1.0))),
        (Plain(torch.arange(4)[::2]), Plain(torch.tensor([0, 2]))),
    ):
        assert describe(one) == describe(other)
    watched = saln.SALN()
    watched.watch(print)
    assert describe(watched) == describe(saln.SALN())


def circle():
    found = Plain(None)
    found.wanted = found
    return found


@pytest.mark.parametrize(
    "held", [lambda x: x, partial(max, 1), torch.Generator(), object(), iter([1]), circle()]
)
def test_what_cannot_be_told_apart_is_unknown(held):
    assert UNKNOWN in repr(describe(Plain(held)))


def interrupted(store, out, selector, monkeypatch):
    original = PartitionJob.choose

    def stops(self, number):
        if number == 1:
            raise KeyboardInterrupt
        return original(self, number)

    with monkeypatch.context() as patch:
        patch.setattr(PartitionJob, "choose", stops)
        with pytest.raises(KeyboardInterrupt):
            choose(store, out, selector)


def choose(store, out, selector):
    return saln.select(store, selector=selector, out=out, partition_rows=40, **{
        name: value for name, value in PLAIN.items() if name != "selector"})  # fmt: skip


@pytest.mark.parametrize("kind", [Plain, Quiet, Slots])
def test_partitions_of_other_hyperparameters_are_never_mixed(store, tmp_path, monkeypatch, kind):
    if kind is Slots:
        monkeypatch.setattr(Slots, "requires", frozenset({"features"}))
    out = tmp_path / "kept.parquet"
    interrupted(store, out, kind(0.5), monkeypatch)
    with pytest.raises(InputError, match=r"of a run whose selector was .*0\.5.*; go on with its"):
        choose(store, out, kind(0.25))
    whole = choose(store, tmp_path / "whole.parquet", kind(0.5))
    found = choose(store, out, kind(0.5))
    assert found.computed == ROWS - 40
    assert found.path.read_bytes() == whole.path.read_bytes()


def test_of_a_selector_that_nobody_knows_nothing_is_gone_on_with(store, tmp_path, monkeypatch):
    out = tmp_path / "kept.parquet"
    interrupted(store, out, Plain(0.5, how=lambda x: x), monkeypatch)
    found = choose(store, out, Plain(0.25, how=lambda x: x))
    assert found.computed == ROWS
    whole = choose(store, tmp_path / "whole.parquet", Plain(0.25))
    assert found.path.read_bytes() == whole.path.read_bytes()
