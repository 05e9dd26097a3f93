"""Partitions chosen from on a Ray cluster."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from saln.curation.partition import PartitionJob, content_of
from saln.errors import DataError, SalnError
from saln.integrations.ray import connected


def contents_on_ray(
    job: PartitionJob, left: list[int], address: str | None, workers: int | None
) -> Iterator[tuple[int, bytes]]:
    """Chooses from partitions by Ray Data: numbers go out, Parquet bytes come back.

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
        from ray.data import DataContext, from_items

        context = DataContext.get_current()
        # What the command prints is the result alone; progress is shown by the caller.
        context.enable_progress_bars = False
        context.print_on_execution_start = False

        # Beliefs go to each machine once, and not with every partition.
        held = None if job.beliefs is None else ray.put(job.beliefs)
        plain = dataclasses.replace(job, beliefs=None)  # what is sent with every task

        def choose(batch: dict[str, Any]) -> dict[str, Any]:
            mine = plain if held is None else dataclasses.replace(plain, beliefs=ray.get(held))
            numbers = [int(number) for number in batch["number"]]
            # Arrays of objects: NumPy's own arrays of bytes lose zeros at the end.
            contents, errors = (np.empty(len(numbers), dtype=object) for _ in range(2))
            for place, number in enumerate(numbers):
                contents[place], errors[place] = b"", ""
                try:
                    contents[place] = content_of(mine, number)
                except SalnError as error:  # Ray would bury it in its own
                    errors[place] = str(error)
            return {"number": batch["number"], "content": contents, "error": errors}

        # One block a partition: Ray gives work out, and again after a death, by the block.
        numbers = from_items([{"number": number} for number in left], override_num_blocks=len(left))
        options: dict[str, Any] = {}
        if workers is not None:
            strategy = getattr(ray.data, "TaskPoolStrategy", None)  # since Ray 2.51
            options = {"compute": strategy(size=workers)} if strategy else {"concurrency": workers}
        try:
            for row in numbers.map_batches(choose, batch_size=1, **options).iter_rows():
                if row["error"]:  # the first one ends the run; what came before it is kept
                    raise DataError(row["error"])
                yield int(row["number"]), bytes(row["content"])
        except ray.exceptions.RayError as error:
            raise DataError(
                f"a Ray task failed ({str(error).splitlines()[-1]}); run the same command again: "
                "it goes on where it stopped"
            ) from error
