"""How messages name parameters and show values.

A parameter is named as Python spells it, ``batch_size=0``, unless whoever runs the library says
that its users know another spelling: the command line has ``--batch-size 0``. Messages are made
where something is wrong, often several calls below, and some are written to files; so the
spelling is a property of the context, like the language of a program, and no caller passes it on.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path

from saln.errors import InputError

# Longer values are cut in messages; a path is cut later, for its end is what tells paths apart.
SHOWN = 120
SHOWN_OF_PATH = 1000


class Placeholder(str):
    """Stands for a value that the user has to choose, such as ``DIR``."""

    __slots__ = ()

    def __repr__(self) -> str:
        """The word itself, without quotes."""
        return str(self)


NO_VALUE = Placeholder()


def shown(value: object) -> str:
    """A value in a message: as it was written, quoted where that is not plain, on one line."""
    text = str(value)
    limit = SHOWN_OF_PATH if isinstance(value, Path) else SHOWN
    if len(text) > limit:
        text = text[:limit] + "..."
    return text if text.isprintable() and text.strip() == text and text else repr(text)


def python_spelling(name: str, value: object) -> str:
    """``batch_size=0``, or the name alone where the value is :data:`NO_VALUE`."""
    if value is NO_VALUE:
        return name
    return f"{name}={shown(value if isinstance(value, Path) else repr(value))}"


# Parameter's name, value -> text.
Spelling = Callable[[str, object], str]
_spelling: ContextVar[Spelling] = ContextVar("spelling", default=python_spelling)


@contextlib.contextmanager
def spelled_by(spelling: Spelling) -> Iterator[None]:
    """Names parameters by another spelling in the messages that are made inside the block."""
    token = _spelling.set(spelling)
    try:
        yield
    finally:
        _spelling.reset(token)


def parameter(name: str, value: object = NO_VALUE) -> str:
    """A parameter in a message, with the value that it has or should get.

    ``batch_size=0`` or what the context makes of it, such as ``--batch-size 0``; the value is a
    :class:`Placeholder` where the user has to choose it.
    """
    return _spelling.get()(name, value)


def not_allowed(name: str, value: object, allowed: str) -> InputError:
    """The error for a parameter that may not have this value; says what may be given."""
    return InputError(f"{parameter(name, value)} is not allowed; give {allowed}")


def first_line(error: BaseException) -> str:
    """The first line of what an error says, or its kind where it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
