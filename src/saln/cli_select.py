"""``saln select``: choose once, offline."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from saln.cli_flags import read_flags
from saln.errors import InputError
from saln.files import check_new_path
from saln.messages import parameter
from saln.selection.registry import read_selector


@dataclass(frozen=True, kw_only=True)
class SelectSettings:
    """The settings of `saln select`."""

    source: Annotated[Path, tyro.conf.Positional]
    """The folder of a feature store, a Parquet file, or a folder of Parquet files."""
    selector: str
    """A selector that needs features and labels alone ('saln list' says which)."""
    out: Path
    """The Parquet file to write."""
    filter_ratio: float = 0.8
    """The share of the candidates that is dropped, in [0, 1)."""
    candidates: int = 320
    """Rows that are looked at together."""
    seed: int = 0
    """Decides every random choice."""
    features_column: str = "features"
    """Of Parquet: lists of floats."""
    labels_column: str | None = None
    """Of Parquet: whole numbers or names; becomes the column label."""
    id_column: str | None = None
    """Of Parquet: becomes the column id; when not given, its own id or the row's number."""
    engine: Literal["local", "ray"] = "local"
    """Choose in this process, or on a Ray cluster; the output is the same."""
    ray_address: str | None = None
    """The cluster's, HOST:PORT or auto; with none given a cluster of this machine is started."""
    ray_workers: int | None = None
    """How many partitions at once; as many as there are cores when not given."""
    distrusted: int = 10
    """With coherence: how many of the labels that it believes least are shown."""
    json: bool = False
    """Print one JSON object in the place of lines."""


def read_select(arguments: Sequence[str]) -> SelectSettings:
    """Reads the flags of ``saln select``.

    Raises:
        InputError: A value that is not allowed.
        SystemExit: Flags that cannot be parsed, or ``--help``.
    """
    settings = SelectSettings(
        **read_flags(SelectSettings, "select", run_select.__doc__, arguments, places=["source"])
    )
    try:
        read_selector(settings.selector)
    except InputError as error:
        raise InputError(f"{parameter('selector')} {error}") from error
    check_new_path(settings.out.absolute(), "out", reserve=len(".labels.json"))
    if settings.distrusted < 0:
        raise InputError(
            f"{parameter('distrusted', settings.distrusted)} is not allowed; give 0 or more"
        )
    if settings.engine != "ray" and (settings.ray_address or settings.ray_workers is not None):
        raise InputError(
            f"{parameter('ray_address')} and {parameter('ray_workers')} are for "
            f"{parameter('engine', 'ray')}; give that too"
        )
    return settings


def run_select(arguments: Sequence[str]) -> int:
    """Chooses from stored features and writes the rows that are kept, with score and weight.

    Memory holds a part of the input at a time. A run that was stopped goes on with the same
    command, and gives the same file.
    """
    settings = read_select(arguments)
    from saln.curation import select
    from saln.terminal import open_reporter

    # Ray prints on standard output when a worker dies, which is the result's alone.
    with open_reporter() as reporter, contextlib.redirect_stdout(sys.stderr):
        done = 0

        def progress(now: int, rows: int) -> None:
            nonlocal done
            if done == 0:
                reporter.begin(f"select: {settings.selector}", rows)
            reporter.advance(now - done)
            done = max(now, 1)

        result = select(
            settings.source,
            selector=settings.selector,
            filter_ratio=settings.filter_ratio,
            candidates=settings.candidates,
            out=settings.out,
            seed=settings.seed,
            features_column=settings.features_column,
            labels_column=settings.labels_column,
            id_column=settings.id_column,
            engine=settings.engine,
            ray_address=settings.ray_address,
            ray_workers=settings.ray_workers,
            progress=progress,
        )
    listed = result.listed[: settings.distrusted]
    if settings.json:
        found: dict[str, Any] = dataclasses.asdict(result)
        found |= {"path": str(result.path), "listed": listed}
        found["labels"] = None if result.labels is None else str(result.labels)
        sys.stdout.write(json.dumps(found, default=str) + "\n")
        return 0
    speed = result.computed / max(result.seconds, 1e-9)
    sys.stdout.write(f"kept     {result.path}: {result.kept:,} of {result.rows:,} rows\n")
    sys.stdout.write(f"took     {result.seconds:,.1f} s, {speed:,.0f} rows/s\n")
    if result.tells_nothing is not None:
        sys.stdout.write(f"labels   chosen at random: {result.tells_nothing}\n")
    if result.noise_rate is not None:
        sys.stdout.write(
            f"labels   about {result.noise_rate:.1%} look wrong; another class is believed of "
            f"{result.doubted:,}: {result.labels}\n"
        )
        for entry in listed:
            name = f"id {entry['id']}" if "id" in entry else f"row {entry['row']:,}"
            share = f"{entry['confidence']:.1%}" if entry["confidence"] >= 0.001 else "< 0.1%"
            sys.stdout.write(
                f"         {name}: labeled {entry['label']}, believed {entry['believed']}; the "
                f"label is right with probability {share}\n"
            )
    return 0
