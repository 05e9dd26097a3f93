"""``saln select``: choose once, offline."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from saln.cli.flags import Command, check_ray_flags
from saln.errors import InputError
from saln.files import check_new_path
from saln.messages import not_allowed, parameter
from saln.selection.registry import read_selector

if TYPE_CHECKING:
    from saln.curation.offline_selection import SelectionResult
    from saln.experiments.reporter import Reporter


@dataclass(frozen=True, kw_only=True)
class SelectSettings:
    """The settings of `saln select`."""

    source: Path
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
    """The cluster's address, HOST:PORT or auto; by default a cluster of this machine is started."""
    ray_workers: int | None = None
    """How many partitions at once; as many as there are cores when not given."""
    distrusted: int = 10
    """With coherence: how many of the labels that it believes least are shown."""
    json: bool = False
    """Print one JSON object instead of lines of text."""

    def __post_init__(self) -> None:
        """Checks what can be known before the input is opened; else InputError."""
        try:
            read_selector(self.selector)
        except InputError as error:
            raise InputError(f"{parameter('selector')} {error}") from error
        # Not only the file itself: the list of doubted labels is written beside it.
        check_new_path(self.out.absolute(), "out", reserve=len(".labels.json"))
        if self.distrusted < 0:
            raise not_allowed("distrusted", self.distrusted, "0 or more")
        check_ray_flags(self)


def _select(settings: SelectSettings) -> int:
    """Chooses from stored features and writes the rows that are kept, with score and weight.

    Memory holds a part of the input at a time. A run that was stopped goes on with the same
    command, and gives the same file.
    """
    from saln.cli.display import open_reporter
    from saln.curation import select

    own = ("source", "distrusted", "json")  # all other fields are arguments of saln.select
    options = {name: value for name, value in vars(settings).items() if name not in own}
    # Ray prints on standard output when a worker dies, which is the result's alone.
    with open_reporter() as reporter, contextlib.redirect_stdout(sys.stderr):
        progress = _progress(reporter, f"select: {settings.selector}")
        result = select(settings.source, progress=progress, **options)
    listed = result.listed[: settings.distrusted]
    if settings.json:
        facts = asdict(result) | {"listed": listed}
        sys.stdout.write(json.dumps(facts, default=str) + "\n")
    else:
        _print_result(result, listed)
    return 0


def _progress(reporter: Reporter, title: str) -> Callable[[int, int], None]:
    """Tells a reporter how many rows are done."""
    done = 0

    def progress(now: int, rows: int) -> None:
        nonlocal done
        if done == 0:  # how many rows there are is known from the first call on
            reporter.begin(title, rows)
        reporter.advance(now - done)
        done = max(now, 1)  # begun, even when no row is done yet

    return progress


def _print_result(result: SelectionResult, listed: list[dict[str, Any]]) -> None:
    from saln.cli.display import print_facts

    speed = result.computed / max(result.seconds, 1e-9)
    print_facts({"kept": f"{result.path}: {result.kept:,} of {result.rows:,} rows"})
    print_facts({"took": f"{result.seconds:,.1f} s, {speed:,.0f} rows/s"})
    if result.tells_nothing is not None:
        print_facts({"labels": f"chosen at random: {result.tells_nothing}"})
    if result.noise_rate is not None:
        doubted = f"about {result.noise_rate:.1%} look wrong; another class is believed of "
        print_facts({"labels": f"{doubted}{result.doubted:,}: {result.labels}"})
        for entry in listed:
            name = f"id {entry['id']}" if "id" in entry else f"row {entry['row']:,}"
            share = f"{entry['confidence']:.1%}" if entry["confidence"] >= 0.001 else "< 0.1%"
            sys.stdout.write(
                f"         {name}: labeled {entry['label']}, believed {entry['believed']}; the "
                f"label is right with probability {share}\n"
            )


COMMAND = Command(name="select", settings=SelectSettings, run=_select, positional=("source",))
