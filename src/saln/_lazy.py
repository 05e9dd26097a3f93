"""Names of a package that are loaded when they are first used, so that importing it is quick."""

from __future__ import annotations

import dis
import importlib
import sys
from collections.abc import Callable
from typing import Any


def lazy_names(package: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Makes the ``__getattr__`` and ``__dir__`` of a package's ``__init__.py`` (PEP 562).

    The names are those that it imports under ``TYPE_CHECKING``: where type checkers see each, it
    is loaded from. None may be that of another module of the package: importing that one would
    hide it.
    """
    front = sys._getframe(1)
    home = package
    home_of: dict[str, str] = {}
    # Imports that are never run are compiled all the same, so each name is written once; the
    # code is there also where no source is.
    for step in dis.get_instructions(front.f_code):
        if step.opname == "IMPORT_NAME":
            home = step.argval
        elif step.opname == "IMPORT_FROM" and step.argval not in front.f_globals:
            home_of[step.argval] = home

    def load(name: str) -> Any:
        if name not in home_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        if home_of[name] == package:
            return importlib.import_module(f"{package}.{name}")  # a module is itself the name
        value = getattr(importlib.import_module(home_of[name]), name)
        # Kept: the next use finds it in the package and does not come here again.
        setattr(sys.modules[package], name, value)
        return value

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *home_of})

    return load, names
