"""What is read of a selector's hyperparameters, and how text sets them."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
import pytest

from saln.errors import InputError
from saln.selection import JEST, SELECTORS, InfoBatch, Selection, Selector, TopLoss
from saln.selection.hyperparameters import (
    REQUIRED,
    Bounds,
    Hyperparameter,
    hyperparameters,
    make_selector,
    read_values,
    text_of,
)


class Written(Selector):
    """Made as people write classes: half of the types missing."""

    def __init__(self, alpha, beta=0.5, *, name="x", flag=False, layers: Any = (1, 2)):
        self.alpha, self.beta, self.name = alpha, beta, name
        self.flag, self.layers = flag, layers

    def choose(self, candidates, k, generator):
        return Selection(candidates.indices[:k] * 0)


def by_name(kind):
    return {each.name: each for each in hyperparameters(kind)}


def test_a_dataclass_says_types_defaults_and_bounds():
    found = by_name(JEST)
    assert list(found) == ["chunks", "variant", "reference"]
    assert found["chunks"] == Hyperparameter("chunks", int, 16, Bounds(low=1))
    assert str(found["chunks"]) == "chunks (a whole number, at least 1; default 16)"
    assert found["variant"].allowed() == "one of learnability, easy-reference, hard-learner"


def test_an_init_says_them_too():
    found = by_name(InfoBatch)
    assert found["epochs"] == Hyperparameter("epochs", int | None, None, Bounds(low=1))
    assert str(found["epochs"]) == "epochs (a whole number, at least 1, or none; default none)"
    assert found["full_from"].bounds == Bounds(above=0, high=1)


def test_types_that_nobody_wrote_are_those_of_the_defaults():
    found = by_name(Written)
    assert [found[name].kind for name in ("beta", "name", "flag")] == [float, str, bool]
    assert (found["alpha"].kind, found["alpha"].default) == (Any, REQUIRED)


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (int, "4", 4), (int, "4.0", 4), (float, "1e-3", 0.001), (float | None, "none", None),
        (bool, "true", True), (bool, "False", False), (str, "none", "none"), (str, "4", "4"),
        (str, "'a b'", "a b"), (Any, "[1, 2]", [1, 2]), (Any, "word", "word"), (Any, "2", 2),
    ],
)  # fmt: skip
def test_text_becomes_the_value_that_it_names(kind, text, value):
    found = Hyperparameter("x", kind).read(text)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize("value", [4, -1.5, 1e-7, True, None, "word", "two words", "none", "4", ""])
def test_a_value_as_text_is_read_back(value):
    assert Hyperparameter("x").read(text_of(value)) == value


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        ({"temperature": "2"}, "jest has no hyperparameter temperature; it has chunks (a whole"),
        ({"chunks": "few"}, "chunks=few of jest is not allowed; give a whole number, at least 1"),
        ({"chunks": "0"}, "chunks=0 of jest is not allowed; give a whole number, at least 1"),
        ({"variant": "hard"}, "variant=hard of jest is not allowed; give one of learnability"),
    ],
)
def test_what_is_not_allowed_is_refused_with_the_cure(texts, said):
    with pytest.raises(InputError) as caught:
        read_values(JEST, "jest", texts)
    assert said in str(caught.value)


def test_what_is_missing_or_cannot_be_made_is_refused():
    with pytest.raises(InputError, match=r"mine needs alpha; it has alpha \(any value; required\)"):
        make_selector(Written, "mine", {})
    with pytest.raises(InputError, match=r"mine\(alpha=1, gamma=2\) cannot be made"):
        make_selector(Written, "mine", {"alpha": 1, "gamma": 2})


OUTSIDE = {"low": -1e-3, "above": 0.0, "high": 1e-3, "below": 0.0}


def bounded():
    for name, kind in SELECTORS.items():
        for each in hyperparameters(kind):
            for side, far in OUTSIDE.items():
                bound = each.bounds and getattr(each.bounds, side)
                if bound is not None:
                    whole = each.kind in (int, int | None)
                    yield name, each, bound + (round(far * 1000) if whole else far)


@pytest.mark.parametrize(("name", "each", "value"), list(bounded()))
def test_the_bounds_that_are_written_are_those_that_hold(name, each, value):
    """A selector refuses by itself what its annotations rule out, and takes their edges."""
    assert not each.bounds.holds(value)
    with pytest.raises(InputError):
        SELECTORS[name](**{each.name: value})
    for edge in (each.bounds.low, each.bounds.high):
        if edge is not None:
            SELECTORS[name](**{each.name: int(edge) if each.kind is int else edge})


def test_bounds_are_written_for_every_number_of_ours():
    for kind in SELECTORS.values():
        for each in hyperparameters(kind):
            if each.kind in (int, float, int | None, float | None):
                assert each.bounds is not None, f"{kind.__name__}.{each.name}"


def test_a_dataclass_of_elsewhere_may_name_types_that_only_checkers_see():
    @dataclass(frozen=True)
    class Odd(Written):
        size: Unseen = 3  # noqa: F821
        share: Annotated[float, Bounds(low=0)] = 0.5
        summary: ClassVar[str] = "odd"

    assert by_name(Odd)["size"].kind is int
    assert dataclasses.is_dataclass(Odd)


def test_nan_is_in_no_bounds():
    assert not Bounds(low=0).holds(float("nan"))
    assert TopLoss(beta=2).beta == 2.0


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (
            lambda: JEST(chunks="few"),
            "chunks='few' is not allowed; give a whole number, at least 1",
        ),
        (
            lambda: TopLoss(beta=math.inf),
            "beta=inf is not allowed; give a number, above 0, or none",
        ),
        (
            lambda: InfoBatch(full_from=1.5),
            "full_from=1.5 is not allowed; give a number, above 0, ",
        ),
    ],
)
def test_a_selector_refuses_what_its_annotations_do_not_allow(make, said):
    with pytest.raises(InputError) as caught:
        make()
    assert str(caught.value).startswith(said)


def test_a_selector_keeps_values_of_the_annotated_types():
    selector = InfoBatch(np.float32(0.25), epochs=np.int64(4), full_from=1)
    assert repr(selector) == "InfoBatch(prune_ratio=0.25, epochs=4, full_from=1.0)"
