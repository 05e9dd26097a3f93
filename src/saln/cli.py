"""The command line: ``saln compare | report | list``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import saln
from saln.errors import InputError, SalnError

if TYPE_CHECKING:
    from saln.experiments.config import Config

__all__ = ["main", "read_compare"]

_OVERVIEW = """\
usage: saln COMMAND [FLAGS]

Choose, from every batch of candidates, the few examples worth a gradient.

commands:
  compare   train the arms side by side and write a report (the main job)
  report    redraw the report of a run
  list      data sets, networks, selectors and presets

'saln COMMAND --help' lists a command's flags. 'saln --version' prints the version.
With --debug an error shows where in the code it arose.
"""


def _early(arguments: Sequence[str]) -> argparse.Namespace:
    """Reads the flags that decide the other flags' defaults."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for flag in ("--preset", "--config", "--dataset", "--out"):
        parser.add_argument(flag, nargs="?")
    parser.add_argument("--resume", action="store_true")
    try:
        return parser.parse_known_args(arguments)[0]
    except argparse.ArgumentError:  # tyro says it better
        return argparse.Namespace(preset=None, config=None, dataset=None, out=None, resume=False)


def _registry() -> Any:
    """Teaches tyro lists with commas: ``--methods uniform,saln`` and ``--seeds 0,1,2``."""
    import tyro

    registry = tyro.constructors.ConstructorRegistry()

    def commas(kind: Callable[[str], Any], metavar: str) -> Any:
        def parse(texts: list[str]) -> tuple[Any, ...]:
            return tuple(kind(part.strip()) for part in texts[0].split(",") if part.strip())

        return tyro.constructors.PrimitiveConstructorSpec(
            nargs=1,
            metavar=metavar,
            instance_from_str=parse,
            is_instance=lambda value: isinstance(value, tuple),
            str_from_instance=lambda value: [",".join(map(str, value))],
        )

    @registry.primitive_rule
    def rule(info: Any) -> Any:
        if info.type == tuple[str, ...]:
            return commas(str, "A,B,..")
        if info.type == tuple[int, ...]:
            return commas(int, "0,1,..")
        return None

    return registry


def read_compare(arguments: Sequence[str]) -> Config:
    """Reads the flags of ``saln compare``: preset, then file, then flags.

    With ``--resume`` the settings of the run in ``--out`` stand in the preset's place, so
    that they need not be given again; those that are given are compared with them later.

    Raises:
        InputError: A value that is not allowed, or no run to resume.
        SystemExit: Flags that cannot be parsed, or ``--help``.
    """
    import tyro

    from saln.experiments.config import Config, load_preset, load_toml
    from saln.experiments.progress import read_settings

    early = _early(arguments)
    wants_default = early.config is None and early.dataset in (None, "digits")
    preset = early.preset or ("digits" if wants_default else None)
    base = load_preset(preset) if preset else Config()
    if early.resume and early.out is not None:
        base = read_settings(Path(early.out).expanduser())
    if early.config is not None:
        base = load_toml(Path(early.config), base)
    config = tyro.cli(
        Config,
        prog="saln compare",
        description=_compare.__doc__,
        args=arguments,
        default=base,
        registry=_registry(),
    )
    config.check()
    return config


def _compare(arguments: list[str]) -> int:
    """Trains the arms side by side, says which was better and by how much, writes a report."""
    config = read_compare(arguments)
    from saln.experiments.run import compare
    from saln.report.page import write_report
    from saln.terminal import open_reporter, print_summary

    with open_reporter() as reporter:
        outcome = compare(config, reporter)
    if outcome.nothing_to_do:
        if not (outcome.path / "report.html").exists():  # ended just before it was drawn
            write_report(outcome.path)
        sys.stdout.write(f"{outcome.path} holds a finished run: nothing to resume\n")
        return 0
    write_report(outcome.path)
    print_summary(outcome.summary)
    sys.stdout.write(f"\nrows     {outcome.path / 'epochs.jsonl'}\n")
    sys.stdout.write(f"summary  {outcome.path / 'summary.json'}\n")
    sys.stdout.write(f"report   {outcome.path / 'report.html'}\n")
    for failure in outcome.failures:
        sys.stderr.write(f"saln: error: {failure}\n")
    return 1 if outcome.failures else 0


def _report(arguments: list[str]) -> int:
    """Redraws tables, figures and report.html of a run from its rows."""
    import tyro

    from saln.report.page import write_report

    def run(folder: Path) -> Path:
        """The run's folder."""
        return folder

    folder = tyro.cli(
        tyro.conf.configure(tyro.conf.PositionalRequiredArgs)(run),
        prog="saln report",
        description=_report.__doc__,
        args=arguments,
    )
    sys.stdout.write(f"{write_report(folder)}\n")
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


_COMMANDS = {"compare": _compare, "report": _report, "list": _list}


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
    return command(arguments[1:])


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command.

    Returns:
        0 when all went well, 1 for a failed run, 2 for bad usage, 130 after Ctrl-C.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    given = [argument for argument in given if argument != "--debug"]
    try:
        return _run(given)
    except SalnError as error:
        if debug:
            raise
        sys.stderr.write(f"saln: error: {error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        if debug:
            raise
        sys.stderr.write("\nsaln: stopped\n")
        return 130
    except BrokenPipeError:  # `saln list | head`
        sys.stderr.close()
        return 1
    except Exception as error:
        if debug:
            raise
        kind = type(error).__name__
        sys.stderr.write(f"saln: error: {kind}: {error}; --debug shows where it arose\n")
        return 1
