"""The hyperparameters of a kind of selector: their names, types, bounds and values."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import functools
import inspect
import math
import re
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from saln.converter import allowed, convert, from_text
from saln.errors import InputError
from saln.messages import not_allowed, shown
from saln.selection.contract import parameters_of

REQUIRED = inspect.Parameter.empty
# Before the digest of a value that is longer than a label may hold; no text says such a value.
DIGEST = "~"
T = TypeVar("T")
_WORDS = {"true": True, "false": False, "none": None}


@dataclass(frozen=True)
class Bounds:
    """What a number may be: ``Annotated[float, Bounds(low=0, below=1)]`` is in [0, 1).

    Attributes:
        low: The smallest that is allowed.
        above: Every number that is allowed is larger.
        high: The largest that is allowed.
        below: Every number that is allowed is smaller.
    """

    low: float | None = None
    above: float | None = None
    high: float | None = None
    below: float | None = None

    def holds(self, value: float) -> bool:
        """Whether a number is allowed; NaN and infinity never are."""
        return -math.inf < value < math.inf and not (
            (self.low is not None and value < self.low)
            or (self.above is not None and value <= self.above)
            or (self.high is not None and value > self.high)
            or (self.below is not None and value >= self.below)
        )

    def __str__(self) -> str:
        words = zip(("at least", "above", "at most", "below"), vars(self).values(), strict=True)
        return ", ".join(f"{word} {value:,}" for word, value in words if value is not None)


@dataclass(frozen=True)
class Hyperparameter:
    """One hyperparameter of a kind of selector."""

    name: str  # As in the call that makes the selector
    kind: Any = Any  # Its type; ``Any`` where none is written
    # Its value where none is given; :data:`REQUIRED` where there is no such
    default: Any = REQUIRED
    bounds: Bounds | None = None  # Of a number, where they are written

    def __str__(self) -> str:
        default = "required" if self.default is REQUIRED else f"default {text_of(self.default)}"
        return f"{self.name} ({self.allowed()}; {default})"

    def allowed(self) -> str:
        """What may be given, in words."""
        if not self._is_known():
            return "any value"
        words = allowed(self.kind) + (f", {self.bounds}" if self.bounds else "")
        return words + (", or none" if type(None) in typing.get_args(self.kind) else "")

    def _is_known(self) -> bool:
        """Whether the converter of settings knows its type."""
        try:
            return bool(allowed(self.kind))
        except (KeyError, TypeError, IndexError):
            return False

    def convert(self, value: Any) -> Any:
        """A value of its type; else ValueError, whose message is what is allowed."""
        try:
            value = convert(value, self.kind) if self._is_known() else value
        except ValueError as error:
            raise ValueError(self.allowed()) from error
        # True is a 1 to Python, but no number that anybody meant.
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if number and self.bounds is not None and not self.bounds.holds(value):
            raise ValueError(self.allowed())
        return value

    def read(self, text: str) -> Any:
        """The value that a text names, such as ``4``, ``none``, ``true``, ``'a b'``; converted."""
        value: Any = text
        if text.startswith(DIGEST):
            raise ValueError(f"the value itself, of which this is a digest: {self.allowed()}")
        # Before the types, for the converter of settings has its own words for flags.
        if text.lower() in _WORDS and self.kind is not str:
            value = _WORDS[text.lower()]
        elif text[:1] in ("'", '"') or not self._is_known():
            with contextlib.suppress(ValueError, SyntaxError):  # then it is text as it stands
                value = ast.literal_eval(text)
        else:
            with contextlib.suppress(ValueError):  # refused below, with the bounds in the message
                value = from_text(text, self.kind)
        return self.convert(value)


def hyperparameters(kind: type[Any]) -> tuple[Hyperparameter, ...]:
    """Those of a kind of selector: a dataclass's fields, or the parameters of ``__init__``.

    Types and bounds are read from the annotations; where there is none, the type is that of a
    default that is a number, text or a truth value. A dataclass of settings is read alike.
    """
    return _hyperparameters(kind)  # type: ignore[arg-type]  # a class can be a key


@functools.cache  # a millisecond otherwise, of every selector that is made
def _hyperparameters(kind: type[Any]) -> tuple[Hyperparameter, ...]:
    try:
        # A dataclass's own annotations know the modules of the classes that they come from.
        source = kind if dataclasses.is_dataclass(kind) else kind.__init__
        hints = typing.get_type_hints(source, include_extras=True)
    except Exception:  # a name that only type checkers see, in code that is not ours
        hints = {}
    found, parameters = [], inspect.signature(kind).parameters
    for name in parameters_of(kind):  # type: ignore[arg-type]
        hint, default = hints.get(name, Any), parameters[name].default
        if hint is Any and isinstance(default, bool | int | float | str):
            hint = type(default)
        notes = getattr(hint, "__metadata__", ())
        bounds = next((note for note in notes if isinstance(note, Bounds)), None)
        found.append(Hyperparameter(name, hint.__origin__ if notes else hint, default, bounds))
    return tuple(found)


def check_hyperparameters(selector: Any, kind: type[Any] | None = None) -> None:
    """Gives each hyperparameter that a selector keeps the type that its annotation names.

    To be called by ``__post_init__`` of a dataclass, or at the end of ``__init__``.

    Args:
        selector: Whose.
        kind: The class whose hyperparameters to check; the selector's own when None. A class that
            derives others gives itself, for these may have other ones.

    Raises:
        InputError: A value is of another type or out of bounds; names it and what is allowed.
    """
    for parameter in hyperparameters(kind or type(selector)):
        value = getattr(selector, parameter.name)
        try:
            converted = parameter.convert(value)
        except ValueError as error:
            raise not_allowed(parameter.name, value, str(error)) from error
        object.__setattr__(selector, parameter.name, converted)  # many selectors are frozen


def read_values(kind: type[Any], name: str, texts: Mapping[str, str]) -> dict[str, Any]:
    """The values that texts name, by hyperparameter of the selector ``name``; else InputError."""
    known = {parameter.name: parameter for parameter in hyperparameters(kind)}
    found = {}
    for key, text in texts.items():
        if key not in known:
            raise InputError(f"{name} has no hyperparameter {shown(key)}; it has {_listed(kind)}")
        try:
            found[key] = known[key].read(text)
        except ValueError as error:
            raise InputError(
                f"{key}={shown(text)} of {name} is not allowed; give {error}"
            ) from error
    return found


def make_selector(kind: type[T], name: str, values: Mapping[str, Any]) -> T:
    """Makes a selector of a kind with values; InputError where one is missing or not allowed."""
    needed = [each.name for each in hyperparameters(kind) if each.default is REQUIRED]
    missing = [key for key in needed if key not in values]
    if missing:
        raise InputError(f"{name} needs {', '.join(missing)}; it has {_listed(kind)}")
    try:
        return kind(**values)
    except InputError as error:
        raise InputError(f"{name}: {error}") from error
    except (TypeError, ValueError, ArithmeticError) as error:
        said = ", ".join(f"{key}={value!r}" for key, value in values.items())
        raise InputError(
            f"{name}({said}) cannot be made ({error}); it has {_listed(kind)}"
        ) from error


def _listed(kind: type[Any]) -> str:
    return "; ".join(map(str, hyperparameters(kind))) or "none"


def text_of(value: Any) -> str:
    """A value as :meth:`Hyperparameter.read` takes it; as Python shows it where that is no text."""
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if isinstance(value, str) and re.fullmatch(r"[^\W\d][\w.+-]*", value):
        return value if value.lower() not in _WORDS else repr(value)
    return repr(value)


def is_text(value: Any) -> bool:
    """Whether :func:`text_of` says all of a value, so that it can be read again."""
    if isinstance(value, list | tuple):
        return all(is_text(part) for part in value)
    return value is None or type(value) in (bool, int, float, str)
