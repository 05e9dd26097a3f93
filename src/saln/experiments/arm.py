"""An arm: one way of training in a comparison, described once.

What differs is its selector, and changes of training: ``coherence+gce(q=0.7)+ema``. Without any an
arm trains with the cross-entropy of the labels as they are. ``standard`` keeps everything;
`uniform` is the control that every selector must beat.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

import numpy as np
from torch import Tensor

from saln.converter import split_commas
from saln.data.arguments import as_array
from saln.errors import InputError
from saln.messages import not_allowed, shown
from saln.selection import Selector, Uniform
from saln.selection.coherence import Judge, judge_of
from saln.selection.contract import TAUGHT, kept_values
from saln.selection.hyperparameters import (
    DIGEST,
    REQUIRED,
    hyperparameters,
    is_text,
    make_selector,
    read_values,
    text_of,
)
from saln.selection.registry import (
    find_selector,
    is_selector,
    listed_selectors,
    name_of,
    split_selector,
)
from saln.training.changes import CHANGES, Change, ordered, read_change

# Longer ones are cut: with "-seed0.pt" behind it a label is the name of a file.
LONGEST_LABEL = 120
# A run folder has other files of these names.
_FILES = ("examples", "reference")


def _label_of(value: Any) -> str:
    """A value in a label: as text, or a digest where that would be no part of a file's name."""
    if isinstance(value, Tensor | np.ndarray):  # whose own text leaves most numbers out
        # Bytes, type and shape: what two arrays must share to be one hyperparameter.
        array = np.ascontiguousarray(as_array(value, "value"))
        content = f"{array.dtype} {array.shape} ".encode() + array.tobytes()
    else:
        text = text_of(value)
        if re.fullmatch(r"[\w.+-]{1,40}", text):
            return text
        content = text.encode("utf-8", "surrogatepass")
    return DIGEST + hashlib.blake2b(content, digest_size=4).hexdigest()


def _safe(label: str) -> str:
    label = re.sub(r"[^\w.+=(),~-]", ".", label)
    # The empty brackets change nothing where the label is read again.
    if label in _FILES:
        return f"{label}()"
    if len(label) <= LONGEST_LABEL:
        return label
    digest = hashlib.blake2b(label.encode("utf-8", "surrogatepass"), digest_size=4).hexdigest()
    return f"{label[: LONGEST_LABEL - 9]}-{digest}"


@dataclass(frozen=True)
class Arm:
    """One way of training."""

    name: str  # Of its selector: as registered, else ``module:Class``
    kind: type[Selector]  # The selector's class
    # The hyperparameters that differ from their defaults
    values: Mapping[str, Any] = field(default_factory=dict)
    keeps_all: bool = False  # Whether every candidate gets a gradient, so that nothing is chosen
    is_baseline: bool = False  # Whether every other arm is compared with it
    changes: tuple[Change, ...] = ()  # Of training, in the order of their registry
    # What the run's settings change of every arm that names nothing of the kind: no part of it
    usual: tuple[Change, ...] = field(default=(), compare=False)
    balance: bool = field(default=False, compare=False)  # Whether they part the believed classes

    def __str__(self) -> str:
        return self.label

    @property
    def label(self) -> str:
        """What it is called in rows, files and the report, in every run; safe in a file's name."""
        return _safe(_written(self, _label_of, ","))

    @property
    def text(self) -> str | None:
        """What makes it again, as in ``--methods``; None where no text does."""
        if not all(map(is_text, self.values.values())):
            return None
        text = _written(self, text_of, ", ")
        try:
            # Tried, not guessed: not every class is found again by its name.
            return text if read_arm(text) == self else None
        except InputError:  # such as a class inside of a function
            return None

    @property
    def summary(self) -> str:
        """What gets a gradient and what that costs, in a line for ``saln list``."""
        return "every example, every epoch; no selection" if self.keeps_all else self.kind.summary

    @property
    def all_changes(self) -> tuple[Change, ...]:
        """Its own and the usual ones."""
        return ordered((*self.changes, *self.usual), self.label)

    @functools.cached_property
    def requires(self) -> frozenset[str]:
        """The fields of the candidates that its selector reads, with these hyperparameters."""
        return frozenset() if self.keeps_all else self.selector(epochs=1).requires

    @functools.cached_property
    def judge(self) -> Judge | None:
        """Who says how likely its labels are right; None where it does not ask."""
        return None if self.keeps_all else judge_of(self.selector(epochs=1))

    @property
    def leaves_judging(self) -> bool:
        """Whether a default decides who judges its labels, or how the judged are drawn."""
        said = {"judge", "power"} <= set(self.values)
        return self.judge == "labels" and not (said or self.requires & TAUGHT)

    @property
    def needs_reference(self) -> bool:
        """Whether its selector asks a reference model."""
        return any(name.startswith("reference_") for name in self.requires)

    @property
    def needs_teacher(self) -> bool:
        """Whether it asks what the features say of each example."""
        asks = any(change.says_targets for change in self.all_changes)
        return asks or bool(self.requires & TAUGHT)

    @property
    def needs_features(self) -> bool:
        """Whether anything that it requires is made of the backbone's features."""
        made_of_them = {"features", "label_confidence", "neighbors"}
        return self.needs_teacher or bool(self.requires & made_of_them)

    def selector(self, *, epochs: int) -> Selector:
        """A new selector for a run of ``epochs``: arms and seeds share none."""
        made = _planned(self, epochs)
        return made.by_class() if self.balance else made


def _written(arm: Arm, text: Callable[[Any], str], comma: str) -> str:
    parts = []
    named: tuple[Arm | Change, ...] = (arm, *arm.changes)
    for each in named:
        said = comma.join(f"{name}={text(value)}" for name, value in each.values.items())
        parts.append(f"{each.name}({said})" if said else each.name)
    return "+".join(parts)


def _planned(arm: Arm, epochs: int) -> Selector:
    # Such a class cannot be made without values, and so has no plan of its own to ask for.
    if any(each.default is REQUIRED for each in hyperparameters(arm.kind)):
        return make_selector(arm.kind, arm.name, arm.values)
    planned = arm.kind.for_run(epochs=epochs)
    if not arm.values:
        return planned
    # What the selector plans by the length of the run holds where nothing else is said.
    usual = kept_values(arm.kind())
    plan = {
        name: value
        for name, value in kept_values(planned).items()
        if _label_of(value) != _label_of(usual[name])
    }
    return make_selector(arm.kind, arm.name, {**plan, **arm.values})


STANDARD = Arm("standard", Uniform, keeps_all=True, is_baseline=True)
UNIFORM = Arm("uniform", Uniform, is_baseline=True)
# In the order in which the arms are compared with them.
BASELINES = (UNIFORM.label, STANDARD.label)
# What may be given for one arm.
Method = str | Arm | Selector | type[Selector]


def keeps_all(label: str) -> bool:
    """Whether the arm of a label chooses nothing; also of labels that are not known here."""
    return label == STANDARD.label or label.startswith(f"{STANDARD.label}+")


def listed_arms() -> Iterator[tuple[str, str]]:
    """Name -> what ``saln list`` says of an arm; its package where it is not ours."""
    yield STANDARD.name, STANDARD.summary
    for name, text, package in listed_selectors():
        yield name, f"{text}\nof the package {package}" if package else text


def _refuse(methods: object) -> NoReturn:
    allowed = "names such as jest:chunks=4, with commas between"
    raise not_allowed("methods", methods, f"{allowed}; in Python selectors or their classes, too")


def as_methods(methods: Any) -> tuple[str | Arm, ...]:
    """The arms that were given, one or several: text where text can name them; else InputError."""
    if isinstance(methods, str):
        return tuple(part for part in split_commas(methods) if part)
    # A class and a selector are no collections of methods, though Python could iterate over some.
    one = isinstance(methods, Arm | Selector | type)
    # The order of a set would be nobody's: arms are trained in the order that they are given in.
    ordered = isinstance(methods, Iterable) and not isinstance(methods, Mapping | Set | bytes)
    if not (one or ordered):
        _refuse(methods)
    found: list[str | Arm] = []
    for method in [methods] if one else methods:
        if isinstance(method, str):
            found.append(str(method))
            continue
        arm = read_arm(method)
        found.append(arm.text or arm)
    return tuple(found)


def read_arm(method: Method, *changes: Change) -> Arm:
    """The arm of a text, a selector or a selector's class, with changes of training.

    A text may name changes itself: ``uniform+gce(q=0.7)``. InputError where there is no such arm.
    """
    if isinstance(method, str):
        method, *named = _split(method)
        changes = (*map(read_change, named), *changes)
    arm = method if isinstance(method, Arm) else _selecting(method)
    if not changes:
        return arm
    both = ordered((*arm.changes, *changes), arm.label)
    return replace(arm, changes=both, is_baseline=False)


def _split(text: str) -> list[str]:
    """The parts ``uniform``, ``gce(q=0.7)`` and ``ema`` of a text with ``+`` between them."""
    parts: list[str] = []
    for part in split_commas(text, "+"):
        # Else it is the sign of a number, as in top-loss:beta=1e+3.
        if parts and not part[:1].isalpha():
            part = f"{parts.pop()}+{part}"
        parts.append(part)
    return parts


def _selecting(method: str | Selector | type[Selector]) -> Arm:
    """The arm of a selector, without changes."""
    if isinstance(method, Selector):
        kind, name, values = type(method), name_of(type(method)), _values_of(method)
    elif isinstance(method, type) and is_selector(method):
        kind, name, values = method, name_of(method), {}
    elif isinstance(method, str):
        name, texts = split_selector(method)
        if name == STANDARD.name:
            if texts:
                raise InputError(f"{shown(method)} is not allowed; it has no hyperparameters")
            return STANDARD
        if name in CHANGES:
            raise InputError(f"{shown(method)} is no arm by itself; give uniform+{shown(method)}")
        kind = find_selector(name, also=(STANDARD.name,))
        values = read_values(kind, name, texts)
        if ":" in name or "." in name:
            name = name_of(kind)
    else:
        _refuse(method)
    if not isinstance(method, Selector):
        # The class alone knows all that is not allowed, such as values that exclude each other.
        make_selector(kind, name, values)
    differing = {
        each.name: values[each.name]
        for each in hyperparameters(kind)
        if each.name in values and _label_of(values[each.name]) != _label_of(each.default)
    }
    return UNIFORM if kind is UNIFORM.kind else Arm(name, kind, differing)


def label_of(method: Method) -> str:
    """The label of an arm; the text itself where no such arm is known here."""
    try:
        return read_arm(method).label
    except InputError:
        return str(method)


def _values_of(selector: Selector) -> dict[str, Any]:
    """The hyperparameters of a selector."""
    kept, found = kept_values(selector), {}
    for each in hyperparameters(type(selector)):
        if each.name not in kept:
            raise InputError(
                f"{type(selector).__name__} has no attribute {each.name}, so that no fresh one can "
                f"be made for each arm and seed; let __init__ keep the value in self.{each.name}"
            )
        found[each.name] = kept[each.name]
        # So that 2 and 2.0 are one arm; what is of another type than is written stays as it is.
        with contextlib.suppress(ValueError):
            found[each.name] = each.convert(kept[each.name])
    return found
