"""Groups of rarely used keywords: typed for editors, checked once, kept as a frozen dataclass."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol, TypedDict, TypeVar


class RankOptions(TypedDict, total=False):
    """Which of several processes an object chooses for."""

    rank: int | None
    """Which process this is; it gets its equal share of every batch. By default
    torch.distributed's, read when it is needed; see also ``share_among``."""
    world_size: int | None
    """How many processes train together; both are given, or neither."""


class _Dataclass(Protocol):
    __dataclass_fields__: ClassVar[dict[str, Any]]


D = TypeVar("D", bound=_Dataclass)


def checked_options(kind: type[D], owner: Callable[..., Any], options: Mapping[str, Any]) -> D:
    """The options, a dataclass, that ``owner`` was given by keyword; TypeError names close ones."""
    # By hand: of a constructor that hands its keywords on, Python's own message names another.
    names = [field.name for field in dataclasses.fields(kind)]
    unknown = next((name for name in options if name not in names), None)
    if unknown is None:
        return kind(**options)
    explicit = inspect.signature(owner).parameters.values()
    names += [one.name for one in explicit if one.kind is not one.VAR_KEYWORD]
    # Half of the letters alike: 'worldsize' is close to world_size, 'x' to nothing.
    close = difflib.get_close_matches(unknown, names, n=3, cutoff=0.5)
    cure = f"did you mean {' or '.join(close)}?" if close else f"it takes {', '.join(names)}"
    raise TypeError(f"{owner.__name__} takes no keyword {unknown!r}; {cure}")
