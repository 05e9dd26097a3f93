"""What people give for a setting, turned into what the setting holds.

A whole number may be 8.0, NumPy's or a tensor's; several values a list, an array or text with
commas. What has more than one meaning is refused.
"""

from __future__ import annotations

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


def options_of(kind: Any) -> tuple[Any, ...]:
    """The types that a field's annotation names: those of a union, or the one."""
    is_union = isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union
    return typing.get_args(kind) if is_union else (kind,)


def allowed(kind: Any) -> str:
    """What may be given for a kind, in words."""
    words = []
    for option in options_of(kind):
        origin, arguments = typing.get_origin(option), typing.get_args(option)
        if option is type(None):
            continue
        if origin is Literal:
            words.append(f"one of {', '.join(map(str, arguments))}")
        elif origin is tuple:
            each = {int: "whole numbers", str: "names", Path: "paths"}[arguments[0]]
            words.append(f"{each}, with commas between")
        else:
            words.append(_WORDS[option])
    return " or ".join(words)


_WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    Path: "a path",
}


def taken(value: object, kind: Any) -> Any:
    """Turns a value into a kind, where its meaning is plain.

    Args:
        value: Of Python, NumPy, torch or pandas.
        kind: A field's annotation: ``int``, ``float``, ``bool``, ``str``, ``Path``, a
            ``Literal``, a ``tuple`` of one of them with any length, or a union with None.

    Raises:
        ValueError: It is none; the message is what may be given.
    """
    options = options_of(kind)
    if value is None and type(None) in options:
        return None
    for option in options:
        try:
            return _as(value, option)
        except _NotTakenError:
            continue
    raise ValueError(allowed(kind))


def from_text(text: str, kind: Any) -> Any:
    """Turns what stands after a flag into a kind.

    Raises:
        ValueError: It is none; the message is what may be given.
    """
    options = options_of(kind)
    if text.lower() == "none" and type(None) in options:
        return None
    value: object = text
    if int in options or float in options:
        value = _number(text)
    return taken(value, kind)


def split_commas(text: str) -> list[str]:
    """The parts of a text between its commas; those in brackets or quotes part nothing."""
    parts, depth, quote = [""], 0, ""
    for sign in text:
        if quote or sign in "\"'":
            quote = "" if sign == quote else quote or sign
        elif sign in "([{":
            depth += 1
        elif sign in ")]}":
            depth -= 1
        if sign == "," and depth <= 0 and not quote:
            parts.append("")
        else:
            parts[-1] += sign
    return [part.strip() for part in parts]


def _number(text: str) -> object:
    """The number that a text names; the text where it names none."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:  # no whole number, or one of thousands of digits
            continue
    return text


def unusable(path: Path) -> str | None:
    """Why no system can look at a path, such as too long a name; None where one can.

    What has to be at the path is for the caller to say.
    """
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        return str(getattr(error, "strerror", None) or error)
    return None


class _NotTakenError(Exception):
    pass


def _as(value: object, option: Any) -> Any:
    origin = typing.get_origin(option)
    if origin is Literal:
        if isinstance(value, str) and value in typing.get_args(option):
            return str(value)
    elif origin is tuple:
        return _several(value, typing.get_args(option)[0])
    elif option is Path:
        return _path(value)
    elif option is str:
        if isinstance(value, str):
            return str(value)
    else:
        plain = _plain(value)
        if option is bool and isinstance(plain, bool):
            return plain
        if option in (int, float) and isinstance(plain, numbers.Real | Decimal):
            return _real(plain, option)
    raise _NotTakenError


def _real(value: Any, option: Any) -> int | float:
    if isinstance(value, bool):
        raise _NotTakenError
    if option is int and not (isinstance(value, numbers.Integral) or _is_whole(value)):
        raise _NotTakenError
    try:
        converted: int | float = option(value)
    except OverflowError as error:  # 10**400 as a float
        raise _NotTakenError from error
    return converted


def _is_whole(value: Any) -> bool:
    return math.isfinite(value) and value == math.floor(value)


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
        raise _NotTakenError
    try:
        return Path(value).expanduser()
    except (RuntimeError, TypeError) as error:  # ~nobody; a path of bytes
        raise _NotTakenError from error


def _several(value: object, kind: Any) -> tuple[Any, ...]:
    """Each of several values; one alone is several, too."""
    if isinstance(value, str):
        parts = split_commas(value)
        try:
            return tuple(from_text(part, kind) for part in parts if part)
        except ValueError as error:
            raise _NotTakenError from error
    # Their order would be nobody's: arms and seeds are run in the order that they are given in.
    if isinstance(value, Mapping | Set | bytes):
        raise _NotTakenError
    if isinstance(value, Iterable) and getattr(value, "shape", None) != ():
        return tuple(_as(entry, kind) for entry in value)
    return (_as(value, kind),)
