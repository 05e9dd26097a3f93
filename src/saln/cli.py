"""The command line: ``saln compare | features | select | report | list``."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import saln
from saln.errors import InputError, SalnError
from saln.messages import parameter, spelled_by
from saln.process import OutputError, Stopped, guarded_streams, own_warnings, stopping_signals

if TYPE_CHECKING:
    from saln.cli_select import SelectSettings
    from saln.experiments.config import Config

_OVERVIEW = """\
usage: saln COMMAND [FLAGS]

Choose, from every batch of candidates, the few examples worth a gradient.

commands:
  compare   train the arms side by side and write a report (the main job)
  features  run a frozen backbone over a data set and keep the rows
  select    choose once, offline, from stored features; write what is kept
  report    redraw the report of a run, or join several
  list      data sets, networks, selectors and presets

'saln COMMAND --help' lists a command's flags. 'saln --version' prints the version.
With --debug an error shows where in the code it arose.
"""


def read_compare(arguments: Sequence[str]) -> Config:
    """Reads the flags of ``saln compare``: preset, then file, then flags.

    With ``--resume`` the settings of the run in ``--out`` stand in the preset's place, so
    that they need not be given again; those that are given are compared with them later.

    Raises:
        InputError: A value that is not allowed, or no run to resume.
        SystemExit: ``--help``.
    """
    from saln.cli_flags import read_flags
    from saln.experiments.config import Config, load_preset, load_toml
    from saln.experiments.run_folder import read_settings

    given = read_flags(
        Config, "compare", _compare.__doc__, arguments, default=lambda: load_preset("digits")
    )
    file = given.get("config")
    wants_default = file is None and given.get("dataset") in (None, "digits")
    preset = given.get("preset") or ("digits" if wants_default else None)
    base = load_preset(preset) if preset else Config()
    if given.get("resume") and given.get("out") is not None:
        base = read_settings(given["out"])
    if file is not None:
        base = load_toml(file, base)
    config = dataclasses.replace(base, **given)
    config.check()
    return config


def _compare(arguments: list[str]) -> int:
    """Trains the arms side by side, says which was better and by how much, writes a report."""
    config = read_compare(arguments)
    from saln.experiments.run import compare
    from saln.report.page import is_current, write_report
    from saln.terminal import open_reporter, print_summary
    from saln.training.processes import Processes

    processes = Processes.from_environment()
    with open_reporter(silent=not processes.first) as reporter:
        outcome = compare(config, reporter)
    if not processes.first:
        return 0  # under torchrun the first process writes and says it
    if outcome.nothing_to_do and not is_current(outcome.path):
        write_report(outcome.path)  # ended before it was drawn
    if config.json:
        if not outcome.nothing_to_do:
            write_report(outcome.path)
        sys.stdout.write((outcome.path / "summary.json").read_text(encoding="utf-8"))
        for failure in outcome.failures:
            _say(failure)
        return 1 if outcome.failures else 0
    if outcome.nothing_to_do:
        sys.stdout.write(f"{outcome.path} holds a finished run: nothing to resume\n")
        return 0
    write_report(outcome.path)
    if outcome.summary is not None:  # as it is in the first process
        print_summary(outcome.summary)
    sys.stdout.write(f"\nrows     {outcome.path / 'epochs.jsonl'}\n")
    sys.stdout.write(f"summary  {outcome.path / 'summary.json'}\n")
    sys.stdout.write(f"report   {outcome.path / 'report.html'}\n")
    for failure in outcome.failures:
        _say(failure)
    return 1 if outcome.failures else 0


@dataclass(frozen=True, kw_only=True)
class FeatureSettings:
    """The settings of `saln features`; those of `saln compare` have the same names."""

    dataset: str = "digits"
    """Whose training images ('saln list' names all data sets)."""
    data_root: Path = Path("data")
    """Where cifar10 and oxford-pet are, in torchvision's layout."""
    download: bool = False
    """Fetch a data set that is not there."""
    backbone: str = "resnet50"
    """The frozen network."""
    backbone_weights: Path | None = None
    """Its state dict, in the place of a download."""
    feature_size: int | None = None
    """Pixels that it sees; the data set's own default, at least 96, when not given."""
    limit: int | None = None
    """Use at most this many training images."""
    split_seed: int = 0
    """Decides which examples are for training."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the backbone runs."""
    workers: int = 0
    """Processes that load images; 0 loads in the process itself."""
    batch_size: int | None = None
    """Images a forward pass; what suits the device when not given."""
    skip_unreadable: bool = False
    """List images that cannot be read in the store and go on without them."""
    cache_dir: Path | None = None
    """Where features are kept; when not given, where saln compare looks for them."""
    engine: Literal["local", "ray"] = "local"
    """Compute here, or in an actor a GPU or core of a Ray cluster."""
    ray_address: str | None = None
    """The cluster's, HOST:PORT or auto; with none given a cluster of this machine is started."""
    ray_workers: int | None = None
    """How many actors; when not given, one a GPU, or a core where there is none."""
    json: bool = False
    """Print one JSON object in the place of lines."""


def read_features(arguments: Sequence[str]) -> FeatureSettings:
    """Reads the flags of ``saln features``.

    Raises:
        InputError: A value that is not allowed.
        SystemExit: ``--help``.
    """
    from saln.cli_flags import read_flags

    return FeatureSettings(**read_flags(FeatureSettings, "features", _features.__doc__, arguments))


def _features(arguments: list[str]) -> int:
    """Runs a frozen backbone over a data set's training images and keeps the rows.

    `saln compare` with the same data set, backbone and size then finds them. A run that
    was stopped goes on where it stopped.
    """
    settings = read_features(arguments)
    import json

    from saln.data.datasets import load_dataset
    from saln.experiments.config import Config
    from saln.experiments.reporter import FeatureProgress
    from saln.features.backbones import build_backbone, feature_size
    from saln.features.extraction import extract_features
    from saln.terminal import open_reporter

    shared = {name: value for name, value in vars(settings).items() if name in vars(Config())}
    config = Config(
        **shared | {"batch_size": 1, "cache_dir": settings.cache_dir or Config().cache_dir}
    )
    config.check()
    if settings.engine != "ray" and (settings.ray_address or settings.ray_workers is not None):
        raise InputError(
            f"{parameter('ray_address')} and {parameter('ray_workers')} are for "
            f"{parameter('engine', 'ray')}; give that too"
        )
    data = load_dataset(
        settings.dataset,
        settings.data_root.expanduser(),
        limit=settings.limit,
        split_seed=settings.split_seed,
        download=settings.download,
    )
    size = settings.feature_size or feature_size(settings.backbone, data.default_image_size)
    backbone = build_backbone(settings.backbone, image_size=size, weights=settings.backbone_weights)
    extract: Callable[..., Any] = extract_features
    if settings.engine == "ray":
        from saln.integrations.ray import TrainingPart, extract_features_on_ray

        part = TrainingPart.of(
            settings.dataset, settings.data_root, settings.limit, settings.split_seed
        )
        extract = functools.partial(
            extract_features_on_ray,
            load=part,
            address=settings.ray_address,
            actors=settings.ray_workers,
        )
    # Ray prints on standard output when an actor dies, which is the result's alone.
    with open_reporter() as reporter, contextlib.redirect_stdout(sys.stderr):
        computed = FeatureProgress(reporter, f"features: {settings.backbone} at {size} px")
        store = extract(
            data.train,
            backbone,
            name=settings.dataset,
            cache_dir=config.cache_dir,
            device=None if settings.device == "auto" else settings.device,
            batch_size=settings.batch_size,
            workers=settings.workers,
            unreadable="skip" if settings.skip_unreadable else "raise",
            progress=computed,
        )
    if os.environ.get("RANK", "0") != "0":
        return 0  # under torchrun the first one says it
    rows, width = store.features.shape
    speed = rows / max(store.seconds, 1e-9)
    if settings.json:
        found = {
            "path": str(store.path),
            "rows": rows,
            "width": width,
            "rows_computed": computed.rows,
            "skipped": [entry._asdict() for entry in store.skipped],
            "seconds": store.seconds,
            "images_per_second": round(speed, 1),
        }
        sys.stdout.write(json.dumps(found) + "\n")
        return 0
    reused = "" if computed.rows else "; nothing to do, they were there"
    sys.stdout.write(f"store    {store.path}\n")
    sys.stdout.write(f"rows     {rows:,} of {width:,} features{reused}\n")
    if store.skipped:
        sys.stdout.write(
            f"skipped  {len(store.skipped):,} that cannot be read, the first "
            f"{store.skipped[0].file}; manifest.json lists them\n"
        )
    sys.stdout.write(f"took     {store.seconds:,.1f} s, {speed:,.0f} images/s\n")
    return 0


def read_select(arguments: Sequence[str]) -> SelectSettings:
    """See :func:`saln.cli_select.read_select`."""
    from saln.cli_select import read_select

    return read_select(arguments)


def _select(arguments: list[str]) -> int:
    from saln.cli_select import run_select

    return run_select(arguments)


@dataclass(frozen=True, kw_only=True)
class ReportSettings:
    """What `saln report` takes."""

    folders: tuple[Path, ...] = ()
    """Folders that saln compare wrote, without a flag."""
    out: Path = Path("joined.html")
    """The joined page of several runs."""


def _report(arguments: list[str]) -> int:
    """Redraws tables, figures and report.html of runs; several are joined on one page too."""
    from saln.cli_flags import read_flags
    from saln.report.page import write_joined, write_report

    settings = ReportSettings(
        **read_flags(ReportSettings, "report", _report.__doc__, arguments, places=["folders"])
    )
    if not settings.folders:
        raise InputError("saln report needs the folder of a run; give one or more")
    for folder in settings.folders:
        sys.stdout.write(f"{write_report(folder)}\n")
    if len(settings.folders) > 1:
        sys.stdout.write(f"{write_joined(settings.folders, settings.out)}\n")
    return 0


def _list(arguments: list[str]) -> int:
    """Lists data sets, networks, selectors and presets."""
    from saln.terminal import print_choices

    if arguments:
        if arguments == ["--help"] or arguments == ["-h"]:
            sys.stdout.write(f"usage: saln list\n\n{_list.__doc__}\n")
            return 0
        raise InputError(f"saln list takes no arguments, not {arguments[0]!r}; leave them out")
    print_choices()
    return 0


_COMMANDS = {
    "compare": _compare,
    "features": _features,
    "select": _select,
    "report": _report,
    "list": _list,
}


# What is left after Ctrl-C; a comparison says itself how it goes on.
_KEPT = {
    "features": "; finished shards are kept, and the same command goes on after them",
    "select": "; finished parts are kept, and the same command goes on after them",
}


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        (sys.stdout if arguments else sys.stderr).write(_OVERVIEW)
        return 0 if arguments else 2
    if arguments[0] == "--version":
        sys.stdout.write(f"saln {saln.__version__}\n")
        return 0
    command = _COMMANDS.get(arguments[0])
    if command is None:
        raise InputError(f"unknown command {arguments[0]!r}; choose one of {', '.join(_COMMANDS)}")
    with spelled_by(functools.partial(_spell, arguments[0])):
        return command(arguments[1:])


def _spell(command: str, name: str, value: object) -> str:
    """Names a parameter of the library as the command's flag."""
    from saln.cli_flags import flag_spelling
    from saln.cli_select import SelectSettings
    from saln.experiments.config import Config

    others = {"resume": "saln compare --resume", "unreadable": "saln features --skip-unreadable"}
    if command == "compare":
        return flag_spelling(Config, {"unreadable": others["unreadable"]})(name, value)
    if command == "features":
        names = {"unreadable": "skip_unreadable", "actors": "ray_workers"}
        if name == "unreadable":
            value = value == "skip"
        return flag_spelling(FeatureSettings, names)(name, value)
    if command == "select":
        return flag_spelling(SelectSettings, others)(name, value)
    return flag_spelling(ReportSettings, {"resume": others["resume"], "path": "out"})(name, value)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command.

    Signals, standard streams and warnings are looked after here alone: whoever uses the library
    keeps their own.

    Returns:
        0 when all went well, 1 for a failed run, 2 for bad usage; 130 after Ctrl-C, 143 after
        SIGTERM and 129 after SIGHUP.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    given = [argument for argument in given if argument != "--debug"]
    with guarded_streams(), own_warnings(debug=debug), stopping_signals():
        try:
            status = _status(given, debug)
            sys.stdout.flush()
        except OutputError as error:
            if not error.closed:  # else its reader has seen enough: `saln list | head`
                _say(
                    f"standard output cannot be written ({error}); what was made is kept: give "
                    "another place for what is printed"
                )
            return 1
        return status


def _status(given: list[str], debug: bool) -> int:
    """Runs a command; what ends it is said in a line, or raised with ``--debug``."""
    try:
        return _heard(given)
    except SystemExit as stop:  # after --help
        return stop.code if isinstance(stop.code, int) else 0
    except KeyboardInterrupt as stop:
        if debug:
            raise
        number, how = signal.SIGINT.value, ""
        if isinstance(stop, Stopped):
            number, how = stop.number, f" by {stop.name}"
        sys.stderr.write(f"\nsaln: stopped{how}{_KEPT.get(given[0], '') if given else ''}\n")
        return 128 + number
    except OutputError:
        raise
    except Exception as error:
        if debug:
            raise
        if isinstance(error, SalnError):
            _say(str(error))
            return error.exit_code
        _say(f"{type(error).__name__}: {error}; --debug shows where it arose")
        return 1


def _heard(given: list[str]) -> int:
    try:
        return _run(given)
    except RuntimeError as error:
        if "killed by signal" in str(error):
            # One that was sent to all may reach the loader's processes before this one.
            time.sleep(1)
        raise


def _say(text: str) -> None:
    """An error, in one line whatever is in it."""
    line = " ".join(text.splitlines())
    plain = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
    sys.stderr.write(f"saln: error: {plain}\n")
