"""Who shares batches out among ranks, and whether two do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from saln.distributed import Sharing
from saln.errors import InputError

# Where loaders and samplers keep what they wrap: torch's, torchdata's and Accelerate's.
_INSIDE = ("base_dataloader", "batch_sampler", "sampler", "dataset", "batches")
# Accelerate's own parts that give each process another share, and where they say of how many.
_COUNTS = ("num_replicas", "num_processes", "world_size")


def sharded_by(loader: Any) -> list[str]:
    """Names each part of a loader, or sampler, that gives a rank only its share of the examples.

    Found are torch's DistributedSampler and what is derived from it or looks like it
    (Lightning's), Accelerate's BatchSamplerShard, IterableDatasetShard and
    DataLoaderDispatcher, and SelectedBatches and LearnerSelected with more than one rank: from the
    outside in, such as ``["BatchSamplerShard(num_processes=2)"]``.
    """
    return [name for part in parts_of(loader) for name in shards_of(part)]


def parts_of(loader: Any) -> Iterator[Any]:
    """A loader and what it wraps, from the outside in."""
    seen: set[int] = set()  # a loader's parts refer to one another
    waiting = [loader]
    while waiting:
        part = waiting.pop(0)
        if part is None or id(part) in seen:
            continue
        seen.add(id(part))
        yield part
        inside = vars(part) if hasattr(part, "__dict__") else {}
        # Read from the object itself: a network or a data set may have an attribute for any name.
        waiting += [inside[name] for name in _INSIDE if name in inside]


def shards_of(part: Any) -> list[str]:
    """As :func:`sharded_by`, of one part alone."""
    name = type(part).__name__
    inside = vars(part) if hasattr(part, "__dict__") else {}
    for key in _COUNTS:
        value = inside.get(key)
        if isinstance(value, int) and value > 1:
            return [f"{name}({key}={value})"]
    sharing = inside.get("sharing")
    if isinstance(sharing, Sharing) and (count := sharing.current().count) > 1:
        return [f"{name}(world_size={count})"]
    # Reads on one rank and sends each its part; how many there are is its state's.
    if any(kind.__name__ == "DataLoaderDispatcher" for kind in type(part).__mro__):
        count = getattr(inside.get("state"), "num_processes", 1)
        return [f"{name}(num_processes={count})"] if count > 1 else []
    return []


def refuse_double_sharding(loader: Any, also: str | None = None) -> None:
    """Raises InputError where batches are shared out more than once, ``also`` around the loader."""
    sharers = ([] if also is None else [also]) + sharded_by(loader)
    if len(sharers) > 1:
        raise InputError(
            f"the batches are shared out among the ranks {len(sharers)} times, by "
            f"{' and by '.join(sharers)}, so each rank would train on a share of a share; let one "
            "of them do it: leave out the DistributedSampler, use "
            "saln.integrations.accelerate.prepare in place of Accelerator.prepare, "
            "or leave world_size of the selection at 1"
        )
