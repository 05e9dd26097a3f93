"""Partitions chosen from on a Ray cluster."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any

from saln.curation.partition import PartitionJob, content_of
from saln.errors import DataError, SalnError
from saln.integrations.ray import connected


def contents_on_ray(
    job: PartitionJob, left: list[int], address: str | None, workers: int | None
) -> Iterator[tuple[int, bytes]]:
    """Chooses from partitions by Ray's tasks: numbers go out, Parquet bytes come back.

    The driver alone writes, so the output's folder need not be shared; the input must be at the
    same path on every machine. Ray gives the work of a process that died to another. Without an
    address a cluster is started on this machine; at once are chosen from as many partitions as
    there are ``workers``, by default one a core. Raises InputError for no cluster at the
    address, DataError for a row that cannot be read or a task that keeps failing,
    MissingExtraError without Ray.
    """
    if not left:
        return
    with connected(address, workers) as ray:
        # Beliefs go to each machine once, and not with every partition.
        sent = ray.put(dataclasses.replace(job, beliefs=None)), ray.put(job.beliefs)
        # Spread: a machine would else be filled before the next gets any.
        choose = ray.remote(scheduling_strategy="SPREAD")(_content_or_error)
        waiting, running = iter(left), dict[Any, int]()
        try:
            while True:
                # Asked each time, as a cluster grows; one more than work waits for the driver.
                room = workers or int(ray.cluster_resources().get("CPU", 1)) + 1
                for number in itertools.islice(waiting, max(0, room - len(running))):
                    running[choose.remote(*sent, number)] = number
                if not running:
                    return
                (done,), _ = ray.wait(list(running), num_returns=1)
                content = ray.get(done)
                if isinstance(content, SalnError):  # the first ends the run; parts before are kept
                    raise DataError(str(content))
                yield running.pop(done), content
        except ray.exceptions.RayError as error:
            raise DataError(
                f"a Ray task failed ({str(error).splitlines()[-1]}); run the same command again: "
                "it goes on where it stopped"
            ) from error


def _content_or_error(job: PartitionJob, beliefs: Any, number: int) -> bytes | SalnError:
    """A partition's content; an error is given back, as Ray would bury it in its own."""
    try:
        return content_of(dataclasses.replace(job, beliefs=beliefs), number)
    except SalnError as error:
        return error
