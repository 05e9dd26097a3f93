"""Frozen dataclasses that are read from JSON, checked field by field, and written as read.

Fields that this version does not know are kept and written back in their place, and a field
that an older version did not write stays away: what is read and written again is the same to
the last byte.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

from saln.converter import options_of
from saln.errors import DataError
from saln.files import read_json
from saln.messages import shown

_MISSING = dataclasses.MISSING


class FieldError(ValueError):
    """A field is missing or has a value that it cannot hold; the message names the field."""


@dataclass(frozen=True)
class JsonRecord:
    """A JSON object with named fields; a subclass declares them by annotations.

    A field is an int, a float, text, a bool, another record, a ``Mapping[str, X]``, a tuple of
    any length or of a fixed one, ``Any``, or a union of these with None.
    """

    # Fields that are written only where they are not their defaults: files without stay the same
    quiet: ClassVar[frozenset[str]] = frozenset()
    # Fields that the class does not name, as they were read
    extra: Mapping[str, Any] = field(default_factory=dict, repr=False, kw_only=True)
    _order: tuple[str, ...] = field(default=(), repr=False, compare=False, kw_only=True)

    def to_json(self) -> dict[str, Any]:
        """Plain values: as they were read, or in the order of the class for a new record."""
        values = {name: getattr(self, name) for name in self.names()} | dict(self.extra)
        late = [name for name in values if name not in self._order]
        if self._order:  # read: what was not there stays away while it says nothing
            usual = {name: default for name, (_, default) in _fields(type(self)).items()}
            late = [name for name in late if values[name] != usual.get(name, _MISSING)]
        return {name: _plain(values[name]) for name in (*self._order, *late)}

    def names(self) -> tuple[str, ...]:
        """The fields in the order in which a new record is written."""
        return tuple(
            name
            for name, (_, default) in _fields(type(self)).items()
            # What was read is written again, whatever it is.
            if name not in self.quiet or name in self._order or getattr(self, name) != default
        )

    @classmethod
    def from_json(cls, values: object, place: str = "") -> Self:
        """Reads what ``json.loads`` gave; FieldError for others names the field, in ``place``."""
        if not isinstance(values, Mapping):
            raise _refusal(place or "it", values, "an object with named fields")
        fields, known = _fields(cls), {}
        for name, (kind, default) in fields.items():
            where = f"{place}.{name}" if place else name
            if name in values:
                known[name] = _read(values[name], kind, where)
            elif default is _MISSING:
                raise FieldError(f"{where} is missing; give {_allowed(kind)}")
        # They stay in ``_order``, and so in their places, when the record is written.
        extra = {name: value for name, value in values.items() if name not in fields}
        return cls(**known, extra=extra, _order=tuple(values))

    @classmethod
    def read(cls, path: Path, cure: str) -> Self:
        """Reads a file, or raises a DataError that says what to do."""
        try:
            return cls.from_json(read_json(path, cure))
        except FieldError as error:
            raise DataError(f"{path}: {error}, or {cure}") from error


def json_lines(records: Iterable[JsonRecord]) -> bytes:
    """Records as in a file of JSON lines."""
    return b"".join((json.dumps(record.to_json()) + "\n").encode() for record in records)


def _look_at(record: type[JsonRecord]) -> dict[str, tuple[Any, Any]]:
    """What each field holds, and what it is where it is not given; ``MISSING`` where it must be."""
    hints, found = typing.get_type_hints(record), {}
    for each in dataclasses.fields(record):
        made = each.default_factory
        found[each.name] = hints[each.name], each.default if made is _MISSING else made()
    del found["extra"], found["_order"]
    return found


# Reading annotations takes longer than reading a row.
_fields: Callable[[Any], dict[str, tuple[Any, Any]]] = functools.cache(_look_at)


def _fits(record: type[JsonRecord], value: Mapping[str, Any]) -> bool:
    return all(name in value or each[1] is not _MISSING for name, each in _fields(record).items())


def _refusal(place: str, value: object, allowed: str) -> FieldError:
    # Quotes tell the text '3' from the number; whole files must not come into a message.
    text = shown(value) if not isinstance(value, str) else repr(value[:80])
    return FieldError(f"{place} is {text}; give {allowed}")


def _read(value: Any, kind: Any, place: str) -> Any:
    """A value as a field holds it; numbers stay as they are, so that 1 is not written as 1.0."""
    options = options_of(kind)
    if value is None and types.NoneType in options:
        return None
    classes = (option for option in options if isinstance(option, type))
    records = [option for option in classes if issubclass(option, JsonRecord)]
    if records and isinstance(value, Mapping):
        # Of several, the one whose fields are there; the first says what is wrong with them.
        fits = (record for record in records if _fits(record, value))
        return next(fits, records[0]).from_json(value, place)
    for option in options:
        origin, inside = typing.get_origin(option), typing.get_args(option)
        if option is Any:
            return value
        if origin is tuple and isinstance(value, list | tuple):
            return _several(value, inside, place)
        if origin is not None and origin is not tuple and isinstance(value, Mapping):
            return {key: _read(each, inside[1], f"{place}.{key}") for key, each in value.items()}
        known = option in _PLAIN and isinstance(value, _PLAIN[option])
        if known and (option is bool or not isinstance(value, bool)):  # True is an int to Python
            return value
    raise _refusal(place, value, _allowed(kind))


def _several(value: list[Any] | tuple[Any, ...], inside: tuple[Any, ...], place: str) -> Any:
    if inside[-1] is not Ellipsis and len(value) != len(inside):
        raise _refusal(place, value, f"{len(inside)} values")
    kinds = inside[:1] * len(value) if inside[-1] is Ellipsis else inside
    pairs = zip(value, kinds, strict=True)
    return tuple(_read(each, kind, f"{place}[{i}]") for i, (each, kind) in enumerate(pairs))


# What a value may be where a field is of a plain kind: a whole number is a number, too.
_PLAIN: dict[Any, Any] = {int: int, float: (int, float), str: str, bool: bool}
_WORDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


def _allowed(kind: Any) -> str:
    """What a field may hold, in words."""
    words = []
    for option in options_of(kind):
        if option is types.NoneType:
            words.append("null")
        elif typing.get_origin(option) is tuple:
            words.append("a list")
        else:
            words.append(_WORDS.get(option, "an object with named fields"))
    return " or ".join(words)


def _plain(value: Any) -> Any:
    if isinstance(value, JsonRecord):
        return value.to_json()
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value
