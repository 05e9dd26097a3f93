"""Flags of a command, from the fields of a dataclass: ``--batch-size 8`` and ``--batch-size=8``.

Help is tyro's, which reads the fields' own texts. What is wrong is said in one line that names
the value and what may be given.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from saln.converter import allowed, from_text, unusable
from saln.errors import InputError
from saln.messages import NO_VALUE, Spelling, python_spelling, shown

_SWITCH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def read_flags(
    settings: type[Any],
    command: str,
    description: str | None,
    arguments: Sequence[str],
    *,
    places: Sequence[str] = (),
    default: Callable[[], Any] | None = None,
) -> dict[str, Any]:
    """Reads the flags that were given.

    Args:
        settings: A dataclass, whose fields are flags.
        command: Such as ``"compare"``.
        description: What the command does, for ``--help``.
        arguments: What came after the command.
        places: Fields that are given without their names, in this order; one that holds a tuple
            takes them all.
        default: Gives the settings whose values ``--help`` shows; the dataclass's own when None.

    Returns:
        Field -> value, of those that were given.

    Raises:
        InputError: An unknown flag, one without a value, a value that is none of its kind, or a
            field without a default that is missing.
        SystemExit: ``--help``, which is printed.
    """
    if "-h" in arguments or "--help" in arguments:
        _help(settings, command, description, default)
    reader = _Reader(settings, command, places)
    reader.read(list(arguments))
    return reader.found


def flag_spelling(settings: type[Any], others: Mapping[str, str]) -> Spelling:
    """How messages of a command name parameters: as its flags.

    Args:
        settings: A dataclass, whose fields are flags.
        others: Parameter of the library -> field of the settings, where they differ, or what
            else to write for it.

    Returns:
        For :func:`saln.messages.spelled_by`. What is neither a field nor in ``others`` is named
        as in Python.
    """
    kinds = typing.get_type_hints(settings)

    def spell(name: str, value: object) -> str:
        name = others.get(name, name)
        if name not in kinds:
            return name if name in others.values() else python_spelling(name, value)
        flag = f"--{name.replace('_', '-')}"
        if value is NO_VALUE or (kinds[name] is bool and value is True):
            return flag
        if kinds[name] is bool and value is False:
            return f"--no-{flag[2:]}"
        return f"{flag} {shown(','.join(map(str, value)) if isinstance(value, tuple) else value)}"

    return spell


class _Reader:
    def __init__(self, settings: type[Any], command: str, places: Sequence[str]) -> None:
        self.command = command
        self.kinds = typing.get_type_hints(settings)
        self.places = list(places)
        self.flags = {name: kind for name, kind in self.kinds.items() if name not in self.places}
        self.needed = [
            field.name
            for field in dataclasses.fields(settings)
            if field.default is field.default_factory is dataclasses.MISSING
        ]
        self.found: dict[str, Any] = {}

    def read(self, arguments: list[str]) -> None:
        positional: list[str] = []
        while arguments:
            token = arguments.pop(0)
            if token.startswith("-") and token != "-":
                self._flag(token, arguments)
            else:
                positional.append(token)
        self._place(positional)
        missing = [name for name in self.needed if name not in self.found]
        if missing:
            names = [self._named(name) for name in missing]
            raise InputError(
                f"saln {self.command} needs {' and '.join(names)}; give "
                f"{'it' if len(names) == 1 else 'them'} ({self._see()})"
            )

    def _see(self) -> str:
        return f"'saln {self.command} --help' lists what it takes"

    def _named(self, name: str) -> str:
        return name.upper() if name in self.places else "--" + name.replace("_", "-")

    def _flag(self, token: str, rest: list[str]) -> None:
        written, equals, text = token.partition("=")
        name = written.removeprefix("--").replace("-", "_")
        positive = name.removeprefix("no_")
        if not written.startswith("--") or not {name, positive} & self.flags.keys():
            self._refuse_unknown(written)
        if self.flags.get(positive) is bool:
            self.found[positive] = self._switch(written, text if equals else "yes", positive, name)
            return
        if name not in self.flags:
            self._refuse_unknown(written)
        kind = self.flags[name]
        if not equals:
            if not rest or rest[0].startswith("--"):
                raise InputError(f"{written} needs a value; give {allowed(kind)}")
            text = rest.pop(0)
        self.found[name] = self._value(written, text, kind)

    def _switch(self, written: str, text: str, positive: str, name: str) -> bool:
        value = _SWITCH.get(text.lower())
        if value is None:
            raise InputError(
                f"{written}={shown(text)} is not allowed; give {written} alone, or true or false"
            )
        return value if name == positive else not value

    def _value(self, written: str, text: str, kind: Any) -> Any:
        try:
            value = from_text(text, kind)
        except ValueError as error:
            raise InputError(f"{written} {shown(text)} is not allowed; give {error}") from error
        why = unusable(value) if isinstance(value, Path) else None
        if why is not None:
            raise InputError(f"{written} {shown(text)} is not allowed ({why}); give another path")
        return value

    def _place(self, texts: list[str]) -> None:
        """Gives what stands without a flag to the fields that are filled so."""
        places = self.places
        if places and typing.get_origin(self.kinds[places[0]]) is tuple:
            each = typing.get_args(self.kinds[places[0]])[0]
            written = self._named(places[0])
            self.found[places[0]] = tuple(self._value(written, text, each) for text in texts)
            return
        for name, text in zip(places, texts, strict=False):
            self.found[name] = self._value(self._named(name), text, self.kinds[name])
        more = texts[len(places) :]
        if more:
            raise InputError(
                f"saln {self.command} takes no {shown(more[0])} without a flag; leave it out, or "
                f"quote a value that has spaces ({self._see()})"
            )

    def _refuse_unknown(self, written: str) -> typing.NoReturn:
        known = [self._named(name) for name in self.flags]
        known += [f"--no-{name[2:]}" for name in known if self.flags[_field(name)] is bool]
        near = difflib.get_close_matches(written, known, 3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"{self._see()}"
        raise InputError(f"saln {self.command} has no flag {shown(written)}; {hint}")


def _field(flag: str) -> str:
    return flag.removeprefix("--").replace("-", "_")


def _known(choices: str, default: str) -> str:
    """What follows the help of a flag that takes a name."""
    return f"({choices}; default: {default})"


def _help(
    settings: type[Any], command: str, description: str | None, default: Callable[[], Any] | None
) -> typing.NoReturn:
    import tyro

    registry = tyro.constructors.ConstructorRegistry()
    kinds = typing.get_type_hints(settings)
    for field in dataclasses.fields(settings):
        if (names := field.metadata.get("names")) is not None:  # a registry lists its own names
            known = tyro.conf.arg(help_behavior_hint=functools.partial(_known, names.choices()))
            settings.__annotations__[field.name] = typing.Annotated[kinds[field.name], known]

    @registry.primitive_rule
    def commas(info: Any) -> Any:
        """Shows tuples as they are given: in one value, with commas between."""
        metavars = {tuple[str, ...]: "A,B,..", tuple[int, ...]: "0,1,.."}
        if info.type not in metavars:
            return None
        return tyro.constructors.PrimitiveConstructorSpec(
            nargs=1,
            metavar=metavars[info.type],
            instance_from_str=tuple,
            is_instance=lambda value: isinstance(value, tuple),
            str_from_instance=lambda value: [",".join(map(str, value))],
        )

    tyro.cli(
        settings,
        prog=f"saln {command}",
        description=description,
        args=["--help"],
        default=tyro.MISSING if default is None else default(),
        registry=registry,
    )
    raise SystemExit(0)  # tyro has ended it already
