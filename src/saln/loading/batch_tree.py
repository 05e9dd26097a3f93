"""Batches of any shape: dicts, tuples, named tuples, lists, nested as a loader gives them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from saln.errors import InputError

# Where a part of a batch is: a dict's key, a tuple's position, a named tuple's field, or
# a tuple of these for a nested one.
Key = str | int | tuple[str | int, ...]


def _rebuild(like: Any, parts: list[Any]) -> Any:
    """A container of the same kind around other parts."""
    if isinstance(like, Mapping):
        pairs = dict(zip(like, parts, strict=True))
        # Hugging Face's BatchEncoding and the like are made of one dict.
        return pairs if type(like) is dict else type(like)(pairs)  # type: ignore[call-arg]
    return type(like)(*parts) if hasattr(like, "_fields") else type(like)(parts)


def _parts(batch: Any) -> list[Any] | None:
    """What a container holds; None for a leaf."""
    if isinstance(batch, Mapping):
        return list(batch.values())
    return list(batch) if isinstance(batch, tuple | list) else None


def tensors(batch: Any) -> Iterator[Tensor]:
    """Every tensor of a batch, in its order."""
    if isinstance(batch, Tensor):
        yield batch
    for part in _parts(batch) or ():
        yield from tensors(part)


def map_tensors(batch: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The batch with every tensor changed; what is no tensor stays."""
    if isinstance(batch, Tensor):
        return change(batch)
    parts = _parts(batch)
    if parts is None:
        return batch
    return _rebuild(batch, [map_tensors(part, change) for part in parts])


def move(batch: Any, device: torch.device) -> Any:
    """The batch with every tensor on the device."""
    return map_tensors(batch, lambda tensor: tensor.to(device, non_blocking=True))


def cut(batch: Any, rows: Tensor, n: int) -> Any:
    """The examples at ``rows``, int64 (m,), of a batch of ``n``.

    Cut is every tensor whose first dimension is ``n``, and every list of ``n`` strings,
    numbers or the like, as a loader makes of them. The rest belongs to all examples
    and stays whole.
    """
    if isinstance(batch, Tensor):
        mine = batch.ndim > 0 and len(batch) == n
        return batch[rows.to(batch.device)] if mine else batch
    parts = _parts(batch)
    if parts is None:
        return batch
    # Lists of n names or numbers have one an example; lists of n tensors are parts of a batch.
    plain = all(not isinstance(part, Tensor) and _parts(part) is None for part in parts)
    if plain and len(parts) == n and type(batch) in (list, tuple):
        return type(batch)(parts[row] for row in rows.tolist())
    return _rebuild(batch, [cut(part, rows, n) for part in parts])


def describe(batch: Any) -> str:
    """What there is to name in a batch, for a message."""
    if isinstance(batch, Mapping):
        return f"a {type(batch).__name__} with the keys {', '.join(map(repr, batch))}"
    if hasattr(batch, "_fields"):
        return f"a {type(batch).__name__} with the fields {', '.join(batch._fields)}"
    parts = _parts(batch)
    if parts is not None:
        return f"a {type(batch).__name__} with the positions 0 to {len(parts) - 1}"
    return f"a {type(batch).__name__}"


def find(batch: Any, key: Key, what: str) -> Any:
    """The part of a batch that a key names; raises InputError, for ``what`` it is, without one."""
    for step in key if isinstance(key, tuple) else (key,):
        try:
            # A named tuple is found by field, or, like any other, by position.
            if isinstance(step, str) and hasattr(batch, "_fields"):
                batch = getattr(batch, step)
            else:
                batch = batch[step]
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise InputError(
                f"{what}={key!r}: there is no {step!r} in {describe(batch)}; "
                f"say where the {what} are with {what}=KEY"
            ) from error
    return batch


def leading(batch: Any) -> int:
    """How many examples a batch holds, by its first tensor; raises InputError without any."""
    for tensor in tensors(batch):
        if tensor.ndim > 0:
            return len(tensor)
    raise InputError(
        f"the batch is {describe(batch)} and holds no tensor with one row an example; "
        "give a loader whose collate function makes dicts, tuples or lists of tensors"
    )
