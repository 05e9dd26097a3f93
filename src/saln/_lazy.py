"""Names of a package that are loaded when they are first used, so that importing it is quick."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any


def lazy_names(
    package: str, homes: Mapping[str, tuple[str, ...]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Makes the ``__getattr__`` and ``__dir__`` of a package's ``__init__.py`` (PEP 562).

    Type checkers see the same names by imports under ``TYPE_CHECKING``. None of the names, which
    stand by the module that defines them, may be that of another module of the package: importing
    that one would hide it.
    """
    home_of = {name: home for home, names in homes.items() for name in names}

    def load(name: str) -> Any:
        if name not in home_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = importlib.import_module(home_of[name])
        if module.__name__ == f"{package}.{name}":
            return module  # a module that is itself one of the names
        value = getattr(module, name)
        # Kept: the next use finds it in the package and does not come here again.
        setattr(sys.modules[package], name, value)
        return value

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *home_of})

    return load, names
