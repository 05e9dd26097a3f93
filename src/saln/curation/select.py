"""Choosing once, offline: from stored features to a Parquet file of the kept rows.

The rows are taken in partitions: of a store in a random order, of Parquet in the order of the
files. Each partition is chosen from by itself and kept beside the output, in ``OUT.parts/``,
whole or not at all; so a run that was killed goes on with the partitions that are left. At the
end they are joined in order and the folder goes. What is kept depends on the rows, the settings
and the seed: not on the engine, the number of workers, or how often the run was killed.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from saln.curation.choosing import Job, content_of
from saln.curation.sources import ParquetSource, StoreSource, import_pyarrow, open_source
from saln.errors import DataError, InputError
from saln.features.given import write_store
from saln.features.store import FeatureStore
from saln.files import write_text, write_with
from saln.selection.coherence import LabelBeliefs, store_beliefs, suspicious_labels
from saln.selection.contract import Selector

__all__ = ["SelectionResult", "select"]

# Rows of a partition, about: some tens of MB of features, and a second's work.
PARTITION_ROWS = 32_768
FORMAT_VERSION = 1
# How many labels ``OUT.labels.json`` lists at most.
LISTED = 1000

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


def select(
    source: str | Path,
    *,
    selector: Selector,
    filter_ratio: float,
    candidates: int,
    out: str | Path,
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
        source: A feature store's folder, a Parquet file, or a folder of Parquet files.
        selector: Any that needs features and labels alone.
        filter_ratio: ``f``, the share of the candidates to drop, in [0, 1).
        candidates: ``n``, how many rows are looked at together.
        out: The Parquet file to write: the input's columns, and ``id``, ``label``,
            ``score``, ``weight`` and ``batch`` (the number of the candidates' batch); with
            ``coherence`` also ``label_confidence`` and ``believed_label``.
        seed: Decides every random choice.
        features_column: Of Parquet: lists of floats.
        labels_column: Of Parquet: whole numbers.
        id_column: Of Parquet: becomes ``id``, which is else the row's number.
        engine: ``local`` or ``ray``; both give the same bytes.
        ray_address: Of a cluster whose machines see ``source`` at the same path; one on
            this machine when not given.
        ray_workers: How many partitions are chosen from at once.
        partition_rows: About how many rows are chosen from and made durable at a time.
        progress: Called with (rows done, rows of all).

    Raises:
        InputError: Settings that cannot work; nothing is written.
        DataError: The input is broken, or the disk cannot be written to. What is finished
            stays for the next run.
        MissingExtraError: pyarrow or Ray is not installed.
    """
    started = time.perf_counter()
    _, parquet = import_pyarrow()
    path = Path(out).expanduser()
    if path.exists():
        raise InputError(f"--out {path} exists; give a new name, or remove it first")
    if engine not in ("local", "ray"):
        raise InputError(f"--engine {engine} is not allowed; give local or ray")
    opened = open_source(
        source, features_column=features_column, labels_column=labels_column, id_column=id_column
    )
    whole = candidates * max(1, partition_rows // max(candidates, 1))
    job = Job(opened, selector, candidates, filter_ratio, seed, whole)
    job.check()
    work = path.absolute().with_name(f"{path.name}.parts")
    _claim(work, path, job)
    beliefs: LabelBeliefs | None = None
    if "label_confidence" in selector.requires:
        beliefs, job = _judge(job, work)
    names = [work / f"part-{number:06}.parquet" for number in range(len(job))]
    left = [number for number, name in enumerate(names) if not name.exists()]
    rows = len(opened)
    sizes = [stop - start for start, stop in map(job.bounds, range(len(job)))]
    done = rows - sum(sizes[number] for number in left)
    before = done
    progress(done, rows)
    parts = _local(job, left)
    if engine == "ray":
        from saln.curation.on_ray import contents_on_ray

        parts = contents_on_ray(job, left, ray_address, ray_workers)
    for number, content in parts:
        write = functools.partial(_write_bytes, content)
        write_with(names[number], write, durable=True)
        done += sizes[number]
        progress(done, rows)
    write_with(path, functools.partial(_join, parquet, names), durable=True)
    kept = parquet.ParquetFile(path).metadata.num_rows
    result = SelectionResult(
        path, rows, kept, rows % candidates, done - before, time.perf_counter() - started
    )
    if beliefs is not None:
        result = _list_labels(result, beliefs, opened, id_column)
    shutil.rmtree(work)
    return result


def _write_bytes(content: bytes, path: Path) -> None:
    path.write_bytes(content)


def _claim(work: Path, out: Path, job: Job) -> None:
    """Makes the folder for unfinished work, or checks that it is of the same run."""
    settings = json.loads(
        json.dumps(
            {
                "format_version": FORMAT_VERSION,
                "source": str(job.source.path),
                "identity": job.source.identity(),
                "selector": repr(job.selector)
                if "object at" not in repr(job.selector)
                else type(job.selector).__name__,
                "candidates": job.candidates,
                "filter_ratio": job.filter_ratio,
                "seed": job.seed,
                "partition_rows": job.partition_rows,
            }
        )
    )
    manifest = work / "manifest.json"
    if not manifest.exists():
        if work.exists() and any(work.iterdir()):
            raise InputError(
                f"{work} holds other files, and unfinished work of --out {out} goes there; "
                "remove it, or give another --out"
            )
        write_text(manifest, json.dumps(settings, indent=2) + "\n", durable=True)
        return
    try:
        saved = json.loads(manifest.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{manifest} cannot be read ({error}); remove the folder {work}") from error
    for name, now in settings.items():
        if saved.get(name) != now:
            before = "of another input" if name == "identity" else repr(saved.get(name))
            raise InputError(
                f"{work} holds the unfinished work of a run whose {name} was {before}; go on with "
                "its settings, remove that folder, or give another --out"
            )


class _Table:
    """A source's features as an array that is read in parts, for :func:`write_store`."""

    def __init__(self, source: ParquetSource) -> None:
        self.source = source
        width = source.read(np.zeros(1, dtype=np.int64)).features.shape[1]
        self.shape = (len(source), width)
        self.ndim = 2
        self.size = len(source) * width

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, part: slice) -> npt.NDArray[Any]:
        start, stop, _ = part.indices(len(self))
        return self.source.read(np.arange(start, stop)).features


def _judge(job: Job, work: Path) -> tuple[LabelBeliefs, Job]:
    """Beliefs about all labels, and the job that reads them from a file."""
    source = job.source
    labels = source.labels()
    if labels is None:
        raise InputError("coherence requires labels; give --labels-column NAME")
    if isinstance(source, StoreSource):
        store: FeatureStore = source.store
    else:
        if labels.min() < 0:
            row = int((labels < 0).argmax())
            raise DataError(
                f"row {row:,} of {source.path} has the label {labels[row]}; give 0 or more"
            )
        table: Any = _Table(source)  # type: ignore[arg-type]
        store = write_store(work / "features", table, labels, name=source.path.name)
    beliefs = store_beliefs(store, labels)
    both = np.stack([beliefs.confidence.numpy(), beliefs.believed.numpy()], axis=1)
    file = work / "beliefs.npy"

    def save(beside: Path) -> None:
        with beside.open("wb") as stream:
            np.save(stream, both, allow_pickle=False)

    write_with(file, save, durable=True)
    return beliefs, dataclasses.replace(job, beliefs=file)


def _local(job: Job, left: list[int]) -> Iterator[tuple[int, bytes]]:
    for number in left:
        yield number, content_of(job, number)


def _join(parquet: Any, names: list[Path], beside: Path) -> None:
    """Writes all parts into one file, one after the other."""
    writer = None
    try:
        for name in names:
            try:
                table = parquet.read_table(name)
            except Exception as error:  # pyarrow raises many kinds
                raise DataError(
                    f"{name} cannot be read ({error}); remove it and run the same command again"
                ) from error
            writer = writer or parquet.ParquetWriter(beside, table.schema)
            if len(table):
                writer.write_table(table)
    finally:
        if writer is not None:
            writer.close()


def _list_labels(
    result: SelectionResult,
    beliefs: LabelBeliefs,
    source: StoreSource | ParquetSource,
    id_column: str | None,
) -> SelectionResult:
    """Writes the labels that are least believed beside the output."""
    labels = source.labels()
    assert labels is not None
    given = torch.from_numpy(labels)
    listed = []
    for entry in suspicious_labels(beliefs, given, LISTED):
        row: dict[str, Any] = {
            "row": entry.example,
            "label": entry.given,
            "believed": entry.believed,
            "confidence": entry.confidence,
        }
        if id_column is not None:
            found = source.read(np.array([entry.example])).columns
            row["id"] = found[id_column][0].as_py()
        listed.append(row)
    doubted = int((beliefs.believed != given).sum())
    path = result.path.with_name(f"{result.path.stem}.labels.json")
    text = json.dumps(
        {
            "estimated_noise_rate": beliefs.noise_rate,
            "rows": result.rows,
            "doubted": doubted,
            "transition": beliefs.transition.tolist(),
            "labels": listed,
        },
        indent=2,
        default=str,
    )
    write_text(path, text + "\n", durable=True)
    return dataclasses.replace(
        result, noise_rate=beliefs.noise_rate, doubted=doubted, labels=path, listed=listed
    )
