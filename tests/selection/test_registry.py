"""Selectors by name: ours, those of installed packages, and classes by their module."""

from __future__ import annotations

import sys
import types

import pytest
from helpers.plugin import install

import saln
from saln.errors import InputError
from saln.selection import JEST, SELECTORS, TopLoss
from saln.selection.registry import (
    find_selector,
    installed_selectors,
    listed_selectors,
    name_of,
    read_selector,
    split_selector,
)


@pytest.fixture
def place(tmp_path, monkeypatch):
    place = install(tmp_path)
    monkeypatch.syspath_prepend(str(place))
    yield place
    sys.modules.pop("long_selectors", None)


@pytest.mark.parametrize(
    ("text", "name", "values"),
    [
        ("jest", "jest", {}),
        ("jest:chunks=4", "jest", {"chunks": "4"}),
        ("jest:chunks=4:variant=hard-learner", "jest", {"chunks": "4", "variant": "hard-learner"}),
        ("jest(chunks=4, variant=x)", "jest", {"chunks": "4", "variant": "x"}),
        ("jest()", "jest", {}),
        ("a.b:C", "a.b:C", {}),
        ("a.b:C.D:x=1", "a.b:C.D", {"x": "1"}),
        ("a:C(x=[1, 2], y='p,q)=', z=(3))", "a:C", {"x": "[1, 2]", "y": "'p,q)='", "z": "(3)"}),
        ("a:path=x/y.z", "a", {"path": "x/y.z"}),
    ],
)
def test_a_selector_is_read_from_text(text, name, values):
    assert split_selector(text) == (name, values)


@pytest.mark.parametrize(
    "text",
    ["", ":", "x=1", "jest:", "jest:4", "jest(4)", "jest(chunks=)", "jest(chunks=4",
     "jest(chunks=4)x", "jest:chunks=4:chunks=4", "jest chunks=4", "-x", "../jest"],
)  # fmt: skip
def test_text_that_says_none_is_refused(text):
    with pytest.raises(InputError, match="is no selector; write a NAME, NAME:KEY=VALUE"):
        split_selector(text)


def test_a_name_with_hyperparameters_makes_the_selector():
    assert read_selector("jest(chunks=4, variant=hard-learner)") == JEST(4, "hard-learner")
    assert read_selector("top-loss:beta=2") == TopLoss(beta=2.0)
    assert read_selector("saln.selection.top_loss:TopLoss:beta=none") == TopLoss()


def test_the_samplers_take_the_same_text():
    batches = saln.SelectedBatches(
        [[1.0, 2.0]] * 40, labels=[0, 1] * 20, selector="coherence-batch:neighbors=3",
        batch_size=2, filter_ratio=0.8, seed=0,
    )  # fmt: skip
    assert batches.selector == saln.BatchCoherence(neighbors=3)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("jset", r"jset is not allowed; give one of standard, uniform.*\(did you mean jest\?\)"),
        ("zzzzz", r"give one of standard, uniform, .*, or module:Class$"),
        ("no_such:Thing", "no_such:Thing cannot be loaded .ModuleNotFoundError"),
        ("saln:Nothing", "saln:Nothing cannot be loaded .AttributeError"),
        ("json:dumps", "json:dumps is no class of saln.Selector"),
        ("saln:Selector", "saln:Selector is no class of saln.Selector with its method choose"),
    ],
)
def test_what_is_not_there_is_refused_with_the_cure(name, said):
    with pytest.raises(InputError, match=said):
        find_selector(name, also=["standard"])


def test_a_module_of_the_folder_that_one_is_in_is_found(tmp_path, monkeypatch):
    (tmp_path / "nearby_rules.py").write_text(
        "from saln import Uniform\nclass Mine(Uniform): ...\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    assert find_selector("nearby_rules:Mine").__name__ == "Mine"
    assert find_selector("nearby_rules.Mine").__name__ == "Mine"
    del sys.modules["nearby_rules"]


def test_an_installed_package_adds_its_selectors(place):
    assert "long_selectors" not in sys.modules
    found = installed_selectors()
    assert "long_selectors" not in sys.modules  # loaded when it is asked for
    assert found["longest"] == ("longest", "long-selectors", "long_selectors:Longest")
    assert found.keys() >= {"longest", "broken", "gone", "number"}
    assert "jest" not in found  # ours stays ours
    longest = read_selector("longest:power=3")
    assert (type(longest).__name__, longest.power) == ("Longest", 3.0)
    assert name_of(type(longest)) == "longest"
    assert find_selector("jest") is JEST


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("broken", r"selector broken of the package long-selectors cannot be loaded .*Missing"),
        ("gone", r"selector gone of the package long-selectors cannot be loaded .*no_such_module"),
        ("number", "number of the package long-selectors is no class of saln.Selector"),
    ],
)
def test_a_broken_one_says_so_in_a_line_and_harms_no_other(place, name, said):
    with pytest.raises(InputError, match=said + ".*; update or uninstall long-selectors") as caught:
        find_selector(name)
    assert "\n" not in str(caught.value)
    listed = {each: (text, package) for each, text, package in listed_selectors()}
    assert list(listed)[: len(SELECTORS)] == list(SELECTORS)
    assert listed[name] == (str(caught.value), "")
    assert listed["longest"][0].startswith("the longest features; costs cached features\nrequires")


def test_a_package_that_stops_the_interpreter_is_only_refused(place, monkeypatch):
    (place / "long_selectors.py").write_text("raise SystemExit(3)\n")
    with pytest.raises(InputError, match=r"cannot be loaded .*SystemExit: 3"):
        find_selector("longest")


def test_a_class_that_nobody_registered_is_named_by_its_module():
    class Inner(TopLoss):
        pass

    assert name_of(JEST) == "jest"
    assert name_of(Inner).startswith(f"{__name__}:test_a_class_")
    module = types.ModuleType("made_here")
    module.Mine = type("Mine", (TopLoss,), {"__module__": "made_here"})
    assert name_of(module.Mine) == "made_here:Mine"
