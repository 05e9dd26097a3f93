"""Choosing once, offline: from stored features to a Parquet file of the kept rows.

The rows are taken in partitions: of a store in a random order, of Parquet in the order of the
files. Each partition is chosen from by itself and kept beside the output, in ``OUT.parts/``,
whole or not at all; so a run that was killed goes on with the partitions that are left. At the
end they are joined in order, all that is made is moved to its place, and the folder goes. What
is kept depends on the rows, the settings and the seed: not on the engine, the number of workers,
or how often the run was killed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np

import saln
from saln.curation.array_source import ArraySource
from saln.curation.columns import import_pyarrow
from saln.curation.feature_sources import ParquetSource, StoreSource, open_source
from saln.curation.judged_labels import belief_array, judge
from saln.curation.partition import PartitionJob, content_of
from saln.curation.select_settings import describe
from saln.curation.workspace import Workspace
from saln.data.arguments import as_path, as_whole
from saln.errors import InputError
from saln.features.store import FeatureStore
from saln.files import check_new_path, read_json, write_json, write_with
from saln.loading.candidate_fields import as_selector
from saln.messages import parameter
from saln.selection.candidates import as_ratio
from saln.selection.contract import Selector

logger = logging.getLogger(__name__)

# Rows of a partition, about: some tens of MB of features, and a second's work.
PARTITION_ROWS = 32_768
FORMAT_VERSION = 2
# What the names beside the output have more than its own.
_RESERVE = len(".labels.json")

Engine = Literal["local", "ray"]


@dataclass(frozen=True)
class SelectionResult:
    """What :func:`select` did.

    Attributes:
        path: The Parquet file.
        rows: Of the input.
        kept: Of the output.
        left_over: Rows of the last batch, which has fewer candidates than asked for; they
            were chosen from in the same proportion, rounded down.
        computed: Rows whose partitions were chosen in this run, not in one before.
        seconds: Of this run.
        noise_rate: With ``coherence``: the share of wrong labels, as estimated.
        doubted: With ``coherence``: how many labels another class is believed of.
        labels: With ``coherence``: the file that lists the labels least believed.
        tells_nothing: With ``coherence``: why nothing can be said of the labels, where features
            or labels tell nothing; rows are then chosen at random.
    """

    path: Path
    rows: int
    kept: int
    left_over: int
    computed: int
    seconds: float
    noise_rate: float | None = None
    doubted: int | None = None
    labels: Path | None = None
    listed: list[dict[str, Any]] = field(default_factory=list, repr=False)
    tells_nothing: str | None = None


def select(
    source: Any,
    *,
    selector: Selector | type[Selector] | str,
    filter_ratio: float | Fraction,
    candidates: int,
    out: str | os.PathLike[str],
    seed: int = 0,
    features_column: str = "features",
    labels_column: str | None = None,
    id_column: str | None = None,
    engine: Engine = "local",
    ray_address: str | None = None,
    ray_workers: int | None = None,
    partition_rows: int = PARTITION_ROWS,
    progress: Callable[[int, int], object] = lambda done, rows: None,
) -> SelectionResult:
    """Chooses from a feature store or from Parquet, and writes the kept rows.

    Memory holds a partition (with Parquet, the row groups it lies in), never the input.

    Args:
        source: A feature store or its folder, a Parquet file, or a folder of Parquet files; also
            features as an array, a tensor, a list of rows or a data frame, or N alone; with
            labels in a :class:`~saln.curation.array_source.ArraySource`.
        selector: Any that needs features and labels alone; also its class, or its name in
            ``saln list``.
        filter_ratio: ``f``, the share of the candidates to drop, in [0, 1).
        candidates: ``n``, how many rows are looked at together.
        out: The Parquet file to write: the input's columns, and ``id``, ``label``,
            ``score``, ``weight`` and ``batch`` (the number of the candidates' batch); with
            ``coherence`` also ``label_confidence`` and ``believed_label``.
        seed: Decides every random choice.
        features_column: Of Parquet: lists of floats.
        labels_column: Of Parquet: whole numbers, or the classes' names; becomes ``label``.
        id_column: Of Parquet: becomes ``id``, which is else the input's own column of that
            name, or the row's number.
        engine: ``local`` or ``ray``; both give the same bytes.
        ray_address: Of a cluster whose machines see ``source`` at the same path; one on
            this machine when not given.
        ray_workers: How many partitions are chosen from at once.
        partition_rows: About how many rows are chosen from and made durable at a time.
        progress: Called with (rows done, rows of all).

    Raises:
        InputError: Settings that cannot work, or another process that writes the same
            output; nothing is written.
        DataError: The input is broken, or the disk cannot be written to. What is finished
            stays for the next run.
        MissingExtraError: pyarrow or Ray is not installed.
    """
    started = time.perf_counter()
    import_pyarrow()
    selector = as_selector(selector)
    candidates = as_whole(candidates, "candidates", 1)
    seed = as_whole(seed, "seed")
    partition_rows = as_whole(partition_rows, "partition_rows", 1)
    if ray_workers is not None:
        ray_workers = as_whole(ray_workers, "ray_workers", 1)
    path = as_path(out, "out")
    check_new_path(path, "out", reserve=_RESERVE)
    if engine not in ("local", "ray"):
        raise InputError(f"{parameter('engine', engine)} is not allowed; give local or ray")
    columns = {
        "features_column": features_column,
        "labels_column": labels_column,
        "id_column": id_column,
    }
    opened = _open(source, columns)
    whole = candidates * max(1, partition_rows // candidates)
    job = PartitionJob(opened, selector, candidates, as_ratio(filter_ratio), seed, whole)
    job.check()
    _check_apart(path, opened)
    judges = "label_confidence" in selector.requires
    listing = path.with_name(f"{path.stem}.labels.json")
    workspace = Workspace(path, (listing,) if judges else ())
    with workspace.held():
        computed = 0
        found = workspace.begin(_settings(job))
        if found is None:
            found, computed = _work(
                job, workspace, listing if judges else None, engine, ray_address, ray_workers,
                progress,
            )  # fmt: skip
        else:
            progress(len(opened), len(opened))
        listed = read_json(listing, "run the same command again")["labels"] if judges else []
        workspace.clear()
    if isinstance(opened, ParquetSource) and not opened.has_checksums:
        logger.warning(
            "%s carries no checksums, so that damage to it may go unnoticed; Parquet can be "
            "written with them (pyarrow: write_page_checksum=True)",
            opened.path,
        )
    return SelectionResult(
        path=path,
        rows=len(opened),
        left_over=len(opened) % candidates,
        computed=computed,
        seconds=time.perf_counter() - started,
        labels=listing if judges else None,
        listed=listed,
        **found,
    )


def _open(source: Any, columns: dict[str, Any]) -> StoreSource | ParquetSource | ArraySource:
    if isinstance(source, FeatureStore):
        source = source.path
    if isinstance(source, str | os.PathLike):
        return open_source(source, **columns)
    if isinstance(source, ArraySource):
        return source
    if not hasattr(source, "__len__") and not isinstance(source, int | np.integer):
        raise InputError(
            f"source is a {type(source).__name__}; give the path of a feature store or of "
            "Parquet, features (N, d), or N alone"
        )
    return ArraySource(source)


def _check_apart(out: Path, source: Any) -> None:
    """Refuses an output that the same command would read as its input when it goes on.

    Raises:
        InputError: It would.
    """
    if (
        isinstance(source, ParquetSource)
        and source.path.is_dir()
        and out.suffix == ".parquet"
        and out.absolute().parent.resolve() == source.path.resolve()
    ):
        raise InputError(
            f"{parameter('out', out)} is in the folder of the input, and would be read as a part "
            "of it; give another folder"
        )


def _settings(job: PartitionJob) -> dict[str, Any]:
    """All that decides which rows are kept."""
    return {
        "format_version": FORMAT_VERSION,
        "saln": saln.__version__,
        "source": str(job.source.path),
        "selector": describe(job.selector),
        "candidates": job.candidates,
        "filter_ratio": describe(job.filter_ratio),
        "seed": job.seed,
        "partition_rows": job.partition_rows,
        "identity": job.source.identity(),
    }


def _work(
    job: PartitionJob,
    workspace: Workspace,
    listing: Path | None,
    engine: Engine,
    ray_address: str | None,
    ray_workers: int | None,
    progress: Callable[[int, int], object],
) -> tuple[dict[str, Any], int]:
    """Chooses from the partitions that are left, and moves the output to its place.

    Returns:
        What is known of the output, and the rows of partitions that were chosen from now.
    """
    kept = workspace.kept()
    facts: dict[str, Any] = {}
    files: dict[Path, Path] = {}
    if listing is not None:
        beliefs, labels = judge(job.source, workspace, kept)
        facts = {"noise_rate": labels["estimated_noise_rate"], "doubted": labels["doubted"]}
        facts["tells_nothing"] = labels.get("tells_nothing")
        remote = belief_array(workspace.read(beliefs)) if engine == "ray" else beliefs
        job = dataclasses.replace(job, beliefs=remote)
        files[workspace.path / "labels.json"] = listing
        write_json(workspace.path / "labels.json", labels, durable=True)
    names = [f"part-{number:06}" for number in range(len(job))]
    left = [number for number, name in enumerate(names) if name not in kept]
    rows = len(job.source)
    sizes = [stop - start for start, stop in map(job.bounds, range(len(job)))]
    before = done = rows - sum(sizes[number] for number in left)
    progress(done, rows)
    parts = _local(job, left)
    if engine == "ray":
        from saln.curation.ray_engine import contents_on_ray

        parts = contents_on_ray(job, left, ray_address, ray_workers)
    for number, content in parts:
        kept[names[number]] = workspace.keep(names[number], "parquet", content)
        done += sizes[number]
        progress(done, rows)
    output = workspace.path / "output.parquet"
    facts["kept"] = _join(workspace, [kept[name] for name in names], output)
    job.source.check_unchanged()
    files[output] = workspace.out
    workspace.publish(files, facts)
    return facts, done - before


def _local(job: PartitionJob, left: list[int]) -> Iterator[tuple[int, bytes]]:
    for number in left:
        yield number, content_of(job, number)


def _join(workspace: Workspace, names: list[Path], output: Path) -> int:
    """Writes all parts into one file, one after the other; gives the number of rows.

    Raises:
        DataError: A part is gone or damaged since, or the disk is full.
    """
    arrow, parquet = import_pyarrow()
    rows = 0

    def write(beside: Path) -> None:
        nonlocal rows
        # A stream: pyarrow takes no name that is not UTF-8.
        with beside.open("wb") as stream, contextlib.ExitStack() as stack:
            writer = None
            for name in names:
                table = parquet.read_table(arrow.BufferReader(workspace.read(name)))
                if writer is None:
                    writer = parquet.ParquetWriter(stream, table.schema, write_page_checksum=True)
                    stack.enter_context(writer)
                if len(table):
                    writer.write_table(table)
                rows += len(table)

    write_with(output, write, durable=True)
    return rows
