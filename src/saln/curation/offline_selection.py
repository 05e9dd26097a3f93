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
import io
import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack

import numpy as np

import saln
from saln.curation.array_source import ArraySource
from saln.curation.checked_files import CURE, CheckedFiles
from saln.curation.columns import InputColumns, import_pyarrow
from saln.curation.feature_sources import ParquetSource, Source, open_source
from saln.curation.judged_labels import judge
from saln.curation.partition import PartitionJob, content_of
from saln.curation.select_settings import describe
from saln.curation.workspace import Workspace
from saln.data.arguments import as_path, as_whole
from saln.errors import InputError
from saln.features.store import FeatureStore
from saln.files import check_new_path, read_json, write_json, write_with
from saln.loading.candidate_fields import as_selector
from saln.loading.keyword_options import check_keywords
from saln.messages import not_allowed, parameter
from saln.selection.candidates import as_ratio
from saln.selection.coherence import judge_of
from saln.selection.contract import Selector

logger = logging.getLogger(__name__)

# Rows of a partition, about: some tens of MB of features, and a second's work.
PARTITION_ROWS = 32_768
FORMAT_VERSION = 2  # of the unfinished work: that of another version is not gone on with
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


class SelectOptions(TypedDict, total=False):
    """The keywords of :func:`select` that have defaults, but for the seed."""

    features_column: str
    """Of Parquet: lists of floats; ``features`` by default."""
    labels_column: str | None
    """Of Parquet: whole numbers, or the classes' names; becomes ``label``."""
    id_column: str | None
    """Of Parquet: becomes ``id``, which is else the input's own column of that name, or the
    row's number."""
    engine: Engine
    """``local`` or ``ray``; both give the same bytes."""
    ray_address: str | None
    """Of a cluster whose machines see the source at the same path; one on this machine when not
    given."""
    ray_workers: int | None
    """How many partitions are chosen from at once."""
    partition_rows: int
    """About how many rows are chosen from and made durable at a time."""
    progress: Callable[[int, int], object]
    """Called with (rows done, rows of all)."""


def select(
    source: Any,
    *,
    selector: Selector | type[Selector] | str,
    filter_ratio: float | Fraction,
    candidates: int,
    out: str | os.PathLike[str],
    seed: int = 0,
    **options: Unpack[SelectOptions],
) -> SelectionResult:
    """Chooses from a feature store or from Parquet, and writes the kept rows.

    Memory holds a partition (with Parquet, the row groups it lies in), never the input.

    Args:
        source: A feature store or its folder, a Parquet file, or a folder of Parquet files; also
            features as an array, a tensor, a list of rows or a data frame, or N alone; with
            labels in a :class:`saln.curation.ArraySource`.
        selector: Any that needs features and labels alone; also its class, or its name in
            ``saln list``.
        filter_ratio: ``f``, the share of the candidates to drop, in [0, 1).
        candidates: ``n``, how many rows are looked at together.
        out: The Parquet file to write: the input's columns, and ``id``, ``label``,
            ``score``, ``weight`` and ``batch`` (the number of the candidates' batch); with
            ``coherence`` also ``label_confidence`` and ``believed_label``.
        seed: Decides every random choice.
        **options: The columns of Parquet, the engine and what else :class:`SelectOptions` says.

    Raises:
        InputError: Settings that cannot work, or another process that writes the same
            output; nothing is written.
        DataError: The input is broken, or the disk cannot be written to. What is finished
            stays for the next run.
        MissingExtraError: pyarrow or Ray is not installed.
    """
    started = time.perf_counter()
    import_pyarrow()
    check_keywords(SelectOptions, select, options)
    _complete(options)
    selector = as_selector(selector)
    candidates = as_whole(candidates, "candidates", 1)
    seed = as_whole(seed, "seed")
    path = as_path(out, "out")
    check_new_path(path, "out", reserve=_RESERVE)
    names = options.get("labels_column"), options.get("id_column")
    opened = _open(source, InputColumns(options.get("features_column", "features"), *names))
    # Whole batches: only the last partition has one with fewer candidates.
    whole = candidates * max(1, options["partition_rows"] // candidates)
    job = PartitionJob(opened, selector, candidates, as_ratio(filter_ratio), seed, whole)
    job.check()  # before anything is written
    _check_apart(path, opened)
    listing = None
    if "label_confidence" in selector.requires:
        listing = path.with_name(f"{path.stem}.labels.json")
    workspace = Workspace(path, () if listing is None else (listing,))
    with workspace.held():
        computed = 0
        # A run that was killed after its last move has left its result, and nothing to do.
        found = workspace.begin(_settings(job))
        if found is None:
            found, computed = _work(job, workspace, listing, options)
        else:
            options["progress"](len(opened), len(opened))
        listed = [] if listing is None else read_json(listing, CURE)["labels"]
        workspace.clear()
    if isinstance(opened, ParquetSource) and not opened.groups.has_checksums:
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
        labels=listing,
        listed=listed,
        **found,
    )


def _complete(options: SelectOptions) -> None:
    """Adds what holds where nothing is given; raises InputError for what is not allowed."""
    rows = options.get("partition_rows", PARTITION_ROWS)
    options["partition_rows"] = as_whole(rows, "partition_rows", 1)
    options.setdefault("progress", lambda done, rows: None)
    if options.setdefault("engine", "local") not in ("local", "ray"):
        raise not_allowed("engine", options["engine"], "local or ray")
    if (workers := options.get("ray_workers")) is not None:
        options["ray_workers"] = as_whole(workers, "ray_workers", 1)


def _open(source: Any, columns: InputColumns) -> Source:
    if isinstance(source, FeatureStore):
        source = source.path
    if isinstance(source, str | os.PathLike):
        return open_source(source, columns)
    if isinstance(source, ArraySource):
        return source
    if not hasattr(source, "__len__") and not isinstance(source, int | np.integer):
        raise InputError(
            f"source is a {type(source).__name__}; give the path of a feature store or of "
            "Parquet, features (N, d), or N alone"
        )
    return ArraySource(source)


def _check_apart(out: Path, source: Source) -> None:
    """Raises InputError for an output that the command would read as input when it goes on."""
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
        "selector": describe(job.selector),  # its repr need not name every hyperparameter
        "candidates": job.candidates,
        "filter_ratio": describe(job.filter_ratio),
        "seed": job.seed,
        "partition_rows": job.partition_rows,
        "identity": job.source.identity(),
    }


def _work(
    job: PartitionJob, workspace: Workspace, listing: Path | None, options: SelectOptions
) -> tuple[dict[str, Any], int]:
    """Chooses from the partitions that are left, and moves the output to its place.

    Gives what is known of the output, and the rows of partitions that were chosen from now.
    """
    kept = workspace.files.whole()
    on_ray = options["engine"] == "ray"
    facts: dict[str, Any] = {}
    files: dict[Path, Path] = {}
    if listing is not None:
        who = judge_of(job.selector) or "labels"
        beliefs, labels = judge(job.source, workspace.files, kept, who)
        facts = {"noise_rate": labels["estimated_noise_rate"], "doubted": labels["doubted"]}
        facts["tells_nothing"] = labels.get("tells_nothing")
        # Other machines do not see the file; here a memory map of it is enough.
        job = dataclasses.replace(job, beliefs=beliefs)
        if on_ray:
            stream = io.BytesIO(workspace.files.read(beliefs))
            job = dataclasses.replace(job, beliefs=np.load(stream, allow_pickle=False))
        files[workspace.path / "labels.json"] = listing
        write_json(workspace.path / "labels.json", labels, durable=True)
    names = [f"part-{number:06}" for number in range(len(job))]  # sorted as they are joined
    left = [number for number, name in enumerate(names) if name not in kept]
    rows = len(job.source)
    sizes = [stop - start for start, stop in map(job.bounds, range(len(job)))]
    before = done = rows - sum(sizes[number] for number in left)
    options["progress"](done, rows)  # what a run before has done counts as done
    parts: Iterator[tuple[int, bytes]] = ((number, content_of(job, number)) for number in left)
    if on_ray:
        from saln.curation.ray_engine import contents_on_ray

        parts = contents_on_ray(job, left, options.get("ray_address"), options.get("ray_workers"))
    for number, content in parts:
        kept[names[number]] = workspace.files.write(names[number], "parquet", content)
        done += sizes[number]
        options["progress"](done, rows)
    output = workspace.path / "output.parquet"
    facts["kept"] = _join(workspace.files, [kept[name] for name in names], output)
    # Last, when nothing more is read: rows of two versions of the input must not be mixed.
    job.source.check_unchanged()
    files[output] = workspace.out  # last: where it is, everything is
    workspace.publish(files, facts)
    return facts, done - before


def _join(files: CheckedFiles, parts: list[Path], output: Path) -> int:
    """Writes all parts into one file, one after the other; gives the number of rows."""
    arrow, parquet = import_pyarrow()
    counts: list[int] = []

    def write(beside: Path) -> None:
        # A stream: pyarrow takes no name that is not UTF-8.
        with beside.open("wb") as stream, contextlib.ExitStack() as stack:
            writer = None
            for part in parts:
                table = parquet.read_table(arrow.BufferReader(files.read(part)))
                if writer is None:  # the first part says which columns there are
                    writer = parquet.ParquetWriter(stream, table.schema, write_page_checksum=True)
                    stack.enter_context(writer)
                if len(table):
                    writer.write_table(table)
                counts.append(len(table))

    write_with(output, write, durable=True)
    return sum(counts)
