"""Flags of a command, from the fields of a dataclass: ``--batch-size 8`` and ``--batch-size=8``.

Help is tyro's, which reads the fields' own texts. Values are parsed here, because what is wrong
is said in one line that names the value and what may be given.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import inspect
import shutil
import textwrap
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

from saln.converter import allowed, from_text, unusable
from saln.errors import InputError
from saln.messages import NO_VALUE, parameter, python_spelling, shown, spelled_by

_SWITCH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}

Settings = TypeVar("Settings")


@dataclass(frozen=True, kw_only=True)
class Command(Generic[Settings]):
    """A command, called with its arguments; gives the exit status."""

    name: str  # Such as ``compare``
    settings: type[Settings]  # A dataclass, whose fields are the flags
    run: Callable[[Settings], int]  # Does the work. Its docstring opens the help.
    # Fields that are given without their names, in this order; one that holds a tuple takes
    # all that is left
    positional: tuple[str, ...] = ()
    # Makes the settings of the fields that were given; ``settings`` does by default
    complete: Callable[[dict[str, Any]], Settings] | None = None
    # Gives the settings whose values ``--help`` shows, by the fields that are given beside it;
    # the dataclass's own by default
    defaults: Callable[[dict[str, Any]], Settings] | None = None
    # For messages: parameter of the library -> field of the settings, where they differ, or
    # what else to write for it
    other_names: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, arguments: Sequence[str]) -> int:
        """Reads the arguments and does the work; messages name parameters as flags."""
        with spelled_by(self.spell):
            return self.run(self.read(arguments))

    def read(self, arguments: Sequence[str]) -> Settings:
        """Reads what came after the command; ``--help`` ends it with SystemExit.

        InputError for an unknown or missing flag, or one with no value of its kind.
        """
        if "-h" in arguments or "--help" in arguments:
            _print_help(self, arguments)
        fields = _Reader(self).read(list(arguments))
        return self.settings(**fields) if self.complete is None else self.complete(fields)

    def spell(self, name: str, value: object) -> str:
        """A parameter of the library as it is given here; others are named as in Python."""
        kinds, name = typing.get_type_hints(self.settings), self.other_names.get(name, name)
        if name not in kinds:  # text to be written as it is, or a parameter that has no flag
            return name if name in self.other_names.values() else python_spelling(name, value)
        written = self.written(name)
        if value is NO_VALUE or (kinds[name] is bool and value):
            return written
        if kinds[name] is bool:
            return f"--no-{written[2:]}"
        text = ",".join(map(str, value)) if isinstance(value, tuple) else value
        return f"{written} {shown(text)}"

    def written(self, name: str) -> str:
        """A field as the user writes it."""
        return name.upper() if name in self.positional else "--" + name.replace("_", "-")


def check_ray_flags(settings: Any) -> None:
    """Refuses what is for Ray alone where Ray is not asked for."""
    if settings.engine != "ray" and (settings.ray_address or settings.ray_workers is not None):
        raise InputError(
            f"{parameter('ray_address')} and {parameter('ray_workers')} are for "
            f"{parameter('engine', 'ray')}; give that too"
        )


class _Reader:
    """Reads one line of arguments."""

    def __init__(self, command: Command[Any]) -> None:
        self.command = command
        self.kinds = typing.get_type_hints(command.settings)
        self.flags = {n: kind for n, kind in self.kinds.items() if n not in command.positional}
        self.hint = f"'saln {command.name} --help' lists what it takes"
        self.fields: dict[str, Any] = {}

    def read(self, arguments: list[str]) -> dict[str, Any]:
        """Gives field -> value, of those that were given."""
        if arguments and not self.kinds:
            raise InputError(
                f"saln {self.command.name} takes no arguments, not {arguments[0]!r}; leave them out"
            )
        positional: list[str] = []
        while arguments:
            token = arguments.pop(0)
            if token.startswith("-") and token != "-":  # a dash alone names a file, by custom
                self._flag(token, arguments)
            else:
                positional.append(token)
        self._place(positional)
        missing = [
            self.command.written(each.name)
            for each in dataclasses.fields(self.command.settings)
            if each.default is each.default_factory is dataclasses.MISSING
            and each.name not in self.fields
        ]
        if missing:
            raise InputError(
                f"saln {self.command.name} needs {' and '.join(missing)}; give "
                f"{'it' if len(missing) == 1 else 'them'} ({self.hint})"
            )
        return self.fields

    def _flag(self, token: str, rest: list[str]) -> None:
        written, equals, text = token.partition("=")
        name = written.removeprefix("--").replace("-", "_")
        positive = name.removeprefix("no_")
        is_switch = self.flags.get(positive) is bool
        if not written.startswith("--") or not (is_switch or name in self.flags):
            self._refuse_unknown(written)
        if is_switch:
            value = _SWITCH.get(text.lower() if equals else "yes")
            if value is None:
                raise InputError(
                    f"{written}={shown(text)} is not allowed; give {written} alone, or true or "
                    "false"
                )
            self.fields[positive] = value == (name == positive)
            return
        if not equals:
            # One dash may begin a value, such as -1: it is for its kind to refuse.
            if not rest or rest[0].startswith("--"):
                raise InputError(f"{written} needs a value; give {allowed(self.flags[name])}")
            text = rest.pop(0)
        self.fields[name] = self._value(written, text, self.flags[name])

    def _value(self, written: str, text: str, kind: Any) -> Any:
        try:
            value = from_text(text, kind)
        except ValueError as error:
            raise InputError(f"{written} {shown(text)} is not allowed; give {error}") from error
        # Here, and not where the path is used: that may be hours later.
        why = unusable(value) if isinstance(value, Path) else None
        if why is not None:
            raise InputError(f"{written} {shown(text)} is not allowed ({why}); give another path")
        return value

    def _place(self, texts: list[str]) -> None:
        """Gives what stands without a flag to the fields that are filled so."""
        for name in self.command.positional:
            kind, count = self.kinds[name], 1
            several = typing.get_origin(kind) is tuple
            if several:
                kind, count = typing.get_args(kind)[0], len(texts)
            taken = [self._value(self.command.written(name), text, kind) for text in texts[:count]]
            texts = texts[count:]
            if taken:
                self.fields[name] = tuple(taken) if several else taken[0]
        if texts:
            raise InputError(
                f"saln {self.command.name} takes no {shown(texts[0])} without a flag; leave it "
                f"out, or quote a value that has spaces ({self.hint})"
            )

    def _refuse_unknown(self, written: str) -> typing.NoReturn:
        known = [self.command.written(name) for name in self.flags]
        # A misspelled --no-FLAG should find its like, too.
        known += [f"--no-{n.replace('_', '-')}" for n, kind in self.flags.items() if kind is bool]
        near = difflib.get_close_matches(written, known, 3)
        hint = f"did you mean {' or '.join(near)}?" if near else self.hint
        raise InputError(f"saln {self.command.name} has no flag {shown(written)}; {hint}")


def _shown_defaults(command: Command[Any], arguments: Sequence[str]) -> dict[str, Any]:
    """The argument of tyro that has it show other defaults than the dataclass's own."""
    if command.defaults is None:
        return {}
    try:
        rest = [each for each in arguments if each not in ("-h", "--help")]
        return {"default": command.defaults(_Reader(command).read(rest))}
    except InputError:  # help is given whatever else is, right or wrong
        return {"default": command.defaults({})}


def _filled(text: str) -> str:
    """Paragraphs that fit the terminal. tyro joins lines, but not those that are indented."""
    width = min(100, shutil.get_terminal_size().columns)
    first, *others = (
        textwrap.fill(part, width, initial_indent=" " * (2 * bool(number)), subsequent_indent="  ")
        for number, part in enumerate(text.split("\n\n"))
    )
    return "\n".join((first, *others))


def _print_help(command: Command[Any], arguments: Sequence[str]) -> typing.NoReturn:
    import tyro

    defaults = _shown_defaults(command, arguments)

    registry = tyro.constructors.ConstructorRegistry()

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

    kinds = typing.get_type_hints(command.settings)
    for each in dataclasses.fields(command.settings):
        extra: tuple[Any, ...] = ()
        if each.name in command.positional:
            required = None if each.default else "(required)"
            metavar = command.written(each.name)
            shown_as = tyro.conf.arg(metavar=metavar, help_behavior_hint=required)
            extra = (tyro.conf.Positional, shown_as)
        elif (names := each.metadata.get("names")) is not None:  # a registry lists its own names
            with_default = functools.partial("({}; default: {})".format, names.choices())
            extra = (tyro.conf.arg(help_behavior_hint=with_default),)
        if extra:
            # In the class itself, and for good: the process ends with the help.
            command.settings.__annotations__[each.name] = Annotated[kinds[each.name], *extra]
    tyro.cli(
        command.settings,
        prog=f"saln {command.name}",
        description=_filled(inspect.getdoc(command.run) or ""),
        args=["--help"],
        registry=registry,
        **defaults,
    )
    raise SystemExit(0)  # tyro has ended it already
