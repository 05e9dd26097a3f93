"""Groups of rarely used keywords: typed for editors, and unknown ones refused."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable
from typing import Any, TypedDict


class RankOptions(TypedDict, total=False):
    """Which of several processes an object chooses for."""

    rank: int | None
    """Which process this is; it gets its equal share of every batch. By default
    torch.distributed's, read when it is needed; see also ``share_among``."""
    world_size: int | None
    """How many processes train together; both are given, or neither."""


def check_keywords(kind: Any, owner: Callable[..., Any], options: Iterable[str]) -> None:
    """Refuses keywords that ``kind``, a TypedDict, lacks; the TypeError names those close to it."""
    # By hand: of a constructor that hands its keywords on, Python's own message names another.
    ranks = RankOptions.__annotations__  # inherited, and so the first: said last
    names = sorted(kind.__annotations__, key=ranks.__contains__)
    unknown = next((name for name in options if name not in names), None)
    if unknown is None:
        return
    explicit = inspect.signature(owner).parameters.values()
    names += [one.name for one in explicit if one.kind is not one.VAR_KEYWORD]
    # Half of the letters alike: 'worldsize' is close to world_size, 'x' to nothing.
    close = difflib.get_close_matches(unknown, names, n=3, cutoff=0.5)
    cure = f"did you mean {' or '.join(close)}?" if close else f"it takes {', '.join(names)}"
    raise TypeError(f"{owner.__name__} takes no keyword {unknown!r}; {cure}")
