"""What people give for a setting, turned into what the setting holds.

A whole number may be 8.0, NumPy's or a tensor's; several values a list, an array or text with
commas. What has more than one meaning is refused.

Our own, for of 72 values that tests/test_settings.py takes or refuses pydantic 2.14 treats 47 so,
msgspec 0.22 45 and cattrs 26.2 42: each kind would need a converter of ours inside theirs.
"""

from __future__ import annotations

import contextlib
import math
import numbers
import os
import types
import typing
from collections.abc import Iterable, Mapping, Set
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import numpy as np

# What may be given for each kind, in messages.
_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
_WORDS |= {Path: "a path"}
_WORDS_OF_SEVERAL = {int: "whole numbers", str: "names", Path: "paths"}


def options_of(kind: Any) -> tuple[Any, ...]:
    """The types that a field's annotation names: those of a union, or the one."""
    is_union = isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union
    return typing.get_args(kind) if is_union else (kind,)


def allowed(kind: Any) -> str:
    """What may be given for a kind, in words."""
    words = []
    for option in options_of(kind):
        origin, arguments = typing.get_origin(option), typing.get_args(option)
        if origin is Literal:
            words.append(f"one of {', '.join(map(str, arguments))}")
        elif origin is tuple:
            words.append(f"{_WORDS_OF_SEVERAL[arguments[0]]}, with commas between")
        elif option is not type(None):  # that nothing need be given is no advice
            words.append(_WORDS[option])
    return " or ".join(words)


def convert(value: object, kind: Any) -> Any:
    """Turns a value of Python, NumPy, torch or pandas into a kind, where its meaning is plain.

    A kind is ``int``, ``float``, ``bool``, ``str``, ``Path``, a ``Literal``, a ``tuple`` of one
    of them with any length, or a union with None. For others, ValueError says what may be
    given.
    """
    options = options_of(kind)
    if value is None and type(None) in options:
        return None
    for option in options:
        with contextlib.suppress(_NotConvertibleError):
            return _as(value, option)
    raise ValueError(allowed(kind))


def from_text(text: str, kind: Any) -> Any:
    """Turns what stands after a flag into a kind; else ValueError, which is what may be given."""
    options = options_of(kind)
    if text.lower() == "none" and type(None) in options:
        return None
    value: object = text
    if int in options or float in options:
        # The whole number is preferred: as a float a large one loses digits.
        for number in (float, int):
            with contextlib.suppress(ValueError):  # no such number, or thousands of digits
                value = number(text)
    return convert(value, kind)


def split_commas(text: str, comma: str = ",") -> list[str]:
    """The parts of a text between its commas; those in brackets or quotes part nothing."""
    parts, depth, quote = [""], 0, ""
    for sign in text:
        if quote or sign in "\"'":
            quote = "" if sign == quote else quote or sign
        elif sign in "([{":
            depth += 1
        elif sign in ")]}":
            depth -= 1
        if sign == comma and depth <= 0 and not quote:
            parts.append("")
        else:
            parts[-1] += sign
    return [part.strip() for part in parts]


def unusable(path: Path) -> str | None:
    """Why no system can look at a path, such as too long a name; None where one can."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        return str(getattr(error, "strerror", None) or error)
    return None


class _NotConvertibleError(Exception):
    pass


def _as(value: object, option: Any) -> Any:
    origin, arguments, plain = typing.get_origin(option), typing.get_args(option), _plain(value)
    if origin is tuple:
        return _several(value, arguments[0])
    if option is Path:
        return _path(value)
    if isinstance(value, str) and (option is str or (origin is Literal and value in arguments)):
        return str(value)  # NumPy's text is a subclass
    # A bool is a number in Python, but nobody who writes True means 1.
    if isinstance(plain, bool):
        if option is bool:
            return plain
    elif option in (int, float) and isinstance(plain, numbers.Real | Decimal):
        # Whole floats, such as 8.0 of a configuration file, are whole numbers; 8.5 is none.
        whole = isinstance(plain, numbers.Integral) or (
            math.isfinite(plain) and plain == math.floor(plain)
        )
        if option is float or whole:
            with contextlib.suppress(OverflowError):  # 10**400 as a float
                return option(plain)
    raise _NotConvertibleError


def _plain(value: Any) -> object:
    """A number of NumPy or torch as Python's own; anything else as it is."""
    if getattr(value, "shape", None) != () or not hasattr(value, "item"):
        return value
    plain: object = value.item()
    if isinstance(plain, float) and value.itemsize < 8:
        # The 0.8 that was written, not the 0.800000011920929 that float32 makes of it.
        narrow = np.float32 if value.itemsize == 4 else np.float16
        return float(str(narrow(plain)))
    return plain


def _path(value: object) -> Path:
    if not isinstance(value, str | os.PathLike) or not str(value) or "\0" in str(value):
        raise _NotConvertibleError
    try:
        return Path(value).expanduser()
    except (RuntimeError, TypeError) as error:  # ~nobody; a path of bytes
        raise _NotConvertibleError from error


def _several(value: object, kind: Any) -> tuple[Any, ...]:
    """Each of several values; one alone is several, too."""
    if isinstance(value, str):
        parts = split_commas(value)
        try:
            return tuple(from_text(part, kind) for part in parts if part)
        except ValueError as error:
            raise _NotConvertibleError from error
    # Their order would be nobody's: arms and seeds are run in the order that they are given in.
    if isinstance(value, Mapping | Set | bytes):
        raise _NotConvertibleError
    if isinstance(value, Iterable) and getattr(value, "shape", None) != ():
        return tuple(_as(entry, kind) for entry in value)
    return (_as(value, kind),)
