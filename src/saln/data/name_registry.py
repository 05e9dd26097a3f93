"""What is chosen by name: names of this package, of the caller and of installed packages.

A registry is the one place of a name and its help text: ``saln list``, ``--help`` and error
messages all read it. An installed package adds names by entry points; they are looked for when
a name is not known here, or all names are asked for.
"""

from __future__ import annotations

import difflib
import importlib
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Generic, TypeVar

from saln.errors import InputError
from saln.messages import shown

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RegisteredName:
    """A name, or a prefix of names, and what it stands for; registering functions say the rest."""

    name: str
    summary: str
    make: Callable[[Any], Any]
    argument: str = ""
    needs: str = ""
    members: Callable[[], Iterable[str]] | None = None

    @property
    def usage(self) -> str:
        """As it is given, such as ``folder:PATH``."""
        return self.name + self.argument

    @property
    def listed(self) -> tuple[str, ...]:
        """The names of its family."""
        return () if self.members is None else tuple(self.members())

    @property
    def help(self) -> str:
        """What it is and needs, in a line."""
        return f"{self.summary} ({self.needs})" if self.needs else self.summary


Entry = TypeVar("Entry", bound=RegisteredName)
Make = TypeVar("Make", bound=Callable[[Any], Any])


class NameRegistry(Generic[Entry]):
    """Names and what they stand for.

    ``what`` is named, for messages, such as ``"data set"``; ``known_here`` is the module that
    registers the names of this package, imported when one is looked for. An entry point of the
    ``group``, by which installed packages add names, leads to a function that makes one; where it
    is not registered by its own decorator, it gets the entry point's name and the first line of
    its docstring. ``entry`` makes an entry of a name, a summary and such a function; ``guess``
    gives what somebody may have meant by a name that is none, or ``""``.
    """

    def __init__(
        self,
        what: str,
        known_here: str,
        group: str,
        entry: Callable[..., Entry],
        guess: Callable[[str], str] = lambda spec: "",
    ) -> None:
        self.what = what
        self.known_here = known_here
        self.group = group
        self._entry = entry
        self._guess = guess
        self._entries: dict[str, Entry] = {}
        self._seen: set[str] = set()

    def add(self, entry: Entry) -> None:
        """Registers a name; InputError where another function has it, or it is none."""
        name = entry.name
        bad = not isinstance(name, str) or not name or name.strip() != name or "," in name
        if bad or ":" in name[:-1] or name.endswith(":") != bool(entry.argument):
            raise InputError(
                f"{self.what} {name!r} is not allowed; give a name without commas, or one that "
                "ends in its only colon together with what stands behind it, argument='PATH'"
            )
        # First the names of this package, whoever registers one before they are asked for.
        self._import_own()
        known = self._entries.get(name)
        if known is not None and _origin(known.make) != _origin(entry.make):
            raise InputError(f"there is a {self.what} {name!r} already; choose another name")
        self._entries[name] = entry  # the same function again: a cell or module run once more

    def register(self, name: str, summary: str, **facts: Any) -> Callable[[Make], Make]:
        """As a decorator: registers a function by what an entry holds beside it."""

        def register(make: Make) -> Make:
            self.add(self._entry(name, summary, make, **facts))
            return make

        return register

    def find(self, spec: str) -> tuple[Entry, str]:
        """What a name stands for, and what is behind its prefix; else InputError lists all."""
        self._import_own()
        found = self._look_up(spec)
        if found is None:
            self._discover()
            found = self._look_up(spec)
        if found is None:
            raise InputError(f"unknown {self.what} {spec!r}; choose {self.choices(spec)}")
        return found

    def __contains__(self, spec: object) -> bool:
        """Whether something has this name."""
        try:
            return isinstance(spec, str) and self.find(spec) is not None
        except InputError:
            return False

    def entries(self) -> tuple[Entry, ...]:
        """All, in the order in which they were registered."""
        self._discover()
        return tuple(self._entries.values())

    def help(self) -> dict[str, str]:
        """How each is given -> what it is and needs; families are left out."""
        return {e.usage: e.help for e in self.entries() if e.members is None}

    def families(self) -> list[Entry]:
        """Those that stand for several names without a prefix."""
        return [entry for entry in self.entries() if entry.members is not None]

    def choices(self, spec: str = "") -> str:
        """What may be given in a name's place; known prefixes, too, where ``spec`` has one."""
        words = "one of " + ", ".join(self.help())
        families = [family.name for family in self.families()]
        if families:
            words += f" or {' or '.join(families)} ('saln list' names all)"
        prefix, colon, _ = spec.partition(":")
        if colon and prefix + colon not in self._entries:
            known = ", ".join(entry.usage for entry in self.entries() if entry.argument) or "none"
            words += f"; the prefix '{prefix}:' is not registered (registered: {known})"
        entries = self.entries()
        names = [entry.name for entry in entries if not (entry.argument or entry.members)]
        names += [name for entry in entries for name in entry.listed]
        near = [self._guess(spec), *difflib.get_close_matches(spec, names, 1)] if spec else []
        meant = next(filter(None, near), None)
        return words + (f" (did you mean {shown(meant)}?)" if meant else "")

    def _look_up(self, spec: str) -> tuple[Entry, str] | None:
        entry = self._entries.get(spec)
        if entry is not None and entry.members is None and not entry.argument:
            return entry, ""
        prefix, colon, rest = spec.partition(":")
        if colon and rest and prefix + colon in self._entries:
            return self._entries[prefix + colon], rest
        for family in self._entries.values():
            if spec in family.listed:
                return family, ""
        return None

    def _import_own(self) -> None:
        # Does nothing when the module itself, which is being imported then, registers a name.
        importlib.import_module(self.known_here)

    def _discover(self) -> None:
        """Takes up what installed packages add. One that fails must not hide the others."""
        self._import_own()
        for point in metadata.entry_points(group=self.group):
            if point.value in self._seen:
                continue
            self._seen.add(point.value)
            try:
                make = point.load()
                if all(entry.make is not make for entry in self._entries.values()):
                    summary = (make.__doc__ or point.value).strip().splitlines()[0]
                    self.add(self._entry(point.name, summary, make))
            except Exception as error:  # whatever a package of somebody else raises
                logger.warning(
                    "the %s %s of an installed package (%s) cannot be used: %s: %s",
                    self.what, point.name, point.value, type(error).__name__, error,
                )  # fmt: skip


def _origin(function: Any) -> tuple[str, str]:
    return getattr(function, "__module__", ""), getattr(function, "__qualname__", repr(function))
