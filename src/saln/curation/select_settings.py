"""What a selection is asked for: values made plain, and a selector known by all that it holds."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xxhash

from saln.selection.contract import Selector

# Stands for a value that has no stable text: unfinished work with such a value is done again.
UNKNOWN = "<unknown>"
_DEPTH = 20
# What every class of selectors has; the others of its values are settings, too.
_FACTS = frozenset(
    {"requires", "is_joint", "observes_losses", "summary", "_added", "_watcher", "_abc_impl"}
)


def describe(value: Any, depth: int = 0) -> Any:
    """Says all that an object holds in plain JSON: the same for equal objects, in any process.

    A selector's own ``repr`` may leave hyperparameters out, and one without is known by its
    address. What cannot be said, such as a lambda, becomes :data:`UNKNOWN`.
    """
    if value is None or isinstance(value, bool | int | str) or depth > _DEPTH:
        return value if depth <= _DEPTH else UNKNOWN
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else repr(value)
    if isinstance(value, np.generic):
        return describe(value.item(), depth + 1) if value.dtype != object else UNKNOWN
    if isinstance(value, torch.Tensor):
        if value.layout != torch.strided or value.dtype == torch.bfloat16:
            value = value.to_dense().float()
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray):
        if value.dtype.hasobject:
            return {"array": describe(value.tolist(), depth + 1)}  # its bytes are addresses
        content = xxhash.xxh3_128_hexdigest(np.ascontiguousarray(value).tobytes())
        return {"array": f"{value.dtype} {value.shape} {content}"}
    if isinstance(value, bytes | bytearray):
        return {"bytes": xxhash.xxh3_128_hexdigest(value)}
    if isinstance(value, list | tuple):
        return [describe(part, depth + 1) for part in value]
    if isinstance(value, set | frozenset):
        # Sorted: the order of a set is another in every process.
        return {"set": sorted((describe(part, depth + 1) for part in value), key=repr)}
    if isinstance(value, Mapping):
        pairs = [(describe(key, depth + 1), describe(value[key], depth + 1)) for key in value]
        return {"mapping": sorted(map(list, pairs), key=repr)}
    if isinstance(value, enum.Enum | Path | Fraction | torch.dtype | torch.device):
        return f"{_name(type(value))} {value}"
    if isinstance(value, type) or (hasattr(value, "__qualname__") and hasattr(value, "__module__")):
        name = _name(value)  # a class or a function: known by its name where it has one
        return UNKNOWN if "<" in name else name  # <lambda>, and what is made in a function
    return _describe_object(value, depth)


def _describe_object(value: Any, depth: int) -> Any:
    held: dict[str, Any] = {}
    for kind in reversed(type(value).__mro__):  # what a class derived later sets holds
        if isinstance(value, Selector) and issubclass(kind, Selector) and kind is not Selector:
            held |= {
                name: fact
                for name, fact in vars(kind).items()
                if not name.startswith("__")
                and name not in _FACTS
                and not callable(fact)
                and not hasattr(fact, "__get__")  # no method
            }
        slots = kind.__dict__.get("__slots__", ())  # not in __dict__, and one name may be bare
        for name in (slots,) if isinstance(slots, str) else slots:
            if hasattr(value, name):
                held[name] = getattr(value, name)
    held |= getattr(value, "__dict__", {})
    if dataclasses.is_dataclass(value):
        held |= {part.name: getattr(value, part.name) for part in dataclasses.fields(value)}
    held.pop("_watcher", None)  # looks on, and decides nothing
    if isinstance(value, Selector):
        held = {name: fact for name, fact in held.items() if not value._is_unsaid(name)}
    if not held and not isinstance(value, Selector):
        return UNKNOWN  # an object of an extension, which keeps what it holds to itself
    settings = {name: describe(held[name], depth + 1) for name in sorted(held)}
    return {"class": _name(type(value)), **({"settings": settings} if settings else {})}


def _name(thing: Any) -> str:
    return f"{thing.__module__}.{thing.__qualname__}"
